"""Localization metrics of one domain: how well maps of manipulated pixels agree with masks.

Every number is taken per image and averaged over the fakes of the domain, as the papers do; pooling all pixels of a
data set, as torchmetrics does, lets large areas outvote small ones (0.68 against 0.45 on our golden maps). Counts stay
integers and the values of an image are kept until the end, sorted by its index, so that 1 and 2 ranks and any batch
order give the same result to the last bit. What is pooled over a data set on purpose is counted in bins, so memory
does not grow with the number of pixels.

Papers differ in what they count. Each has its name here, see `Localization`.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from dfl.metrics import binary
from dfl.metrics.gathered import Gathered

Protocol = Literal["dfl", "dolos", "benco", "trufor"]
Empty = Literal["one", "zero", "skip"]
Invert = Literal["origin", "reverse", "double"]
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


#: What BenCo adds: its own AUROC of the map and of the map turned round, and the counts of the latter, whose pixels of
#: exactly 0.5 are real too.
BENCO = ("sum_auroc", "inverse_sum_auroc", "inverse_tp", "inverse_fp")
#: What is kept of each image.
COLUMNS = ("label", "tp", "fp", "fn", "tn", *Curves._fields, *BENCO)


def resize_map(prob: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring maps (N, h, w) to a size (H, W), float32, by antialiased bicubic interpolation, as PIL's ``BICUBIC``.

    Values may leave [0, 1] by about 0.18; no threshold inside is moved by that.
    """
    if tuple(prob.shape[-2:]) == tuple(size):
        return prob.float()
    return F.interpolate(prob.float()[:, None], size, mode="bicubic", antialias=True, align_corners=False)[:, 0]


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring masks (N, H, W) to a size, same dtype, by the nearest pixel, as PIL's ``NEAREST``.

    torch's plain ``nearest`` shifts the grid: it differs in 237 of 1,369 cells of a blobby 256 px mask at 37 px.
    ``nearest-exact`` rounds elsewhere where a cell's centre is on the border of two pixels: at 299 px in 11 of 89,401.
    """
    if tuple(mask.shape[-2:]) == tuple(size):
        return mask
    rows, columns = (_nearest(old, new).to(mask.device) for old, new in zip(mask.shape[-2:], size, strict=True))
    return mask[..., rows, :][..., columns]


def _nearest(old: int, new: int) -> Tensor:
    """Return which old pixel each new one takes, (new,) long; summed up step by step in float64, as PIL does."""
    step = old / new
    return torch.from_numpy(np.cumsum([step / 2, *[step] * (new - 1)]).astype(np.int64))


def inside(batch: Mapping[str, Any]) -> Tensor | None:
    """Return which pixels of a batch's images are no padding, (N, H, W) bool; None where nothing is padded."""
    extent = batch.get("extent")  # (N, 2) rows and columns from the top left
    if extent is None:
        return None
    down, right = (torch.arange(n, device=extent.device) for n in batch["image"].shape[-2:])
    return (down < extent[:, :1])[:, :, None] & (right < extent[:, 1:])[:, None]


def ignore_border(mask: Tensor) -> Tensor:
    """Return where TruFor scores (N, H, W) bool, of masks (N, H, W) bool: not in a band along the border of an area.

    Source: TruFor (Guillaro et al. 2023), evaluation code. Manipulated pixels count if a 15 x 15 window holds nothing
    else, real ones if an 11 x 11 window holds none of them.
    """
    area = mask.float()[:, None]
    eroded = -F.max_pool2d(-area, 15, 1, 7)
    dilated = F.max_pool2d(area, 11, 1, 5)
    return ((eroded == 1) | (dilated == 0))[:, 0]


def counts(prob: Tensor, mask: Tensor, valid: Tensor | None = None) -> Tensor:
    """Return tp, fp, fn and tn of each image at the threshold, int64 (N, 4): manipulated where prob > 0.5.

    Args:
        prob: (N, H, W) float.
        mask: (N, H, W) bool.
        valid: (N, H, W) bool, pixels that count; all by default.
    """
    found = prob > 0.5
    if valid is None:
        tp, found_n, area = ((x.flatten(1).sum(1)) for x in (found & mask, found, mask))
        total = torch.full_like(tp, mask[0].numel())
    else:
        tp, found_n, area = ((x & valid).flatten(1).sum(1) for x in (found & mask, found, mask))
        total = valid.flatten(1).sum(1)
    return torch.stack([tp, found_n - tp, area - tp, total - found_n - area + tp], 1)


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
    known = torch.ones_like(mask) if valid is None else valid
    key |= known.flatten(1).long() << 1 | (mask & known).flatten(1)
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
    # the map turned round finds what is left over, at first everything
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
    """IoU and its company for one domain.

    Args:
        protocol: whose numbers.
            ``dfl``: the map is brought to the mask's size (bicubic, antialiased); manipulated where map > 0.5 and
            where mask >= 0.5.
            ``dolos`` (Tantaru et al. 2024): the same at 256 px, and every mask value over 0 is manipulated.
            ``benco`` (IMDL-BenCo, Ma et al. 2024): F1 and IoU with 1e-8 in their denominators, its own AUROC (see
            `sum_auroc`); ``invert`` as its metrics have it.
            ``trufor`` (Guillaro et al. 2023): a band along the border of the area does not count (see
            `ignore_border`), and F1 is the better one of the map and the map turned round.
        empty: what a fake with an empty mask counts: ``one`` gives 1 where nothing is found either and 0 otherwise,
            ``zero`` gives 0, ``skip`` leaves the image out. None takes the protocol's own.
        invert: for ``benco``: the map as it is, turned round, or the better one of both; ``ap``, which BenCo does not
            have, stays that of the map as it is.
        name: the domain, for warnings.
        kwargs: of `torchmetrics.Metric`.

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

    def __init__(
        self,
        protocol: Protocol = "dfl",
        empty: Empty | None = None,
        invert: Invert = "origin",
        name: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(COLUMNS, name, **kwargs)
        for what, value, allowed in (
            ("protocol", protocol, tuple(EMPTY)),
            ("empty", empty, (None, "one", "zero", "skip")),
            ("invert", invert, ("origin", "reverse", "double")),
        ):
            if value not in allowed:
                raise ValueError(f"{what} is {value!r}; choose from {', '.join(map(str, allowed))}")
        if invert != "origin" and protocol != "benco":
            raise ValueError(f"invert={invert!r} belongs to the protocol benco, not to {protocol}")
        self.protocol, self.empty, self.invert = protocol, empty or EMPTY[protocol], invert
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
            index: (N,) row in the data set; rows with an index < 0 are padding and are ignored. Numbers of its own by
                default.
            valid: (N, H, W) bool, pixels that count, for images that were padded; all by default.

        Raises:
            TypeError: for maps of lower precision.
            ValueError: for shapes that do not belong together, and maps that are no probabilities.
        """
        binary.check_precision(map_prob)
        if map_prob.ndim != 3 or mask.ndim != 3 or len(map_prob) != len(mask):
            raise ValueError(f"maps (N, h, w) and masks (N, H, W) wanted, got {(*map_prob.shape,)}, {(*mask.shape,)}")
        if map_prob.device.type == "mps":  # no float64 there
            map_prob, mask = map_prob.cpu(), mask.cpu()
        where = map_prob.device
        n = len(map_prob)
        if index is None:
            rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
            index = torch.arange(n) + (rank << 40) + sum(len(v) for v in self.values) // (1 + len(COLUMNS))
        index = index.to(where)
        label = torch.ones(n, dtype=torch.long, device=where) if label is None else label.to(where)
        use = index >= 0
        prob, mask, label, index = map_prob.detach()[use], mask.to(where)[use], label[use], index[use]
        valid = None if valid is None else valid.to(where)[use]
        if not len(prob):
            return
        if bool(((prob < 0) | (prob > 1)).any()):
            raise ValueError(f"maps must be probabilities in [0, 1], found {prob.min():g} to {prob.max():g}")
        if self.protocol == "dolos":
            mask = resize_mask((mask > 0), (256, 256))
            valid = None if valid is None else resize_mask(valid, (256, 256))
        else:
            mask = mask if mask.dtype == torch.bool else mask >= 0.5
        unusable = prob.isnan().flatten(1).any(1)
        prob = resize_map(prob.nan_to_num(0.0), (mask.shape[1], mask.shape[2]))
        if self.protocol == "trufor":
            band = ignore_border(mask)
            valid = band if valid is None else valid & band
        self.bins += self._binned(prob, mask, valid).to(self.bins)
        fake = label == 1
        some = None if valid is None else valid[fake]
        exact = torch.full((len(prob), len(Curves._fields) + len(BENCO)), math.nan, dtype=torch.float64, device=where)
        exact[fake, : len(Curves._fields)] = torch.stack(curves(prob[fake], mask[fake], some), 1)
        if self.protocol == "benco":
            inverse = 1 - prob
            own = [sum_auroc(one[fake], mask[fake], some) for one in (prob, inverse)]
            verdict = counts(inverse[fake], mask[fake], some).T[:2].double()
            exact[fake, len(Curves._fields) :] = torch.stack([*own, *verdict], 1)
        count = counts(prob, mask, valid).double()
        count[unusable], exact[unusable] = math.nan, math.nan
        self.add_rows(index, label, count, exact)

    def _binned(self, prob: Tensor, mask: Tensor, valid: Tensor | None) -> Tensor:
        """Return how many pixels lie in each bin, first of the real, then of the manipulated ones: int64 (2 BINS,)."""
        place = (prob * BINS).long().clamp(0, BINS - 1) + BINS * mask
        place = place.flatten() if valid is None else place[valid]
        return torch.bincount(place, minlength=2 * BINS)

    def rows(self) -> dict[str, Tensor]:
        """Return what is known of every image of all ranks, (N,) each, on the CPU, by rising index.

        ``index`` int64; float64 are ``label``, the counts ``tp``, ``fp``, ``fn``, ``tn``, and ``iou``, ``pbca``,
        ``f1``, ``best_f1``, ``ap``, ``auroc`` as the protocol has them. An index that came twice is there once. All
        ranks must call it together, except after `compute()`.
        """
        index, numbers = self.gathered()
        column = dict(zip(COLUMNS, numbers.T, strict=True))
        counted = {name: column[name] for name in ("label", "tp", "fp", "fn", "tn")}
        return {"index": index} | counted | self._by_image(column)

    def _by_image(self, column: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the measures of each image from its counts."""
        tp, fp, fn, tn = (column[name] for name in ("tp", "fp", "fn", "tn"))
        measures = [self._counted(tp, fp, fn, tn), self._counted(fn, tn, tp, fp)]  # as it is, and turned round
        measures[0] |= {name: column[name] for name in ("best_f1", "ap", "auroc")}
        measures[1] |= {"best_f1": column["inverse_best_f1"], "ap": column["ap"], "auroc": 1 - column["auroc"]}
        if self.protocol == "benco":
            measures[0]["auroc"] = column["sum_auroc"]
            measures[1]["auroc"] = column["inverse_sum_auroc"]
            found, wrong = column["inverse_tp"], column["inverse_fp"]
            # of its IoU alone: the map is turned round before the threshold; for F1 and accuracy it is the verdict
            measures[1]["iou"] = self._counted(found, wrong, tp + fn - found, fp + tn - wrong)["iou"]
        if self.empty == "zero":
            for one in measures:
                one["best_f1"] = torch.where(tp + fn == 0, 0.0, one["best_f1"])
        best = {name: torch.maximum(measures[0][name], measures[1][name]) for name in measures[0]}
        if self.protocol == "trufor":
            return measures[0] | {name: best[name] for name in ("f1", "best_f1")}
        return {"origin": measures[0], "reverse": measures[1], "double": best}[self.invert]

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
        empty, unusable = int((area[fake] == 0).sum()), int(area.isnan().sum())
        if not int(fake.sum()):
            rank_zero_warn(f"{self.where}no fake with a mask; metrics of maps are NaN")
        elif empty:
            said = {"skip": "are left out", "zero": "count 0", "one": "count 1 where nothing is found, else 0"}
            rank_zero_warn(
                f"{self.where}{empty} of {int(fake.sum())} fakes have an empty mask; they {said[self.empty]}"
            )
        if unusable:
            rank_zero_warn(f"{self.where}{unusable} of {len(area)} maps hold NaN; they make the means NaN")


def _mean(values: Tensor, area: Tensor) -> Tensor:
    """Return the correctly rounded mean of what is defined; NaN of nothing, and where a map held NaN (its area is)."""
    known = values[~values.isnan()].tolist()
    mean = math.fsum(known) / len(known) if known and not bool(area.isnan().any()) else math.nan
    return torch.tensor(mean, dtype=torch.float64)


def _pooled(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Return AP and AUROC of counts by bin, (BINS,) float64 each, from the lowest bin."""
    gain, step = fake.double().flip(0), real.double().flip(0)
    tp, fp = gain.cumsum(0), step.cumsum(0)
    ap = (gain * tp / (tp + fp).clamp(min=1)).sum() / tp[-1]
    auroc = (step * (2 * tp - gain)).sum() / (2 * tp[-1] * fp[-1])
    return {"ap": torch.where(fp[-1] > 0, ap, math.nan), "auroc": auroc}
