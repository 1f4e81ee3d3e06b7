"""Losses: one idea per file, a pure function and a thin module."""

from dfl.losses.classification import cross_entropy
from dfl.losses.single_center import SingleCenterLoss, single_center_loss

__all__ = ["SingleCenterLoss", "cross_entropy", "single_center_loss"]
