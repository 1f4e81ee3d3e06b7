"""Losses of maps: from image labels alone (patches), or from masks; in float32 whatever the autocast.

Maps are log-odds of "manipulated" (N, h, w). Cross-entropy over two classes is the same as binary cross-entropy of the
difference of their logits, so one channel is enough.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dfl.losses.classification import mean_of

Pooling = Literal["expand", "pooled_max", "pooled_avg"]


def log_mean_probability(map_logit: Tensor) -> Tensor:
    """Return the logarithm of the mean over a map (N, h, w) of its probabilities, (N,) float32, without underflow."""
    flat = map_logit.float().flatten(1)
    return F.logsigmoid(flat).logsumexp(1) - math.log(flat.shape[1])


def mean_logit(map_logit: Tensor) -> Tensor:
    """Return the log-odds of the mean probability of a map (N, h, w), (N,) float32."""
    return log_mean_probability(map_logit) - log_mean_probability(-map_logit)


def patch_loss(
    map_logit: Tensor,
    label: Tensor,
    pooling: Pooling = "expand",
    weight: Tensor | None = None,
    each: bool = False,
) -> Tensor:
    """Return the loss of a map whose image's label is all that is known, a float32 scalar.

    Source: Patch-Forensics (Chai et al. 2020) and the code of dolos (Tantaru et al. 2024), which uses ``expand``.

    Args:
        map_logit: (N, h, w), any float dtype.
        label: (N,) long, 0 real, 1 fake.
        pooling: ``expand`` gives every position the image's label; ``pooled_max`` looks only at the position that is
            most surely fake; ``pooled_avg`` takes -log of the mean probability of the label.
        weight: (N,) float32 weight of each image.
        each: Return the loss of every image, (N,), not their mean.
    """
    x, y = map_logit.float(), label.float()
    if pooling == "expand":
        loss = F.binary_cross_entropy_with_logits(x, y[:, None, None].expand_as(x), reduction="none").mean((1, 2))
    elif pooling == "pooled_max":
        loss = F.binary_cross_entropy_with_logits(x.flatten(1).amax(1), y, reduction="none")
    else:
        loss = -log_mean_probability(torch.where(label[:, None, None] == 1, x, -x))
    return mean_of(loss, weight, each)


def largest_loss(
    map_logit: Tensor,
    label: Tensor,
    kind: Literal["bce", "l1"] = "bce",
    map_prob: Tensor | None = None,
    weight: Tensor | None = None,
    each: bool = False,
) -> Tensor:
    """Return the loss of the largest value of a map against its image's label, a float32 scalar.

    Source: dolos (Tantaru et al. 2024), ``bce``; FFD (Dang et al. 2020), ``l1`` against 0 and 0.75.

    Args:
        map_logit: (N, h, w), any float dtype. The sigmoid rises, so the largest probability is the sigmoid of the
            largest logit, and the loss can be taken with logits: the other one is not allowed under autocast, and loses
            digits.
        label: (N,) long, 0 real, 1 fake.
        kind: Which.
        map_prob: (N, h, w) for ``l1`` of maps that are born as values; the sigmoid of the logits by default.
        weight: (N,) float32 weight of each image.
        each: Return the loss of every image, (N,), not their mean.
    """
    if kind == "bce":
        return patch_loss(map_logit, label, "pooled_max", weight, each)
    value = map_logit.float().sigmoid() if map_prob is None else map_prob.float()
    return mean_of((value.flatten(1).amax(1) - 0.75 * label.float()).abs(), weight, each)


def mask_loss(
    map_logit: Tensor,
    mask: Tensor,
    has_mask: Tensor,
    resize: Literal["nearest", "bilinear"] = "nearest",
    kind: Literal["bce", "l1"] = "bce",
    map_prob: Tensor | None = None,
    each: bool = False,
) -> Tensor:
    """Return the loss of a map against the mask of its image, a float32 scalar; 0 where no image has a mask.

    Args:
        map_logit: (N, h, w), any float dtype.
        mask: (N, H, W) float32 in [0, 1], 1 = manipulated.
        has_mask: (N,) bool, whether the image has a mask; the others are left out of the mean.
        resize: How the mask is brought to the map's size, see `target`.
        kind: ``bce``, or ``l1`` between probability and mask (FFD, Dang et al. 2020), whose soft values it keeps.
        map_prob: (N, h, w) for ``l1`` of maps that are born as values; the sigmoid of the logits by default.
        each: Return the loss of every image, (N,), 0 of those without a mask.
    """
    want = target(mask, (map_logit.shape[1], map_logit.shape[2]), resize, soft=kind == "l1")
    if kind == "bce":
        loss = F.binary_cross_entropy_with_logits(map_logit.float(), want, reduction="none")
    else:
        loss = ((map_logit.float().sigmoid() if map_prob is None else map_prob.float()) - want).abs()
    share = has_mask.float()
    loss = loss.mean((1, 2)) * share
    return loss if each else loss.sum() / share.sum().clamp(min=1)


def target(
    mask: Tensor, size: tuple[int, int], resize: Literal["nearest", "bilinear"] = "nearest", soft: bool = False
) -> Tensor:
    """Bring masks (N, H, W) to the size of a map, float32, 0 or 1 unless ``soft``.

    ``nearest`` takes the nearest pixel, at the papers' sizes that of PIL (which may differ where a cell's centre is on
    the border of two pixels); ``bilinear`` averages (antialiased) and takes what is over one half, as dolos does for
    its attention maps only: it differs in a tenth of the cells of a blobby mask.
    """
    words: dict[str, Any] = {"mode": "bilinear", "antialias": True, "align_corners": False}
    if resize == "nearest":
        words = {"mode": "nearest-exact"}
    small = F.interpolate(mask[:, None].float(), size, **words)[:, 0]
    if soft:
        return small
    return (small >= 0.5 if resize == "nearest" else small > 0.5).float()
