"""Metrics: pure functions on score and label, and torchmetrics classes that gather them over an epoch and ranks."""

from dfl.metrics.binary import (
    accuracy,
    auroc,
    average_precision,
    balanced_accuracy,
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
from dfl.metrics.gathered import Mean
from dfl.metrics.localization import Localization, balanced_draws_ap, inside, resize_map, resize_mask
from dfl.metrics.sida import official
from dfl.metrics.text import Texts

__all__ = [
    "Classes",
    "Detection",
    "GroupFairness",
    "Localization",
    "Mean",
    "Texts",
    "accuracy",
    "attributes",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "balanced_draws_ap",
    "choose_threshold",
    "ece",
    "eer",
    "inside",
    "log_loss",
    "mean_over_domains",
    "official",
    "pr_curve",
    "resize_map",
    "resize_mask",
    "roc_curve",
    "tpr_at_fpr",
    "video_scores",
]
