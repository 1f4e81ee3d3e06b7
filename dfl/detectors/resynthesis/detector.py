"""Stage 2 of re-synthesis: a classifier of the difference between an image and the same image made anew.

    image -+-> mean of 4 x 4 pixels -> RDN (stage 1) -> made -+-> |made - image|, stage 0, or
           +--------------------------------------------------+   |VGG_s(made) - VGG_s(image)|, stage s of VGG19
                                                              +-> ResNet-50 with a deep stem -> real or fake

He et al., Beyond the Spectrum: Detecting Deepfakes via Re-Synthesis (IJCAI 2021). A network that learned real images
alone restores those, and misses what generators leave. So that it cannot be fooled as easily, the paper trains it on,
with an auxiliary task on the real images: to take noise out of the small image, or to put colour back.

In the published code real images are 1 and fakes 0; here it is the other way round, and its files are turned round.
"""

import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, optim

from dfl.detectors.base import Losses
from dfl.detectors.outputs import Outputs
from dfl.detectors.resynthesis.networks import distance, downscaled, published_strides
from dfl.detectors.resynthesis.super_resolution import Resynthesizing
from dfl.errors import UserError
from dfl.losses import cross_entropy
from dfl.losses.classification import mean_over
from dfl.networks import TIMM, About, create_backbone, load_named, wants_file
from dfl.networks.vgg import CHANNELS

#: Chance of a step to disturb the small images; deviation of the noise; least and largest share of pixels without
#: colour.
CHANCE, NOISE, COLOURLESS = 0.5, 4 / 255, (0.1, 0.25)


class Resynthesis(Resynthesizing):
    """A classifier of what the re-synthesis of an image misses; ``--init_from`` a run of `SuperResolution`.

    Args:
        stage: 0 compares pixels, 1 to 5 the stages relu1_1 to relu5_1 of VGG19.
        sr: ``fixed``: the super-resolution network stays as it is. ``joint``, the paper: it is trained with the
            classifier, and with the auxiliary task. ``published``, the code: the task is computed and logged, and
            trains nothing, since the network is frozen.
        auxiliary: What is done to the small images of that task, in half of the steps: ``none`` restores them as they
            are, ``denoising`` adds noise, ``colourisation`` takes colour from 10 to 25 % of their pixels.
        auxiliary_weight: Of its loss.
        gradient_scale: What gradients of the classifier are multiplied by, as in the published code.
        strides: ``published``, see `published_strides`, or the ``usual`` ones of the backbone.
        backbone: timm name of the classifier.
        classifier: Published weights of the classifier: a local file.
        timm_args: More arguments of ``timm.create_model``.
        input_size: Side of the images in pixels, a multiple of 4.
        perceptual: Weight of VGG19's errors in the auxiliary loss.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Resynthesizing`.

    Raises:
        UserError: If a task is named that a fixed network cannot have, or there is no such stage.
    """

    about = About("image classifiers", "He et al.", 2021)

    places: ClassVar[tuple[str, ...]] = ("weights", "vgg", "classifier")
    kinds: ClassVar[dict[str, Any]] = {"timm_args": TIMM}

    def __init__(
        self,
        stage: int = 0,
        sr: Literal["fixed", "joint", "published"] = "fixed",
        auxiliary: Literal["none", "denoising", "colourisation"] = "none",
        auxiliary_weight: float = 1.0,
        gradient_scale: float = 1.0,
        strides: Literal["published", "usual"] = "published",
        backbone: str = "resnet50s",
        classifier: str | None = None,
        timm_args: dict[str, Any] | None = None,
        input_size: int = 1024,
        perceptual: float = 1.0,
        optimizer: OptimizerCallable = lambda p: optim.SGD(p, lr=1e-2, momentum=0.9, weight_decay=1e-4),
        **kwargs: Any,
    ) -> None:
        if not 0 <= stage <= len(CHANNELS):
            raise UserError(f"model.stage is {stage}: 0 is pixels, 1 to {len(CHANNELS)} are stages of VGG19")
        super().__init__(input_size=input_size, perceptual=perceptual, optimizer=optimizer, **kwargs)
        if sr == "fixed" and auxiliary != "none":
            raise UserError(
                f"model.auxiliary is {auxiliary} and model.sr is fixed, which leaves nothing to train by it: set "
                "model.sr to joint, as the paper has it, or to published, as its code does"
            )
        self.stage, self.auxiliary, self.weight, self.scale = stage, auxiliary, auxiliary_weight, gradient_scale
        words = {"num_classes": 2, "zero_init_last": False} if backbone.startswith("resnet") else {"num_classes": 2}
        channels = CHANNELS[stage - 1] if stage else 3
        self.network = create_backbone(backbone, pretrained=False, in_chans=channels, **words | (timm_args or {}))
        if strides == "published":
            published_strides(self.network)
        if classifier is not None and wants_file(classifier):
            load_named(self.network, classifier)
            with torch.no_grad():  # real is 1 there
                for values in self.network.get_submodule("fc").parameters():
                    values.copy_(values.flip(0))
        self._hooks: list[Any] = []
        self.joint = sr == "joint"
        self.sr.requires_grad_(self.joint)
        self._random = self.sr.output.weight.detach().clone() if self.hparams.get("weights") is None else None

    def wants_vgg(self) -> bool:
        """Return whether VGG19 is compared, or in a loss that is taken."""
        return self.hparams["stage"] > 0 or (self.hparams["sr"] != "fixed" and super().wants_vgg())

    def forward(self, image: Tensor) -> Outputs:
        """Return ``logit`` (N,) and ``logits`` (N, 2)."""
        image = self.normalize(image)
        with nullcontext() if self.joint else torch.no_grad():
            made = self.sr(downscaled(image))
            if self.stage and self.vgg is not None:
                made, image = self.vgg(made)[self.stage - 1], self.vgg(image)[self.stage - 1]
        logits = self.network((made - image).abs())
        return {"logit": logits[:, 1] - logits[:, 0], "logits": logits}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``ce``, and but for a ``fixed`` network ``auxiliary`` over the real images, and their ``loss``."""
        ce = cross_entropy(out["logits"], batch["label"], batch["weight"])
        if self.hparams["sr"] == "fixed":
            return {"loss": ce, "ce": ce}
        with nullcontext() if self.joint else torch.no_grad():
            image = batch["image"]
            made = self.sr(self.disturbed(downscaled(image)))
            vgg = self.vgg if self.hparams["perceptual"] else None
            each = distance(made, image, vgg, self.hparams["perceptual"], squared=False)
            auxiliary = self.weight * mean_over(each, batch["label"] == 0)
        return {"loss": ce + auxiliary, "ce": ce, "auxiliary": auxiliary}

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the cross-entropy of every image, (N,)."""
        return cross_entropy(out["logits"], batch["label"], each=True)

    def disturbed(self, small: Tensor) -> Tensor:
        """Return small images (N, 3, h, w) as the auxiliary task has them, in half of the steps.

        Draws come from torch's generator on the device, which KeyedRandomness seeds by seed, rank, epoch and batch.
        """
        if self.auxiliary == "none":
            return small
        n, _, h, w = small.shape
        if self.auxiliary == "denoising":
            other = small + NOISE * torch.randn_like(small)
        else:
            low, high = COLOURLESS
            share = low + (high - low) * torch.rand((), device=small.device)
            grey = torch.rand(n, 1, h, w, device=small.device) < share
            other = torch.where(grey, small.mean(1, keepdim=True), small)
        return torch.where(torch.rand((), device=small.device) < CHANCE, other, small)

    def on_fit_start(self) -> None:
        """Scale the gradients of the classifier, each once, whatever is accumulated."""
        if self.scale != 1:
            scaled = self.network.parameters()
            self._hooks = [parameter.register_hook(lambda gradient: gradient * self.scale) for parameter in scaled]

    def on_fit_end(self) -> None:
        """Leave gradients as they are."""
        while self._hooks:
            self._hooks.pop().remove()

    def on_train_start(self) -> None:
        """Say if the super-resolution network is at random, which stage 1 was to prevent."""
        if self._random is not None and not self.joint and self._random.to(self.device).equal(self.sr.output.weight):
            warnings.warn(
                "the super-resolution network is frozen and at random, so its residual says nothing of real images: "
                "give --init_from a run of SuperResolution, or model.weights a published file",
                stacklevel=2,
            )
