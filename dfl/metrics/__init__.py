"""Metrics: pure functions on score and label, and torchmetrics classes that gather them over an epoch and ranks."""

from dfl.metrics.binary import (
    accuracy,
    auroc,
    auroc_interval,
    average_precision,
    balanced_accuracy,
    balanced_draws_ap,
    choose_threshold,
    ece,
    eer,
    log_loss,
    pr_curve,
    roc_curve,
    tpr_at_fpr,
    video_scores,
)
from dfl.metrics.classes import Classes
from dfl.metrics.detection import Detection, mean_over_domains
from dfl.metrics.fairness import GroupFairness, attributes
from dfl.metrics.localization import Localization
from dfl.metrics.map_geometry import inside, resize_map, resize_mask
from dfl.metrics.text import Texts

__all__ = [
    "Classes",
    "Detection",
    "GroupFairness",
    "Localization",
    "Texts",
    "accuracy",
    "attributes",
    "auroc",
    "auroc_interval",
    "average_precision",
    "balanced_accuracy",
    "balanced_draws_ap",
    "choose_threshold",
    "ece",
    "eer",
    "inside",
    "log_loss",
    "mean_over_domains",
    "pr_curve",
    "resize_map",
    "resize_mask",
    "roc_curve",
    "tpr_at_fpr",
    "video_scores",
]
