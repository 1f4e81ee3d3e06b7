"""Stage 1 of re-synthesis: a super-resolution network of real images alone, 4 x 4 pixels of one.

    image -> mean of 4 x 4 pixels -> RDN -> made anew
    loss: |made - image|, and 0.2 x the squared errors of VGG19's stages

He et al., Beyond the Spectrum: Detecting Deepfakes via Re-Synthesis (IJCAI 2021). Fakes are not learned from. So it has
no class to tell: its ``logit`` is the logarithm of the mean residual, an anomaly score. Its order means something, and
the threshold that validation chooses, but it is no log-odds, and 0.5 divides nothing.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, optim

from dfl.detectors.base import Detector, Losses
from dfl.detectors.outputs import Outputs
from dfl.detectors.resynthesis.networks import SCALE, Rdn, distance, downscaled
from dfl.errors import UserError
from dfl.losses.classification import mean_over
from dfl.metrics.gathered import ImageLoss
from dfl.metrics.measures import MEASURES, Measure
from dfl.networks import About, load_named, wants_file
from dfl.networks.vgg import Vgg


class Resynthesizing(Detector):
    """What both stages share: the network that makes images anew, and VGG19 where it is wanted.

    Args:
        input_size: Side of the images in pixels, a multiple of 4.
        dim: Channels of the super-resolution network, see `Rdn`.
        depth: Its blocks.
        layers: Dense layers of a block.
        perceptual: Weight of VGG19's errors in the loss of what is made anew; 0 does without VGG19.
        vgg: VGG19's weights: a local file with torchvision's names.
        weights: Published weights of the super-resolution network: a local file.
        **kwargs: Of `Detector`.

    Raises:
        UserError: If a file is not there or does not fit, or the size of images is no multiple of 4.
    """

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)
    channels_last = True
    places: ClassVar[tuple[str, ...]] = ("weights", "vgg")
    bases: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        input_size: int = 96,
        dim: int = 64,
        depth: int = 16,
        layers: int = 8,
        perceptual: float = 0.2,
        vgg: str | None = None,
        weights: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_size, **kwargs)
        if input_size % SCALE:
            raise UserError(
                f"model.input_size is {input_size}: it must be a multiple of {SCALE}, which images shrink by"
            )
        self.sr = Rdn(dim, depth, layers)
        if weights is not None and wants_file(weights):
            load_named(self.sr, weights)
        without = ", or do without VGG19 (model.perceptual=0, model.stage=0)"
        self.vgg = Vgg(vgg, otherwise=without) if self.wants_vgg() else None

    def wants_vgg(self) -> bool:
        """Return whether VGG19 is used at all."""
        return bool(self.hparams["perceptual"])

    def _named_weights(self) -> list[str]:
        """Return none: a checkpoint holds all that it needs."""
        return []


class OfReals(ImageLoss):
    """The mean loss of a domain's real images."""

    def take(self, output: Tensor, batch: Mapping[str, Any]) -> None:
        """Add the losses (N,) of a batch."""
        self.update(output, batch["index"].where(batch["label"] == 0, -1))


class SuperResolution(Resynthesizing):
    """The super-resolution network, trained on real images; its mean residual is an anomaly score.

    Args:
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Resynthesizing`.
    """

    about = About("image classifiers", "He et al.", 2021)

    measures = (
        *(measure for measure in MEASURES if measure.output != "image_loss"),
        Measure("", "image_loss", "label", lambda detector, domain: OfReals(name=domain)),
    )

    def __init__(self, optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=1e-4), **kwargs: Any) -> None:
        super().__init__(optimizer=optimizer, **kwargs)

    def forward(self, image: Tensor) -> Outputs:
        """Return ``logit`` (N,), the logarithm of the mean absolute residual; in training ``made`` (N, 3, H, W) too."""
        image = self.normalize(image)
        made = self.sr(downscaled(image))
        residual = (made.float() - image.float()).abs().flatten(1).mean(1)
        out: Any = {"logit": residual.clamp_min(1e-12).log(), "made": made}
        return out

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` and ``reconstruction``, the same: the mean of `distance` over the real images, 0 for none."""
        loss = mean_over(self.image_loss(out, batch), batch["label"] == 0)
        return {"loss": loss, "reconstruction": loss}

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return `distance` of every image, (N,) float32; validation has its mean over real images."""
        return distance(out["made"], batch["image"], self.vgg, self.hparams["perceptual"], squared=True)
