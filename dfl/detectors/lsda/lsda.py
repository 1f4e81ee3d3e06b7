"""LSDA: Yan et al., Transcending Forgery Specificity with Latent Space Augmentation for Generalizable Deepfake
Detection (CVPR 2024, arXiv 2311.11278).

A detector that sees four forgeries learns the traces of these four. LSDA widens what it sees, not in pixels but in
latents: each forgery has a teacher of its own, whose latents are moved within their forgery and mixed with those of the
others, and one student learns to give the result.

    original --------- real teacher -> z_0 -----------------------------------> target of the student's original
    its forgery 1 ---- teacher 1 ----> z_1 --+-> moved within its domain  -+
    ...                                ...   |                             +-> fuse -> targets of its forgeries
    its forgery K ---- teacher K ----> z_K --+-> mixed with another domain -+
    all K + 1 -------- student ------> z -> head: real or fake

    loss = 0.5 CE(real or fake) + CE(domain of z_0 ... z_K) + distillation (+ identity, of the code alone)

Inference is the student and its head: no teacher runs.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn, optim

from dfl.detectors.base import Detector, Losses
from dfl.detectors.disentangle.networks import PooledHead
from dfl.detectors.lsda.latents import Pool, across, distillation, identity, within
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError, near
from dfl.losses import cross_entropy
from dfl.losses.criterion import of_images
from dfl.networks import TIMM, About, create_backbone, wants_file
from dfl.networks.released import lsda_student
from dfl.networks.weights import read_state, refuse_misfit
from dfl.training.domains import ids


class LsdaOutputs(Outputs, total=False):
    """Outputs with what the losses need, in training."""

    latent: Tensor  # (N, dim, h, w) of the student


class Lsda(Detector):
    """A student encoder with a head, and in training K + 1 teachers; batches are originals with their K forgeries.

    The defaults are the paper's; ``pool: channel``, ``detach: false``, ``near`` and ``far``, and no ``real_weights``
    are DeepfakeBench's code.

    Args:
        backbone: timm name of the student and of the teachers of forgeries; its features are maps.
        pretrained: Start these from pretrained weights.
        weights: Where from: a local file, or a timm tag. A file of DeepfakeBench's LSDA fills the student's head too.
        real: timm name of the teacher of originals; ``iresnet100`` is ArcFace's.
        real_weights: A local file for it, which freezes it. None: from random weights, and trained.
        input_size: Side of the images in pixels.
        dim: Channels of the latents.
        timm_args: More arguments of ``timm.create_model`` for the ``backbone``.
        methods: K, the forgery methods of the training data (column ``generator``). With 1, any fake is of it.
        pool: What a latent is moved relative to, see `dfl.detectors.lsda.latents.within`.
        detach: The distillation teaches the student and the fusion, not the teachers.
        near: Generators, by name, whose forgeries the originals are to be near to, in the teachers' latents.
        far: Those that they are to be far from.
        binary_weight: Weight of the cross-entropy of real and fake.
        domain_weight: Of the cross-entropy of the domains.
        distillation_weight: Of the distillation.
        identity_weight: Of `dfl.detectors.lsda.latents.identity`, where there is ``near`` or ``far``.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Detector`.
    """

    about = About("image classifiers", "Yan et al.", 2024)

    channels_last = True
    places: ClassVar[tuple[str, ...]] = ("weights", "real_weights")
    bases: ClassVar[tuple[str, ...]] = ("weights", "real_weights")
    kinds: ClassVar[dict[str, Any]] = {"timm_args": TIMM}

    def __init__(
        self,
        backbone: str = "efficientnet_b4",
        pretrained: bool = True,
        weights: str | None = None,
        real: str = "iresnet100",
        real_weights: str | None = None,
        input_size: int = 256,
        dim: int = 512,
        timm_args: dict[str, Any] | None = None,
        methods: int = 4,
        pool: Pool = "latent",
        detach: bool = True,
        near: list[str] | None = None,
        far: list[str] | None = None,
        binary_weight: float = 0.5,
        domain_weight: float = 1.0,
        distillation_weight: float = 1.0,
        identity_weight: float = 1.0,
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=2e-4, weight_decay=5e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(input_size, optimizer=optimizer, **kwargs)
        if methods < 1:
            raise UserError(f"model.methods is {methods}: LSDA needs one forgery method at least")
        self.methods, self.pool, self.detach = methods, pool, detach
        self.near, self.far, self.frozen = near or [], far or [], real_weights is not None
        start = create_backbone(backbone, pretrained, weights, **{"num_classes": 0} | (timm_args or {}))
        self.teachers = nn.ModuleList(Encoder(deepcopy(start), dim) for _ in range(methods))
        self.student, self.head = Encoder(start, dim), PooledHead(dim, dim, 2, dropout=0.0)
        network = create_backbone(real, False, real_weights, num_classes=0).requires_grad_(not self.frozen)
        self.real = Encoder(network, dim)
        self.head_domain = PooledHead(dim, dim, methods + 1, dropout=0.0)
        self.fuse = nn.Sequential(
            *(nn.Conv2d(2 * dim, dim, 1), nn.LeakyReLU()),
            *(nn.Conv2d(dim, dim, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(dim, dim, 3, padding=1)),
        )
        if weights is not None and wants_file(weights):
            self._open_published(weights)
        self.loss_weights = {
            "binary": binary_weight,
            "domain": domain_weight,
            "distillation": distillation_weight,
            "identity": identity_weight,
        }

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules, less a frozen teacher."""
        super().train(mode)
        if self.frozen:
            self.real.network.eval()
        return self

    def forward(self, image: Tensor) -> LsdaOutputs:
        """Return ``logit`` (N,), ``logits`` (N, 2), ``feature`` (N, dim) of the student; in training ``latent`` too."""
        latent = self.student(self.normalize(image))
        logits, feature = self.head(latent)
        out: LsdaOutputs = {"logit": logits[:, 1] - logits[:, 0], "logits": logits, "feature": feature}
        return out | {"latent": latent} if self.training else out

    # groups

    def observe(self, sample: Callable[[int], Tensor], counts: Callable[..., dict[int, int]]) -> None:
        """Check that there is a teacher for each forgery method of the training data."""
        super().observe(sample, counts)
        there = sorted(counts("generator", label=1).keys() - {-1, 0})
        if self.methods > 1 and there != [*range(1, self.methods + 1)]:
            raise UserError(
                f"the fakes of the training data are of {len(there)} generators, and model.methods is {self.methods}: "
                "LSDA has a teacher for each"
            )

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Hold a training batch to whole groups while it is on the CPU, where to look at it makes nothing wait.

        Raises:
            UserError: If it has others.
        """
        if self.trainer.training:
            kinds = self._kinds(batch).sort(dim=1).values
            if not torch.equal(kinds, torch.arange(self.methods + 1).expand_as(kinds)):
                raise self._no_groups("an image is missing, or of another generator")
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _kinds(self, batch: Mapping[str, Any]) -> Tensor:
        """Return 0 for a real image and the id of its generator for a fake, (G, K + 1)."""
        label, k = batch["label"], self.methods
        if len(label) % (k + 1):
            raise self._no_groups(f"{len(label)} images are no multiple of {k + 1}")
        return torch.where(label == 1, batch["generator"] if k > 1 else 1, 0).view(-1, k + 1)

    def _no_groups(self, why: str) -> UserError:
        k = self.methods
        how = f"data.balance=generators, data.originals=true, data.generators_per_batch={k}"
        return UserError(
            f"a batch of LSDA is originals, each with its forgery by every one of {k} generators, and here {why}; take "
            f"{how}, a data.batch_size that is a multiple of {k + 1}, and data.on_bad=raise"
        )

    # losses

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` and its parts ``binary``, ``domain``, ``distillation``, and ``identity`` where asked for.

        Raises:
            UserError: If the batch is no multiple of K + 1, or ``near`` and ``far`` name what the data do not have.
        """
        order = self._kinds(batch).argsort(dim=1, stable=True)
        rows = order + torch.arange(0, order.numel(), order.shape[1], device=order.device)[:, None]
        student = out["latent"][rows]
        latents = self.teach(batch["image"][rows], student.shape[-2:])
        domain = torch.arange(order.shape[1], device=order.device).repeat(len(order))
        target = latents.detach() if self.detach else latents
        parts = {
            "binary": cross_entropy(out["logits"], batch["label"], batch.get("weight")),
            "domain": cross_entropy(self.head_domain(latents.flatten(0, 1))[0], domain),
            "distillation": distillation(student, target[:, 0], self.augment(target[:, 1:])),
        }
        if self.near or self.far:
            parts["identity"] = identity(latents, self._ids(self.near), self._ids(self.far))
        return {"loss": torch.stack([self.loss_weights[k] * v for k, v in parts.items()]).sum(), **parts}

    def teach(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the teachers' latents of groups, (G, K + 1, dim, h, w) float32.

        Args:
            image: (G, K + 1, 3, H, W) in [0, 1], the original first, then by the id of the generator.
            size: h and w of the student's latents.
        """
        teachers = [self.real, *self.teachers]
        latents = [teacher(self.normalize(one)) for teacher, one in zip(teachers, image.unbind(1), strict=True)]
        return torch.stack([_sized(latent.float(), size) for latent in latents], 1)

    def augment(self, fake: Tensor) -> Tensor:
        """Return the targets of forgeries: their latents (G, K, dim, h, w), moved and mixed, fused."""
        moved = torch.stack([within(z, self.pool) for z in fake.unbind(1)], 1)
        both = torch.cat([moved, across(fake)], 2)
        return self.fuse(both.flatten(0, 1)).unflatten(0, fake.shape[:2])

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the student's cross-entropy of every image."""
        return of_images(out, batch)

    def _ids(self, names: list[str]) -> list[int]:
        known = ids(self.trainer, "generator")
        for name in names:
            if not 1 <= known.get(name, 0) <= self.methods:
                raise UserError(
                    f"model.near and far: the training data have no generator {name!r}" + near(name, [*known])
                )
        return [known[name] for name in names]

    # weights

    def _open_published(self, file: str) -> None:
        """Fill the student's last layer and head from a file of DeepfakeBench's LSDA; other files have none."""
        published = lsda_student(read_state(file))
        own = {k: v for k, v in self.state_dict().items() if k.startswith(("student.adjust.", "head."))}
        if published:
            refuse_misfit(file, own, published)
            self.load_state_dict(published, strict=False)

    def stage_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Take the network of a classifier, such as one trained before, for the student and each teacher of a forgery.

        Args:
            state: Of a `dfl.detectors.Classifier` with the same backbone, or of this class.
        """
        if any(key.startswith("student.") for key in state):
            return state
        encoders = ["student", *(f"teachers.{i}" for i in range(self.methods))]
        trunk = {key: value for key, value in state.items() if key.startswith("network.")}
        return {f"{encoder}.{key}": value for encoder in encoders for key, value in trunk.items()}

    def _named_weights(self) -> list[str]:
        """Return none: a checkpoint holds a frozen teacher too, so that the student can be used without its file."""
        return []


class Encoder(nn.Module):
    """Images (N, 3, H, W) to latents (N, dim, h, w): a timm network, and a 1x1 convolution where its width is not dim.

    Args:
        network: Its ``forward_features`` gives (N, num_features, h, w).
        dim: Channels of the latents.
    """

    def __init__(self, network: nn.Module, dim: int) -> None:
        super().__init__()
        self.network, width = network, int(network.num_features)  # type: ignore[arg-type]
        self.adjust = nn.Identity() if width == dim else nn.Conv2d(width, dim, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the latents."""
        return self.adjust(self.network.forward_features(image))  # type: ignore[operator]


def _sized(latent: Tensor, size: tuple[int, int]) -> Tensor:
    """Return maps averaged to a size that divides theirs.

    Raises:
        UserError: If it does not.
    """
    h, w = latent.shape[-2:]
    if h % size[0] or w % size[1]:
        raise UserError(
            f"the real teacher's maps of {h} x {w} do not divide into the student's of {size[0]} x {size[1]}: take "
            "another input_size, or another real"
        )
    return F.avg_pool2d(latent, (h // size[0], w // size[1])) if (h, w) != tuple(size) else latent
