"""A linear probe: logistic regression on the features of a frozen timm backbone.

Features of a foundation model that was never shown a fake tell fakes of unseen generators apart better than a network
that was trained on those of one (Ojha et al., Towards Universal Fake Image Detectors, CVPR 2023).
"""

from typing import Any, ClassVar

import torch
from timm.data import resolve_model_data_config
from torch import Tensor

from dfl.detectors.fitted import FittedDetector, LogisticHead
from dfl.networks import TIMM, Normalize, create_backbone, is_convolutional


class LinearProbe(FittedDetector):
    """Logistic regression on the z-scored input of a backbone's last layer.

    Args:
        backbone: timm name.
        pretrained: Take pretrained weights.
        weights: Where from: a local file, or a timm tag. None takes timm's default.
        timm_args: More arguments of ``timm.create_model``.
        penalty: Of the squared weights, relative to the sum of the losses.
        **kwargs: Of `Detector`; by default the size of images is the backbone's own.
    """

    kinds: ClassVar[dict[str, Any]] = {"timm_args": TIMM}

    def __init__(
        self,
        backbone: str = "vit_base_patch16_clip_224.openai",
        pretrained: bool = True,
        weights: str | None = None,
        timm_args: dict[str, Any] | None = None,
        penalty: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        network: Any = create_backbone(backbone, pretrained, weights, **{"num_classes": 0} | (timm_args or {}))
        self.network: Any = network.requires_grad_(False)
        config = resolve_model_data_config(network)
        self.input_size = kwargs.get("input_size") or config["input_size"][-1]
        self.normalize = Normalize(config["mean"], config["std"])
        self.channels_last = is_convolutional(network)
        self.penalty = penalty
        self.head = LogisticHead(network.head_hidden_size)
        self.eval()

    def features(self, image: Tensor) -> Tensor:
        """Return the input of the last layer, (N, D)."""
        with torch.no_grad():
            return self.network.forward_head(self.network.forward_features(self.normalize(image)), pre_logits=True)

    def fit(self, features: Tensor, label: Tensor) -> None:
        """Fit the z-scores and the regression."""
        self.head.fit(features, label, self.penalty)

    def score(self, features: Tensor) -> Tensor:
        """Return the log-odds of fake (N,)."""
        return self.head(features)
