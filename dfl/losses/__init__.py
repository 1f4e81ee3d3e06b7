"""Losses: one idea per file; pure functions, and the criterions that a classifier can be trained with."""

from dfl.losses.classification import binary_cross_entropy, cross_entropy
from dfl.losses.criterion import Criterion, CrossEntropy, DagFdd, DawFdd, SquaredError
from dfl.losses.cvar import bilevel_cvar, cvar
from dfl.losses.localization import largest_loss, mask_loss, mean_logit, patch_loss
from dfl.losses.single_center import SingleCenter, single_center_loss

__all__ = [
    "Criterion",
    "CrossEntropy",
    "DagFdd",
    "DawFdd",
    "SingleCenter",
    "SquaredError",
    "bilevel_cvar",
    "binary_cross_entropy",
    "cross_entropy",
    "cvar",
    "largest_loss",
    "mask_loss",
    "mean_logit",
    "patch_loss",
    "single_center_loss",
]
