"""Localization metrics of one domain: how well maps of manipulated pixels agree with masks.

Every number is taken per image and averaged over the fakes of the domain, as the papers do; pooling all pixels of a
data set, as torchmetrics does, lets large areas outvote small ones (0.68 against 0.45 on our golden maps). Counts stay
integers and the values of an image are stored until the end, sorted by its index, so that 1 and 2 ranks and any batch
order give the same result to the last bit. What is pooled over a data set on purpose is counted in bins, so memory
does not grow with the number of pixels.

Papers differ in what they count. Each has its name here, see `Localization`.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from dfl.metrics import binary
from dfl.metrics.gathered import Gathered
from dfl.metrics.map_geometry import ignore_border, inside, resize_map, resize_mask

Protocol = Literal["dfl", "dolos", "benco", "trufor"]
Empty = Literal["one", "zero", "skip"]
#: What each protocol does with a fake whose mask is empty, where the user does not say.
EMPTY: dict[str, Empty] = {"dfl": "skip", "dolos": "one", "benco": "zero", "trufor": "zero"}
#: Bins of the curves that are pooled over a data set.
BINS = 1024


class Curves(NamedTuple):
    """Exact measures over all thresholds of each image, float64 (N,) each; NaN where undefined."""

    ap: Tensor
    auroc: Tensor
    best_f1: Tensor
    inverse_best_f1: Tensor


#: What is stored of each image; ``sum_auroc`` is BenCo's own, see `sum_auroc`.
COLUMNS = ("label", "tp", "fp", "fn", "tn", *Curves._fields, "sum_auroc")


def counts(prob: Tensor, mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return tp, fp, fn and tn of each image at the threshold, int64 (N, 4): manipulated where prob > 0.5.

    Args:
        prob: (N, H, W) float.
        mask: (N, H, W) bool.
        valid: (N, H, W) bool, pixels that count; all by default.
    """
    positive, counted = prob > 0.5, torch.ones_like(mask) if valid is None else valid
    planes = (positive & mask, positive & ~mask, ~positive & mask, ~positive & ~mask)
    return torch.stack([(plane & counted).flatten(1).sum(1) for plane in planes], 1)


def curves(prob: Tensor, mask: Tensor, valid: Tensor | None = None) -> Curves:
    """Return average precision, AUROC and the best F1 over all thresholds of each image, ties as in scikit-learn.

    Args:
        prob: (N, H, W) float32 without NaN.
        mask: (N, H, W) bool.
        valid: (N, H, W) bool, pixels that count; all by default.

    Returns:
        ``ap`` and ``best_f1`` are NaN for an empty mask, ``auroc`` also for a full one.
    """
    # One sort of integers that hold the value and, below it, what the pixel is, instead of a sort and two gathers
    bits = (prob.float().flatten(1) + 0.0).view(torch.int32)  # + 0.0: minus zero is zero
    key = (~(bits ^ ((bits >> 31) & 0x7FFFFFFF))).long() << 2  # in the order of the floats, highest first
    counted = torch.ones_like(mask) if valid is None else valid
    key |= counted.flatten(1).long() << 1 | (mask & counted).flatten(1)
    on_cpu = key.device.type == "cpu"  # NumPy's sort of integers is vectorised there, several times as fast as torch's
    key = torch.from_numpy(np.sort(key.numpy(), axis=1)) if on_cpu else key.sort(dim=1).values
    # row by row, so that the order of summation does not depend on the batch
    rows = [_curves(row, valid is None) for row in key]
    return Curves(*torch.stack(rows).T) if rows else Curves(*prob.new_empty(4, 0, dtype=torch.float64))


def _curves(row: Tensor, all_valid: bool) -> Tensor:
    """Return the four values of `Curves` for the sorted keys (P,) of one image, float64 (4,)."""
    last = torch.cat([(row[1:] ^ row[:-1]) > 3, row.new_ones(1, dtype=torch.bool)]).nonzero().flatten()
    tp = (row & 1).cumsum(0)[last]
    n = last + 1 if all_valid else (row >> 1 & 1).cumsum(0)[last]
    fp = n - tp
    gain, step = tp.diff(prepend=tp.new_zeros(1)), fp.diff(prepend=fp.new_zeros(1))
    twice = (step * (2 * tp - gain)).sum().double()  # twice the area under the curve, in integers up to here
    tp, n = tp.double(), n.double()
    area, total = tp[-1], n[-1]
    ap = (gain * tp / n.clamp(min=1)).sum() / area
    auroc = twice / (2 * area * (total - area))
    f1 = (2 * tp / (n + area)).max()
    # the inverted map finds what is left over, at first everything
    rest = torch.maximum((2 * (area - tp) / (total - n + area)).nan_to_num(0).max(), 2 * area / (total + area))
    undefined = torch.where(area > 0, 0.0, math.nan)
    return torch.stack([ap, auroc, f1 + undefined, rest + undefined])


def sum_auroc(prob: Tensor, mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return the area under the ROC curve of each image as IMDL-BenCo sums it, float64 (N,).

    Its trapezoids start at the first pixel, not at (0, 0), and equal values count one after the other, in whatever
    order the machine's sort leaves them, so a constant map does not give 0.5. An empty mask gives 0, a full one NaN.

    Args:
        prob: (N, H, W) float32.
        mask: (N, H, W) bool.
        valid: (N, H, W) bool, pixels that count; all by default.
    """
    areas = []
    for i in range(len(prob)):
        at = slice(None) if valid is None else valid[i].flatten()
        score, truth = prob[i].flatten()[at], mask[i].flatten()[at].double()
        truth = truth[score.argsort(descending=True)]
        tpr, fpr = truth.cumsum(0) / truth.sum(), (1 - truth).cumsum(0) / (1 - truth).sum()
        areas.append(torch.trapezoid(tpr, fpr) if bool(truth.any()) else truth.new_zeros(()))
    return torch.stack(areas) if areas else prob.new_empty(0, dtype=torch.float64)


class Localization(Gathered):
    """IoU and the other metrics of maps, for one domain.

    Args:
        protocol: Whose numbers.
            ``dfl``: the map is brought to the mask's size (bicubic, antialiased); manipulated where map > 0.5 and
            where mask >= 0.5.
            ``dolos`` (Tantaru et al. 2024): the same at 256 px, and every mask value over 0 is manipulated.
            ``benco`` (IMDL-BenCo, Ma et al. 2024): F1 and IoU with 1e-8 in their denominators, its own AUROC (see
            `sum_auroc`).
            ``trufor`` (Guillaro et al. 2023): a band along the border of the area does not count (see
            `ignore_border`), and F1 is the better one of the map and the inverted map.
        empty: What a fake with an empty mask counts: ``one`` gives 1 where nothing is found either and 0 otherwise,
            ``zero`` gives 0, ``skip`` leaves the image out. None takes the protocol's own.
        name: The domain, for warnings.
        kwargs: Of `torchmetrics.Metric`.

    `compute()` returns 0-dimensional float64 tensors on the CPU, fractions: the means over fakes of ``iou``, ``pbca``
    (share of right pixels), ``f1``, ``best_f1`` (over all thresholds of an image), ``ap``, ``auroc``; what the maps
    "all fake" and "all real" would get (``iou_all_fake``, ``iou_all_real``, ``pbca_all_fake``, ``pbca_all_real``,
    ``f1_all_fake``, ``ap_all_fake``), since published numbers lie under them; ``ciou``, intersections over unions, each
    summed over the fakes (segmentation papers call it cIoU, and ``iou`` gIoU); ``pooled_iou`` (exact), ``pooled_ap``
    and ``pooled_auroc`` (1,024 bins) of all pixels of all images, reals included; ``fpa``, the share of the pixels of
    real images that are called fake; and ``false_masks``, the share of real images with any such pixel. NaN where
    undefined.
    """

    bins: Tensor

    def __init__(self, protocol: Protocol = "dfl", empty: Empty | None = None, name: str = "", **kwargs: Any) -> None:
        super().__init__(COLUMNS, name, **kwargs)
        for what, value, allowed in (
            ("protocol", protocol, (*EMPTY,)),
            ("empty", empty, (None, "one", "zero", "skip")),
        ):
            if value not in allowed:
                raise ValueError(f"{what} is {value!r}; choose from {', '.join(map(str, allowed))}")
        self.protocol, self.empty = protocol, empty or EMPTY[protocol]
        self.add_state("bins", default=torch.zeros(2 * BINS, dtype=torch.float64), dist_reduce_fx="sum")

    def take(self, output: Tensor, batch: Mapping[str, Any]) -> None:
        """Add the map logits (N, h, w) of a batch; images without a mask are left out."""
        index = batch["index"].where(batch["has_mask"], -1)
        self.update(output.float().sigmoid(), batch["mask"], batch["label"], index, inside(batch))

    def update(
        self,
        map_prob: Tensor,
        mask: Tensor,
        label: Tensor | None = None,
        index: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            map_prob: (N, h, w) float32 or float64 in [0, 1], the probability that a pixel is manipulated.
            mask: (N, H, W) in [0, 1], 1 = manipulated; any dtype.
            label: (N,) 0 real, 1 fake; all fake by default.
            index: (N,) row in the data set; rows with an index < 0 are padding and are ignored. By default numbers that
                no other batch and rank has.
            valid: (N, H, W) bool, pixels that count, for images that were padded; all by default.

        Raises:
            TypeError: for maps of lower precision.
            ValueError: for shapes that do not belong together, and maps that are no probabilities.
        """
        binary.check_precision(map_prob)
        if map_prob.ndim != 3 or mask.ndim != 3 or len(map_prob) != len(mask):
            raise ValueError(f"maps (N, h, w) and masks (N, H, W) wanted, got {(*map_prob.shape,)}, {(*mask.shape,)}")
        if map_prob.device.type == "mps":  # no float64 there
            map_prob = map_prob.cpu()
        device, n = map_prob.device, len(map_prob)
        if index is None:
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
            index = torch.arange(n) + (rank << 40) + sum(len(v) for v in self.values) // (1 + len(COLUMNS))
        index = index.to(device)
        label = torch.ones(n, dtype=torch.long, device=device) if label is None else label.to(device)
        use = index >= 0
        prob, mask, label, index = map_prob.detach()[use], mask.to(device)[use], label[use], index[use]
        if not len(prob):
            return
        if bool(((prob < 0) | (prob > 1)).any()):
            raise ValueError(f"maps must be probabilities in [0, 1], found {prob.min():g} to {prob.max():g}")
        has_nan = prob.isnan().flatten(1).any(1)
        valid = None if valid is None else valid.to(device)[use]
        prob, mask, valid = self._as_scored(prob.nan_to_num(0.0), mask, valid)
        self.bins += _binned(prob, mask, valid).to(self.bins)
        fake = label == 1
        some = None if valid is None else valid[fake]
        exact = torch.full((len(prob), len(Curves._fields) + 1), math.nan, dtype=torch.float64, device=device)
        exact[fake, :-1] = torch.stack(curves(prob[fake], mask[fake], some), 1)
        if self.protocol == "benco":
            exact[fake, -1] = sum_auroc(prob[fake], mask[fake], some)
        count = counts(prob, mask, valid).double()
        count[has_nan], exact[has_nan] = math.nan, math.nan
        self.add_rows(index, label, count, exact)

    def _as_scored(self, prob: Tensor, mask: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return maps (N, H, W), masks bool and the pixels that count, of the size and by the rules of the protocol."""
        if self.protocol == "dolos":
            mask = resize_mask(mask > 0, (256, 256))
            valid = None if valid is None else resize_mask(valid, (256, 256))
        else:
            mask = mask if mask.dtype == torch.bool else mask >= 0.5
        if self.protocol == "trufor":
            band = ignore_border(mask)
            valid = band if valid is None else valid & band
        return resize_map(prob, (mask.shape[1], mask.shape[2])), mask, valid

    def rows(self) -> dict[str, Tensor]:
        """Return the numbers of every image of all ranks, (N,) each, on the CPU, by rising index.

        ``index`` int64; float64 are ``label``, the counts ``tp``, ``fp``, ``fn``, ``tn``, and ``iou``, ``pbca``,
        ``f1``, ``best_f1``, ``ap``, ``auroc`` as the protocol has them. An index that came twice is there once. All
        ranks must call it together, except after `compute()`.
        """
        index, numbers = self.gathered()
        column = dict(zip(COLUMNS, numbers.T, strict=True))
        tp, fp, fn, tn = (column[name] for name in ("tp", "fp", "fn", "tn"))
        by_image = self._counted(tp, fp, fn, tn) | {name: column[name] for name in ("best_f1", "ap", "auroc")}
        inverse = column["inverse_best_f1"]
        if self.empty == "zero":
            by_image["best_f1"], inverse = (torch.where(tp + fn == 0, 0.0, f1) for f1 in (column["best_f1"], inverse))
        if self.protocol == "benco":
            by_image["auroc"] = column["sum_auroc"]
        if self.protocol == "trufor":
            by_image["f1"] = torch.maximum(by_image["f1"], self._counted(fn, tn, tp, fp)["f1"])
            by_image["best_f1"] = torch.maximum(by_image["best_f1"], inverse)
        return {"index": index} | {name: column[name] for name in ("label", "tp", "fp", "fn", "tn")} | by_image

    def _counted(self, tp: Tensor, fp: Tensor, fn: Tensor, tn: Tensor) -> dict[str, Tensor]:
        """Return IoU, PBCA and F1 of counts; of an empty mask as `empty` says."""
        if self.protocol == "benco":
            precision, recall = tp / (tp + fp + 1e-8), tp / (tp + fn + 1e-8)
            iou, f1 = tp / (tp + fp + fn + 1e-8), 2 * precision * recall / (precision + recall + 1e-8)
        else:
            iou, f1 = tp / (tp + fp + fn), 2 * tp / (2 * tp + fp + fn)
        pbca = (tp + tn) / (tp + fp + fn + tn)
        area = tp + fn
        value = {"zero": torch.zeros_like(tp), "one": (fp == 0).double(), "skip": torch.full_like(tp, math.nan)}
        iou, f1 = (torch.where(area == 0, value[self.empty], x) for x in (iou, f1))
        if self.empty == "skip":
            pbca = torch.where(area == 0, math.nan, pbca)
        return {"iou": iou, "pbca": pbca, "f1": f1}

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of all images so far; see the class."""
        rows = self.rows()
        fake, real = rows["label"] == 1, rows["label"] == 0
        tp, fp, fn, tn = (rows[name] for name in ("tp", "fp", "fn", "tn"))
        total, area = tp + fp + fn + tn, tp + fn
        zero = torch.zeros_like(area)
        everything = self._counted(area, total - area, zero, zero)
        nothing = self._counted(zero, zero, area, total - area)
        share = torch.where(area > 0, area / total, math.nan)
        means = {name: rows[name] for name in ("iou", "pbca", "f1", "best_f1", "ap", "auroc")}
        means |= {f"{name}_all_fake": everything[name] for name in ("iou", "pbca", "f1")} | {"ap_all_fake": share}
        means |= {f"{name}_all_real": nothing[name] for name in ("iou", "pbca")}
        self._warn(fake, area)
        result = {name: _mean(value[fake], area[fake]) for name, value in means.items()}
        below, above = self.sums["bins"].reshape(2, BINS)
        result["pooled_iou"] = tp.sum() / (tp + fp + fn).sum()
        result |= {f"pooled_{name}": value for name, value in _pooled(below, above).items()}
        result["ciou"] = tp[fake].sum() / (tp + fp + fn)[fake].sum()
        result["fpa"] = _mean((fp / total)[real], area[real])
        result["false_masks"] = _mean((fp > 0).double()[real], area[real])
        return result

    def _warn(self, fake: Tensor, area: Tensor) -> None:
        """Say once per computation what is undefined or left out."""
        empty, has_nan, n = int((area[fake] == 0).sum()), int(area.isnan().sum()), int(fake.sum())
        if not n:
            rank_zero_warn(f"{self.where}no fake with a mask; metrics of maps are NaN")
        elif empty:
            rule = {"skip": "are left out", "zero": "count 0", "one": "count 1 where nothing is found, else 0"}
            rank_zero_warn(f"{self.where}{empty} of {n} fakes have an empty mask; they {rule[self.empty]}")
        if has_nan:
            rank_zero_warn(f"{self.where}{has_nan} of {len(area)} maps hold NaN; they make the means NaN")


def _binned(prob: Tensor, mask: Tensor, valid: Tensor | None) -> Tensor:
    """Return how many pixels lie in each bin, first of the real, then of the manipulated ones: int64 (2 BINS,)."""
    place = (prob * BINS).long().clamp(0, BINS - 1) + BINS * mask
    return torch.bincount(place.flatten() if valid is None else place[valid], minlength=2 * BINS)


def _mean(values: Tensor, area: Tensor) -> Tensor:
    """Return the correctly rounded mean of what is defined; NaN of nothing, and where a map held NaN (its area is)."""
    defined = values[~values.isnan()].tolist()
    mean = math.fsum(defined) / len(defined) if defined and not bool(area.isnan().any()) else math.nan
    return torch.tensor(mean, dtype=torch.float64)


def _pooled(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Return AP and AUROC of counts by bin, (BINS,) float64 each, from the lowest bin."""
    gain, step = fake.double().flip(0), real.double().flip(0)
    tp, fp = gain.cumsum(0), step.cumsum(0)
    ap = (gain * tp / (tp + fp).clamp(min=1)).sum() / tp[-1]
    auroc = (step * (2 * tp - gain)).sum() / (2 * tp[-1] * fp[-1])
    return {"ap": torch.where(fp[-1] > 0, ap, math.nan), "auroc": auroc}
