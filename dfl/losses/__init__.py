"""Losses: one idea per file, a pure function and a thin module."""

from dfl.losses.classification import cross_entropy
from dfl.losses.localization import mask_loss, mean_logit, patch_loss
from dfl.losses.single_center import SingleCenterLoss, single_center_loss

__all__ = ["SingleCenterLoss", "cross_entropy", "mask_loss", "mean_logit", "patch_loss", "single_center_loss"]
