"""Losses: one idea per file, a pure function and a thin module."""

from dfl.losses.classification import cross_entropy
from dfl.losses.cvar import bilevel_cvar, cvar
from dfl.losses.ldam import ldam
from dfl.losses.localization import largest_loss, mask_loss, mean_logit, patch_loss
from dfl.losses.sida import sida_bce, sida_dice
from dfl.losses.single_center import SingleCenterLoss, single_center_loss
from dfl.losses.triplets import contrastive_triplets

__all__ = [
    "SingleCenterLoss",
    "bilevel_cvar",
    "contrastive_triplets",
    "cross_entropy",
    "cvar",
    "largest_loss",
    "ldam",
    "mask_loss",
    "mean_logit",
    "patch_loss",
    "sida_bce",
    "sida_dice",
    "single_center_loss",
]
