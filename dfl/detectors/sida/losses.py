"""Mask losses of SIDA (Huang et al., CVPR 2025), which are those of LISA: binary cross-entropy and DICE, mask by mask.

Each is a value for each mask, summed and divided by n + 1e-8, so that no mask at all gives 0. Weights choose among the
masks of a batch: an image that was not tampered has weight 0, and no batch has to be of one class.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from dfl.metrics import inside

TAMPERED = 2


def sida_bce(
    logit: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    count: Tensor | None = None,
    shown: Tensor | None = None,
) -> Tensor:
    """Return the binary cross-entropy of masks, mean over pixels, a float32 scalar.

    Args:
        logit: (N, H, W), any float dtype.
        target: (N, H, W) in [0, 1]; soft values are kept.
        weight: (N,) float weight of each mask; 1 by default.
        count: What the sum is divided by; by default the sum of the weights. On several ranks the mean of it over the
            ranks, so that the mean of their gradients is that of the one whole batch.
        shown: (N, H, W) bool, pixels that count, where images were padded; all by default.
    """
    each = F.binary_cross_entropy_with_logits(logit.float(), target.float(), reduction="none")
    if shown is None:
        return _mean(each.flatten(1).mean(1), weight, count)
    return _mean((each * shown).flatten(1).sum(1) / shown.flatten(1).sum(1), weight, count)


def sida_dice(
    logit: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    count: Tensor | None = None,
    shown: Tensor | None = None,
) -> Tensor:
    """Return 1 - (2 sum(p t) / s + eps) / (sum(p) / s + sum(t) / s + eps), p = sigmoid(logit), a float32 scalar.

    Args:
        logit: (N, H, W), any float dtype.
        target: (N, H, W) in [0, 1].
        weight: As in `sida_bce`.
        count: As in `sida_bce`.
        shown: As in `sida_bce`.
    """
    scale, eps = 1000.0, 1e-6  # s keeps half-precision sums small, eps makes two empty masks equal
    p, t = logit.float().sigmoid().flatten(1), target.float().flatten(1)
    if shown is not None:
        p, t = p * shown.flatten(1), t * shown.flatten(1)
    both = 2 * (p / scale * t).sum(1)
    each = 1 - (both + eps) / ((p / scale).sum(1) + (t / scale).sum(1) + eps)
    return _mean(each, weight, count)


def _mean(each: Tensor, weight: Tensor | None, count: Tensor | None) -> Tensor:
    if weight is None:
        return each.sum() / (len(each) + 1e-8)
    return (each * weight).sum() / ((weight.sum() if count is None else count) + 1e-8)


def classes(batch: Mapping[str, Any]) -> Tensor:
    """Return 0 real, 1 synthetic, 2 tampered (N,); -1 for a fake of which neither class nor mask says more.

    Where the class is unknown, real images are known by their label, and fakes by their mask: one that covers all of
    the image is a synthetic image's.
    """
    kind, label = batch["class_label"], batch["label"]
    mask, shown = batch["mask"], inside(batch)
    if shown is not None:  # the padding of a whole mask is no hole in it
        mask = mask.where(shown, 1.0)
    masked = torch.where(mask.flatten(1).amin(1) > 0.5, 1, TAMPERED)
    guess = torch.where(label == 0, 0, torch.where(batch["has_mask"], masked, -1))
    return torch.where(kind < 0, guess, kind)


def mean_over_ranks(value: Tensor) -> Tensor:
    """Return the mean of a count over all ranks: what sums are divided by, so that ranks need not hold equally many."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()
