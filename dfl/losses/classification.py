"""Cross-entropy, in float32 whatever the autocast."""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, label: Tensor, weight: Tensor | None = None, each: bool = False) -> Tensor:
    """Return the mean cross-entropy, a float32 scalar, or with ``each`` that of every sample, (N,).

    Args:
        logits: (N, K), any float dtype.
        label: (N,) long, class ids.
        weight: (N,) float32 weight of each sample; the mean is over samples, not over weights, so that ranks
            average to the loss of the whole batch.
    """
    loss = F.cross_entropy(logits.float(), label, reduction="none")
    return mean_of(loss, weight, each)


def binary_cross_entropy(logit: Tensor, label: Tensor, weight: Tensor | None = None, each: bool = False) -> Tensor:
    """Return the mean cross-entropy of log-odds of fake, a float32 scalar, or with ``each`` that of every sample, (N,).

    Args:
        logit: (N,), any float dtype.
        label: (N,) long, 0 real, 1 fake.
        weight: As for `cross_entropy`.
    """
    return mean_of(F.binary_cross_entropy_with_logits(logit.float(), label.float(), reduction="none"), weight, each)


def mean_of(loss: Tensor, weight: Tensor | None, each: bool) -> Tensor:
    """Return the mean of weighted losses (N,), a scalar; or with ``each`` the weighted losses."""
    loss = loss if weight is None else loss * weight
    return loss if each else loss.mean()


def mean_over(loss: Tensor, chosen: Tensor) -> Tensor:
    """Return the mean of the losses (N,) that are chosen, (N,) bool; 0 for none."""
    return loss.where(chosen, 0.0).sum() / chosen.sum().clamp(min=1)
