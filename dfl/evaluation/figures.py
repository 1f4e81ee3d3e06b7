"""Figures of a validation or test, from the rows of `Detection.rows()` of each domain."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from dfl.evaluation import plots
from dfl.evaluation.examples import MapExample, pixels
from dfl.metrics import auroc, auroc_interval, average_precision, pr_curve, roc_curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Mapping[str, Tensor]
#: Of log-odds (N,) and label (N,).
Area = Callable[[Tensor, Tensor], Tensor]
Curve = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def areas(domains: Mapping[str, Rows]) -> "Figure":
    """Draw AUROC of every domain with its 95 % interval."""
    shown = {}
    for domain, rows in domains.items():
        low, high = auroc_interval(rows["logit"], rows["label"], rows["video"])
        shown[domain] = (float(auroc(rows["logit"], rows["label"])), low, high)
    return plots.intervals(shown, "AUROC, with its 95 % interval", title="AUROC by domain")


def roc(domains: Mapping[str, Rows]) -> "Figure":
    """Draw the ROC curves of all domains in one plot, with AUROC in the legend."""
    return plots.rates(_curves(domains, auroc, roc_curve), "roc")


def pr(domains: Mapping[str, Rows]) -> "Figure":
    """Draw the precision-recall curves of all domains in one plot, with average precision in the legend."""
    return plots.rates(_curves(domains, average_precision, pr_curve), "pr")


def _curves(domains: Mapping[str, Rows], area_of: Area, curve_of: Curve) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return x and y by domain and area; a domain of one class has an empty curve and says so."""
    curves = {}
    for domain, rows in domains.items():
        area = float(area_of(rows["logit"], rows["label"]))
        x, y = curve_of(rows["logit"], rows["label"])
        curves[f"{domain}  {'one class only' if math.isnan(area) else f'{area:.3f}'}"] = (x.numpy(), y.numpy())
    return curves


def scores(domains: Mapping[str, Rows], threshold: float = math.nan) -> "Figure":
    """Draw the scores of real and of fake images, one plot per domain; the threshold is a line unless NaN."""
    classes = {
        domain: (rows["score"][rows["label"] == 0].numpy(), rows["score"][rows["label"] == 1].numpy())
        for domain, rows in domains.items()
    }
    return plots.histograms(classes, "score (probability of fake)", (0.0, 1.0), threshold)


def wrong_grid(items: Sequence[tuple[Mapping, float]]) -> "Figure":
    """Draw images with their label, score and the end of their names, of `Examples.most_wrong`."""
    titles = []
    for item, score in items:
        name = str(item.get("path", "")).rpartition("/")[2]
        short = name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}"
        titles.append(f"{('real', 'fake')[int(item['label'])]}  {score:.3f}\n{short}")
    return plots.image_grid([pixels(item["image"]) for item, _ in items], titles)


def map_grid(examples: Sequence[MapExample]) -> "Figure":
    """Draw image, mask, map and overlay of each example, two examples a line, with its IoU."""
    images, titles = [], []
    for one in examples:
        for name, picture in one.pictures().items():
            images.append(picture)
            titles.append(f"map, IoU {one.iou:.3f}" if name == "map" else name)
    return plots.image_grid(images, titles)
