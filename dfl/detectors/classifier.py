"""A timm backbone with a head, and a criterion: what every other method is compared with, and half of the methods.

Settings of the configs follow DeepfakeBench (Yan et al. 2023): 256 px, mean and std 0.5, Adam 2e-4, weight decay 5e-4.
What it is trained with is a `dfl.losses.Criterion`: cross-entropy, the single-center loss, or a fair one.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn, optim
from torch.nn.modules.batchnorm import _BatchNorm

from dfl.detectors.base import Detector, Losses
from dfl.detectors.outputs import Outputs
from dfl.losses import Criterion
from dfl.losses.criterion import of_images
from dfl.networks import (
    TIMM,
    About,
    backbone_and_view,
    is_convolutional,
    keep_projection,
    merge_lora,
    projection_width,
    without_weights,
)
from dfl.runs.plain import parameters


class Classifier(Detector):
    """A timm backbone, trained with a criterion.

    Args:
        backbone: timm name.
        pretrained: Start from pretrained weights.
        weights: Where from: a local file, or a timm tag. None takes timm's default.
        mean: Normalisation of values in [0, 1]; by default the backbone's own.
        std: The same.
        timm_args: More arguments of ``timm.create_model``, for example ``{pad_type: same}``. With ``num_classes: 1``
            the one output is the log-odds of fake; by default there are two, of real and fake.
        projection: The backbone's pretrained last layer stays, frozen, and the new one comes after it: CLIP's
            projection, say. ``feature`` is then what it gives.
        head_std: The new last layer's weights start from a normal distribution of this standard deviation; None: as
            timm starts them.
        norm_eval: BatchNorm keeps the statistics of its weights, in training too: for a few hundred images, where those
            of a small batch are noise and their running mean lags behind the weights.
        criterion: What it is trained with; None: cross-entropy.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Detector`; by default the size of images is the backbone's own.
    """

    about = About("image classifiers")

    kinds: ClassVar[dict[str, Any]] = {"timm_args": TIMM}

    def __init__(
        self,
        backbone: str = "legacy_xception",
        pretrained: bool = True,
        weights: str | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        timm_args: dict[str, Any] | None = None,
        projection: bool = False,
        head_std: float | None = None,
        norm_eval: bool = False,
        criterion: Criterion | None = None,
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=2e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **kwargs)
        words = {"num_classes": 2} | (timm_args or {})
        kept = {"num_classes": projection_width(backbone)} if projection else {}
        self.network, self.input_size, self.normalize = backbone_and_view(
            *(backbone, pretrained, weights, kwargs.get("input_size"), mean, std), **words | kept
        )
        self.projection = projection
        if projection:
            keep_projection(self.network, words["num_classes"])
        if head_std is not None and getattr(self.network, "at_random", True):  # no file gave it weights
            nn.init.normal_(self.network.get_classifier().weight, std=head_std)
        self.channels_last = is_convolutional(self.network)
        self.norm_eval = norm_eval
        self.criterion: Criterion = Criterion.of(criterion)
        self.criterion.build(kept.get("num_classes", self.network.head_hidden_size), words["num_classes"])
        self.hparams["criterion"] = self.criterion.spec

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules, less BatchNorm with ``norm_eval``."""
        super().train(mode)
        if self.norm_eval:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def network_input(self, image: Tensor) -> Tensor:
        """Return what the network gets of images (N, 3, H, W) in [0, 1]."""
        return self.normalize(image)

    def features(self, image: Tensor) -> Tensor:
        """Return the input of the last layer, (N, D)."""
        maps = self.network.forward_features(self.network_input(image))
        feature = self.network.forward_head(maps, pre_logits=True)
        return self.network.projection(feature) if self.projection else feature

    def forward(self, image: Tensor) -> Outputs:
        """Return ``logit`` (N,), ``feature`` (N, D), the input of the last layer, and of two outputs ``logits``."""
        feature = self.features(image)
        logits = self.network.get_classifier()(feature)
        if logits.shape[1] == 1:
            return {"logit": logits[:, 0], "feature": feature}
        return {"logit": logits[:, 1] - logits[:, 0], "logits": logits, "feature": feature}

    def _with_lora_added(self, kind: type["Classifier"], **changes: Any) -> "Classifier":
        """Return a classifier of another class, with LoRA added into the weights: the same outputs, no extra cost."""
        words = {
            k: v for k, v in self.hparams.items() if k in parameters(kind) and k not in ("criterion", *kind.places)
        }
        words["timm_args"] = (words["timm_args"] or {}) | {"num_classes": self.network.get_classifier().out_features}
        with without_weights():
            plain = kind(**words | changes).train(self.training)
        plain.network = merge_lora(self.network)
        plain.normalize = self.normalize
        plain.threshold.copy_(self.threshold)
        plain.verdicts = self.verdicts
        return plain

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return what the criterion gives."""
        return self.criterion(out, batch)

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the cross-entropy of every image: the part of the loss that one image has alone."""
        return of_images(out, batch)


class Baseline(Classifier):
    """`Classifier` by the name that it has in old configs and checkpoints."""
