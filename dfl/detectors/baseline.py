"""Any timm backbone with a two-way head and cross-entropy: what every other method is compared with.

Settings of the configs follow DeepfakeBench (Yan et al. 2023): 256 px, mean and std 0.5, Adam 2e-4, weight decay 5e-4.
The single-center loss can be added with ``scl_weight``, since every timm model gives a feature before its head. With
``fair`` the mean of the cross-entropy becomes that of the worst samples (DAG-FDD) or of the worst groups (DAW-FDD; Ju
et al., Improving Fairness in Deepfake Detection, WACV 2024).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import timm
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from timm.data import resolve_model_data_config
from torch import Tensor, optim
from torch.nn.modules.batchnorm import _BatchNorm

from dfl.detectors.base import Detector, Losses
from dfl.losses import SingleCenterLoss, bilevel_cvar, cross_entropy, cvar
from dfl.losses.cvar import Outer, gather_over_ranks
from dfl.losses.single_center import Center, EmptyClass
from dfl.networks import TIMM, create_backbone, is_convolutional


class Baseline(Detector):
    """A timm backbone trained with cross-entropy, and the single-center loss if it has a weight.

    Args:
        backbone: timm name.
        pretrained: Start from pretrained weights.
        weights: Where from: a local file, or a timm tag. None takes timm's default.
        input_size: Side of the images in pixels; by default the backbone's own.
        mean: Normalisation of values in [0, 1]; by default the backbone's own.
        std: The same.
        timm_args: More arguments of ``timm.create_model``, for example ``{pad_type: same}``.
        norm_eval: BatchNorm keeps the statistics of its weights, in training too: for a few hundred images, where those
            of a small batch are noise and their running mean lags behind the weights.
        scl_weight: Weight of the single-center loss; 0 leaves it out.
        scl_feature: What it looks at: the input of the last layer, or the logits.
        scl_margin: Its margin.
        scl_margin_mode: ``sqrt_dim`` multiplies the margin by the square root of the feature's dimensions.
        scl_center: How its center is found.
        scl_empty_class: What it gives for a batch with one class.
        fair: ``dag``: CVaR of the cross-entropy over the batch, which needs no groups; ``daw``: CVaR over groups of the
            CVaR within each; ``daw_class`` (ours): the same over the reals and the fakes of each group, so that a
            group with few fakes, all of them missed, does not hide behind its reals; ``none``: the mean.
        fair_alpha: Share of the worst samples (``dag``) or groups.
        fair_alpha_inner: Share of the worst samples in each group.
        fair_cvar: How the groups' CVaR is computed: ``plain`` as DAW-FDD's code, ``official`` as PG-FDD's, ``exact``.
        fair_groups: ``global``: samples and groups of all ranks together; ``official``: each rank for itself.
        optimizer: Makes the optimizer from the trainable parameters.
        scheduler: Makes the learning-rate scheduler from the optimizer; stepped after each epoch.
    """

    kinds: ClassVar[dict[str, Any]] = {"timm_args": TIMM}

    def __init__(
        self,
        backbone: str = "legacy_xception",
        pretrained: bool = True,
        weights: str | None = None,
        input_size: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        timm_args: dict[str, Any] | None = None,
        norm_eval: bool = False,
        scl_weight: float = 0.0,
        scl_feature: Literal["pre_logits", "logits"] = "pre_logits",
        scl_margin: float = 0.3,
        scl_margin_mode: Literal["sqrt_dim", "absolute"] = "sqrt_dim",
        scl_center: Center = "learnable",
        scl_empty_class: EmptyClass = "real_only",
        fair: Literal["none", "dag", "daw", "daw_class"] = "none",
        fair_alpha: float = 0.5,
        fair_alpha_inner: float = 0.9,
        fair_cvar: Outer = "plain",
        fair_groups: Literal["global", "official"] = "global",
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=2e-4, weight_decay=5e-4),
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(optimizer, scheduler)
        timm_args = {"num_classes": 2} | (timm_args or {})
        known = timm.get_pretrained_cfg(backbone) if timm.is_model(backbone) else None
        if input_size and known is not None and known.fixed_input_size:  # a ViT is built for one size
            timm_args = {"img_size": input_size} | timm_args
        network: Any = create_backbone(backbone, pretrained, weights, **timm_args)
        self.network: Any = network
        config = resolve_model_data_config(network)
        self.input_size = input_size or config["input_size"][-1]
        self.mean, self.std = mean or config["mean"], std or config["std"]
        self.channels_last = is_convolutional(self.network)
        self.norm_eval = norm_eval
        self.fair, self.alphas, self.fair_cvar = fair, (fair_alpha_inner, fair_alpha), fair_cvar
        self.fair_groups = fair_groups
        self.scl_weight = scl_weight
        self.scl_feature = "feature" if scl_feature == "pre_logits" else "logits"
        if scl_weight:
            dim = network.head_hidden_size if scl_feature == "pre_logits" else network.num_classes
            self.criterion = SingleCenterLoss(dim, scl_margin, scl_margin_mode, scl_center, scl_empty_class)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all modules, less BatchNorm with ``norm_eval``."""
        super().train(mode)
        if self.norm_eval:
            for module in self.network.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return ``logit`` (N,), ``logits`` (N, K) and ``feature`` (N, D), the input of the last layer."""
        feature = self.network.forward_head(self.network.forward_features(image), pre_logits=True)
        logits = self.network.get_classifier()(feature)
        return {"logit": logits[:, 1] - logits[:, 0], "logits": logits, "feature": feature}

    def loss(self, out: dict[str, Tensor], batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` = ``ce`` + scl_weight x ``scl``; with ``fair``, ``cvar`` in place of the mean ``ce``."""
        ce = self.image_loss(out, batch, each=False)
        losses = {"loss": ce, "ce": ce}
        if self.fair != "none":
            losses["loss"] = losses["cvar"] = self._cvar(out["logits"], batch)
        if self.criterion is not None:
            losses["scl"] = self.criterion(out[self.scl_feature], batch["label"])
            losses["loss"] = losses["loss"] + self.scl_weight * losses["scl"]
        return losses

    def image_loss(self, out: dict[str, Tensor], batch: Mapping[str, Any], each: bool = True) -> Tensor:
        """Return the cross-entropy of every image, or their mean: the part of the loss that one image has alone."""
        return cross_entropy(out["logits"], batch["label"], batch.get("weight"), each)

    def _cvar(self, logits: Tensor, batch: Mapping[str, Any]) -> Tensor:
        each = F.cross_entropy(logits.float(), batch["label"], reduction="none") * batch.get("weight", 1.0)
        groups = 2 * batch["group"] + batch["label"] if self.fair == "daw_class" else batch["group"]
        if self.fair_groups == "global":
            each, groups = gather_over_ranks(each, groups)
        if self.fair == "dag":
            return cvar(each, self.alphas[1])
        return bilevel_cvar(each, groups, *self.alphas, self.fair_cvar)
