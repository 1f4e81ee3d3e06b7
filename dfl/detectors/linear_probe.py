"""A linear probe: logistic regression on the features of a frozen timm backbone.

Features of a foundation model that was never shown a fake tell fakes of unseen generators apart better than a network
that was trained on those of one (Ojha et al., Towards Universal Fake Image Detectors, CVPR 2023).
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from dfl.detectors.fitted import LogisticDetector, LogisticHead
from dfl.networks import TIMM, About, backbone_and_view, is_convolutional


class LinearProbe(LogisticDetector):
    """Logistic regression on the z-scored input of a backbone's last layer.

    Args:
        backbone: timm name.
        pretrained: Take pretrained weights.
        weights: Where from: a local file, or a timm tag. None takes timm's default.
        timm_args: More arguments of ``timm.create_model``.
        penalty: Of the squared weights, relative to the sum of the losses.
        **kwargs: Of `Detector`; by default the size of images is the backbone's own.
    """

    about = About("foundation models", "Ojha et al.", 2023)

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
        self.network, self.input_size, self.normalize = backbone_and_view(
            *(backbone, pretrained, weights, kwargs.get("input_size")), **{"num_classes": 0} | (timm_args or {})
        )
        self.network.requires_grad_(False)
        self.channels_last = is_convolutional(self.network)
        self.head = LogisticHead(self.network.head_hidden_size, penalty)
        self.eval()

    def features(self, image: Tensor) -> Tensor:
        """Return the input of the last layer, (N, D)."""
        with torch.no_grad():
            return self.network.forward_head(self.network.forward_features(self.normalize(image)), pre_logits=True)
