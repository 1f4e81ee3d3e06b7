"""PG-FDD: Lin et al., Preserving Fairness Generalization in Deepfake Detection (CVPR 2024).

UCF's disentanglement, and a third encoder for demographic features d. Their fusion with the common forgery feature g is
classified, and the loss of that is spread fairly over groups by a CVaR over groups of CVaRs within them:

    loss = CE(g) + rho1 CE(specific) + rho2 M(d) + rho3 contrastive + rho4 reconstruction
           + lambda CVaR(CE(h(AdaIN(d, g))))

In the published code the fusion cannot see d: the head's average pool of AdaIN(d, g) is the mean of g, whatever d is.
``fusion: adain_block`` puts convolutions before the pool, and then it can.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn

from dfl.detectors.base import Losses
from dfl.detectors.disentangle.losses import ldam
from dfl.detectors.disentangle.networks import ConvBlock, adain
from dfl.detectors.disentangle.parts import DisentangledOutputs, Disentangling
from dfl.errors import UserError
from dfl.losses import DawFdd
from dfl.losses.cvar import Outer
from dfl.networks import About
from dfl.training import SAM


class FairDisentangle(Disentangling):
    """Three encoders, forgery, content and demographics, and a classifier whose loss is fair over groups.

    Groups are the batch's ``group``. Where the data have none, all images are one group, so that the fairness loss is
    the CVaR of the batch (DAG-FDD), and nothing teaches the demographic branch: ``demographic: false`` leaves it out.

    Args:
        forgery_specific: Have the branch that tells methods apart; without it the decoder hears all of the forgery map.
        methods: Forgery methods in the training data.
        demographic: Have the demographic encoder and its loss.
        num_groups: Groups that it tells apart.
        fusion: ``adain_official``: AdaIN(d, g) and an average pool, which is the mean of g; ``adain_block``:
            convolutions between the two, so that d matters. Without ``demographic`` g is classified.
        decoder_content: ``adain_dc``: AdaIN(d, c) as the published code, whose statistics the decoder takes away again,
            so that c hardly matters; ``c``: the content alone, as the authors' later codes.
        cvar: Outer level of the fairness loss, see :func:`dfl.losses.bilevel_cvar`.
        alpha_inner: Share of the worst samples in each group.
        alpha_outer: Share of the worst groups.
        groups: ``global``: groups that span ranks count as one; ``official``: each rank for itself.
        score: ``prob``: the log-odds of fake; ``official_logit1``: logit 1 alone, as the published test does, though
            the head was trained as a softmax of two.
        specific_weight: rho1.
        demographic_weight: rho2.
        contrastive_weight: rho3.
        reconstruction_weight: rho4.
        fairness_weight: lambda.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Disentangling`.
    """

    about = About("disentanglement and fairness", "Lin et al.", 2024)

    group_counts: Tensor
    encoder_fair: nn.Module

    def __init__(
        self,
        forgery_specific: bool = True,
        methods: int = 5,
        demographic: bool = True,
        num_groups: int = 8,
        fusion: Literal["adain_official", "adain_block"] = "adain_official",
        decoder_content: Literal["adain_dc", "c"] = "adain_dc",
        cvar: Outer = "official",
        alpha_inner: float = 0.9,
        alpha_outer: float = 0.5,
        groups: Literal["global", "official"] = "global",
        score: Literal["prob", "official_logit1"] = "prob",
        specific_weight: float = 0.1,
        demographic_weight: float = 0.1,
        contrastive_weight: float = 0.05,
        reconstruction_weight: float = 0.3,
        fairness_weight: float = 1.0,
        optimizer: OptimizerCallable = lambda p: SAM(
            p, lambda q: torch.optim.SGD(q, lr=5e-4, momentum=0.9, weight_decay=5e-3)
        ),
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, methods=methods, **kwargs)
        encoders = ("encoder_f", "encoder_c", "encoder_fair") if demographic else ("encoder_f", "encoder_c")
        self.build(encoders, specific=forgery_specific)
        self.head_fused = self.head(2)
        self.demographic = demographic
        self.block_mixed: ConvBlock | None = None
        if demographic:
            self.block_fair = ConvBlock(self.hparams["dim"], self.width, self.width)
            self.head_fair = self.head(num_groups)
            self.register_buffer("group_counts", torch.ones(num_groups))
            if fusion == "adain_block":
                self.block_mixed = ConvBlock(self.width, self.width, self.width)
        self.decoder_content = decoder_content
        self.criterion: DawFdd = DawFdd(alpha_outer, alpha_inner, cvar, groups)
        self.score = score
        self.loss_weights = {
            "common": 1.0,
            "specific": specific_weight,
            "demographic": demographic_weight,
            "contrastive": contrastive_weight,
            "reconstruction": reconstruction_weight,
            "fairness": fairness_weight,
        }
        self.load_published()

    def observe(self, sample: Callable[[int], Tensor], counts: Callable[..., dict[int, int]]) -> None:
        """Count the groups of the training data, for the margins of the demographic loss; say so if there are none."""
        super().observe(sample, counts)
        of_groups = counts("group")
        if set(of_groups) == {-1}:
            what = "; the demographic branch learns nothing, demographic: false leaves it out"
            warnings.warn(
                "the training data have no groups: all images are one, and the fairness loss is the CVaR of the batch "
                f"(DAG-FDD){what if self.demographic else ''}",
                stacklevel=2,
            )
        if self.demographic:
            most = len(self.group_counts)
            if max(of_groups) >= most:
                raise UserError(f"the training data have {max(of_groups) + 1} groups, and model.num_groups is {most}")
            for group in range(most):
                self.group_counts[group] = of_groups.get(group, 0)

    def forward(self, image: Tensor) -> DisentangledOutputs:
        """Return ``logit`` (N,), ``logits`` (N, 2), ``feature`` (N, dim / 2); in training all that the losses need."""
        return self.encode(image) if self.training else self.infer(image)

    def infer(self, image: Tensor) -> DisentangledOutputs:
        """Return the same score by the encoders that it depends on alone: one, or two with ``adain_block``."""
        image = self.normalize(image)
        common = self.block_sha(self.encoder_f(image))
        if self.block_mixed is not None:
            common = self.block_mixed(adain(self.block_fair(self.encoder_fair(image)), common))
        return self._scored(*self.head_fused(common))

    def encode(self, image: Tensor) -> DisentangledOutputs:
        """Return all maps, pooled features and logits, by all encoders."""
        out = super().encode(image)
        fused = out["common_map"]
        if self.demographic:
            everyone = self.encoder_fair(self.normalize(image))
            mine = self.block_fair(everyone)
            out["group_logits"], out["demographic"] = self.head_fair(mine)
            fused = adain(mine, fused)
            if self.block_mixed is not None:
                fused = self.block_mixed(fused)
            if self.decoder_content == "adain_dc":
                out["content"] = adain(everyone, out["content"])
        return out | self._scored(*self.head_fused(fused))

    def _scored(self, logits: Tensor, feature: Tensor) -> DisentangledOutputs:
        logit = logits[:, 1] if self.score == "official_logit1" else logits[:, 1] - logits[:, 0]
        return {"logit": logit, "logits": logits, "feature": feature}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` and its parts: those of UCF, ``demographic`` and ``fairness``."""
        parts = self.paired_losses(out, batch)
        if self.demographic:
            parts["demographic"] = ldam(out["group_logits"], batch["group"], self.group_counts)
        parts["fairness"] = self.criterion(out, batch)["loss"]
        return {"loss": torch.stack([self.loss_weights[k] * v for k, v in parts.items()]).sum(), **parts}
