"""A linear probe: logistic regression on the features of a frozen foundation model.

Features of a model that was never shown a fake tell fakes of unseen generators apart better than a network that was
trained on those of one (Ojha et al., Towards Universal Fake Image Detectors, CVPR 2023).
"""

from typing import Any

from dfl.detectors.fitted import LogisticDetector, LogisticHead, Penalty
from dfl.detectors.probes.encoded import Probe


class LinearProbe(Probe, LogisticDetector):
    """Logistic regression on z-scored features.

    Args:
        backbone: timm name; by default CLIP ViT-B/16, and none where there is a ``folder``.
        penalty: Of the squared weights, relative to the sum of the losses; ``auto``: by cross-validation.
        **kwargs: Of `Probe`.
    """

    def __init__(self, backbone: str | None = None, *, penalty: Penalty = 1.0, **kwargs: Any) -> None:
        super().__init__(backbone=backbone, **kwargs)
        self.head = LogisticHead(self.encoder.dim, penalty)
        self.eval()
