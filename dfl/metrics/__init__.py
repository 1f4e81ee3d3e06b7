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
from dfl.metrics.detection import Detection, mean_over_domains
from dfl.metrics.fairness import GroupFairness, attributes

__all__ = [
    "Detection",
    "GroupFairness",
    "accuracy",
    "attributes",
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "choose_threshold",
    "ece",
    "eer",
    "log_loss",
    "mean_over_domains",
    "pr_curve",
    "roc_curve",
    "tpr_at_fpr",
    "video_scores",
]
