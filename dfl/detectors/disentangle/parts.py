"""What UCF and PG-FDD share: encoders of forgery and content, the two forgery branches, the decoder, their losses.

    image -> encoder_f -> block_sha -> common feature    -> head_sha: real or fake
                       -> block_spe -> specific feature  -> head_spe: which method
          -> encoder_c -> content
    decoder(forgery of one, content of the other) ~ the image that the content is from

Parameters have the names of the published codes: f forgery, c content, sha(red) and spe(cific), con(ditional) gan.
"""

import warnings
from abc import ABC
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dfl.detectors.base import Detector, Losses
from dfl.detectors.disentangle.losses import contrastive_triplets, shuffle_within
from dfl.detectors.disentangle.networks import (
    BackboneEncoder,
    ConditionalDecoder,
    ConvBlock,
    PooledHead,
    XceptionEncoder,
    load_cadene,
)
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError
from dfl.losses import cross_entropy
from dfl.losses.classification import mean_over
from dfl.networks import create_backbone, read_state, wants_file
from dfl.networks.weights import refuse_misfit

#: The published models have these and never use them.
UNUSED = (".last_linear.", "block_fused.")


class DisentangledOutputs(Outputs, total=False):
    """Outputs with all that the losses need, in training."""

    forgery: Tensor  # (N, dim, h, w)
    content: Tensor  # (N, dim, h, w)
    common_map: Tensor  # (N, dim / 2, h, w)
    common: Tensor  # (N, dim / 2), pooled
    common_logits: Tensor  # (N, 2)
    specific_map: Tensor  # the same of the forgery-specific branch
    specific: Tensor
    specific_logits: Tensor  # (N, methods + 1)
    demographic: Tensor  # (N, dim / 2)
    group_logits: Tensor  # (N, num_groups)


class Disentangling(Detector, ABC):
    """The shared parts of UCF and PG-FDD.

    Args:
        backbone: timm name of the encoders; ``legacy_xception`` is the papers', and has their names of parameters.
        pretrained: Start the encoders from pretrained weights.
        weights: A file: ImageNet weights of Xception, or a whole published model; or a timm tag.
        input_size: Side of the images in pixels, a multiple of 32, at least 64.
        dim: Channels of the encoders' maps.
        methods: Forgery methods in the training data.
        dropout: On the logits of the heads, as in the published codes.
        margin: Of the contrastive loss.
        **kwargs: Of `Detector`.
    """

    channels_last = True
    encoder_f: nn.Module
    encoder_c: nn.Module

    def __init__(
        self,
        backbone: str = "legacy_xception",
        pretrained: bool = True,
        weights: str | None = None,
        input_size: int = 256,
        dim: int = 512,
        methods: int = 4,
        dropout: float = 0.2,
        margin: float = 3.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_size, **kwargs)
        if input_size % 32 or input_size < 64:
            raise UserError(
                f"input_size is a multiple of 32 and at least 64: the decoder makes 32 pixels of one, and a map of one "
                f"has no deviation; got {input_size}"
            )
        self.width, self.methods, self.dropout, self.margin = dim // 2, methods, dropout, margin

    def build(self, encoders: tuple[str, ...], specific: bool) -> None:
        """Make encoders, decoder and the forgery branches; a subclass calls it first in its ``__init__``.

        Args:
            encoders: Their names; ``encoder_f`` and ``encoder_c`` are among them.
            specific: Have the branch that tells methods apart.
        """
        self.encoders, self.specific, dim = encoders, specific, self.hparams["dim"]
        backbone, pretrained, weights = (self.hparams[name] for name in ("backbone", "pretrained", "weights"))
        for name in encoders:
            self.add_module(name, _encoder(backbone, pretrained, weights, dim))
        self.con_gan = ConditionalDecoder(dim)
        self.block_sha, self.head_sha = ConvBlock(dim, self.width, self.width), self.head(2)
        if specific:
            self.block_spe, self.head_spe = ConvBlock(dim, self.width, self.width), self.head(self.methods + 1)

    def head(self, classes: int) -> PooledHead:
        """Return a head on half of the channels."""
        return PooledHead(self.width, 2 * self.width, classes, self.dropout)

    def load_published(self) -> None:
        """Load the file of ``weights`` into all parts: ImageNet weights for each encoder, or a published whole model.

        Raises:
            UserError: If it is not there, or does not fit; with the keys.
        """
        weights = self.hparams["weights"]
        if weights is None or not wants_file(weights) or not isinstance(self.encoder_f, XceptionEncoder):
            return
        state = read_state(weights)
        if not any(k.startswith("encoder_f.") for k in state):
            for name in self.encoders:
                load_cadene(getattr(self, name), state, weights)
            return
        published = ("encoder_", "con_gan.", "block_s", "block_fair.", "head_")  # block_mixed is ours
        own = {k: v for k, v in self.state_dict().items() if k.startswith(published)}
        state = {k: v for k, v in state.items() if k in own or not any(part in k for part in UNUSED)}
        refuse_misfit(weights, own, state)
        self.load_state_dict(state, strict=False)
        self.at_random = tuple(name for name, _ in self.named_parameters() if name not in own)

    def observe(self, sample: Callable[[int], Tensor], counts: Callable[..., dict[int, int]]) -> None:
        """Check that the head of methods holds those of the training data; say of how many fakes none is known."""
        super().observe(sample, counts)
        if not self.specific:
            return
        most = max(counts("generator"))
        if most > self.methods:
            raise UserError(f"the training data have {most} generators, and model.methods is {self.methods}")
        of_fakes = counts("generator", label=1)
        if unknown := of_fakes.get(-1, 0):
            warnings.warn(
                f"{unknown} of {sum(of_fakes.values())} training fakes have no method (column generator), so the loss "
                "of methods leaves them out; name it in the table, or with generator of the source",
                stacklevel=2,
            )

    # forward

    def encode(self, image: Tensor) -> DisentangledOutputs:
        """Return maps, pooled features and logits of both forgery branches, and the content, of images in [0, 1]."""
        image = self.normalize(image)
        forgery = self.encoder_f(image)
        common = self.block_sha(forgery)
        out: DisentangledOutputs = {"common_map": common, "content": self.encoder_c(image), "forgery": forgery}
        out["common_logits"], out["common"] = self.head_sha(common)
        if self.specific:
            specific = self.block_spe(forgery)
            out["specific_logits"], out["specific"] = self.head_spe(specific)
            out["specific_map"] = specific
        return out

    # losses

    def paired_losses(self, out: DisentangledOutputs, batch: Mapping[str, Any], mix: float = 0.0) -> Losses:
        """Return ``common``, ``specific``, ``reconstruction`` and ``contrastive``.

        Args:
            out: Of :meth:`encode`.
            batch: Any mixture of reals and fakes; see :func:`pairs`. Fakes of an unknown method are left out of
                ``specific``.
            mix: Chance that common features are shuffled among the reals and among the fakes of the batch.
        """
        label, weight = batch["label"], batch.get("weight")
        losses = {"common": cross_entropy(out["common_logits"], label, weight)}
        rows, both = pairs(label)
        method = torch.where(label == 1, batch["generator"], 0)
        is_known = (method >= 0) & (method <= self.methods)
        if self.specific:
            each = cross_entropy(out["specific_logits"], method.where(is_known, 0), weight, each=True)
            losses["specific"] = mean_over(each, is_known)
        # a fake of an unknown method is of no other fake's: its specific feature is shuffled with none
        method = method.where(is_known, self.methods + 1 + torch.arange(len(label), device=label.device))[rows]
        draws = self.draw(method)
        common, common_map = out["common"][rows], out["common_map"][rows]
        if mix:
            keep = torch.arange(len(rows), device=rows.device)
            mixed = torch.where(draws["chance"] < mix, draws["common"], keep)
            common, common_map = common[mixed], common_map[mixed]
        specific = out["specific"][rows] if self.specific else None
        # without a forgery-specific branch all of the forgery tells the decoder
        forgery = torch.cat([out["specific_map"][rows], common_map], 1) if self.specific else out["forgery"][rows]
        losses["reconstruction"] = self.reconstruction(
            forgery, out["content"][rows], self.normalize(batch["image"][rows])
        )
        perms = (draws["perm_real"], draws["perm_fake"], draws["perm_specific"])
        losses["contrastive"] = both * contrastive_triplets(common, specific, self.margin, *perms)
        return losses

    def draw(self, method: Tensor) -> dict[str, Tensor]:
        """Return this step's shuffles of rows [reals..., fakes...] of these methods (2p,).

        From torch's generator, which KeyedRandomness seeds by seed, rank, epoch and batch, so that a resumed run draws
        the same.
        """
        p, device = len(method) // 2, method.device
        half = torch.arange(2 * p, device=device) // p
        return {
            "perm_real": torch.rand(p, device=device).argsort(),
            "perm_fake": p + torch.rand(p, device=device).argsort(),
            "perm_specific": shuffle_within(method),
            "common": shuffle_within(half),
            "chance": torch.rand((), device=device),
        }

    def reconstruct(self, forgery: Tensor, content: Tensor) -> Tensor:
        """Return the images (4p, 3, H, W) of forgery and content maps of rows [reals..., fakes...].

        The first half are made of an image's own forgery and content, the second of its own forgery and the content of
        its partner.
        """
        swapped = content.roll(len(content) // 2, 0)
        return self.con_gan(torch.cat([forgery, forgery]), torch.cat([content, swapped]))

    def reconstruction(self, forgery: Tensor, content: Tensor, image: Tensor) -> Tensor:
        """Return the sum of the mean distances of four kinds: self and crossed, real and fake.

        The target is the image that the content is from.
        """
        target = torch.cat([image, image.roll(len(image) // 2, 0)])
        image = self.reconstruct(forgery, content)
        return 4 * (image.float() - target.float()).abs().mean()


def pairs(label: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of a batch as [reals..., fakes...], as many of each, and whether it has both.

    A batch of pairs keeps all its rows, reals and fakes in the order they came. In any other batch the rarer class
    repeats and the other is thinned; a batch of one class keeps its order, and is no pair. Nothing waits for the
    device.

    Args:
        label: (N,) long, 0 real, 1 fake.

    Returns:
        (2p,) long with p = N/2 rounded up, and a bool scalar.
    """
    n = len(label)
    place = torch.arange(-(-n // 2), device=label.device)
    order, real = (label == 1).long().argsort(stable=True), (label != 1).sum()
    both = (real > 0) & (real < n)
    rows = torch.cat([place % real.clamp_min(1), real + place % (n - real).clamp_min(1)])
    alone = torch.arange(len(rows), device=label.device) % n
    return torch.where(both, order[torch.where(both, rows, alone)], alone), both


def _encoder(backbone: str, pretrained: bool, weights: str | None, dim: int) -> nn.Module:
    if backbone != "legacy_xception":
        return BackboneEncoder(create_backbone(backbone, pretrained, weights, num_classes=0), dim)
    encoder = XceptionEncoder(dim)
    if (pretrained or weights) and not wants_file(weights):  # files come when all parts are there
        source = create_backbone(backbone, pretrained, weights, num_classes=0)
        load_cadene(encoder, source.state_dict(), "timm's legacy_xception")
    return encoder
