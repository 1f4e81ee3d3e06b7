"""Figures of a validation or test: ROC, precision-recall, score histograms, and the images a detector got most wrong.

Every function takes the rows of `Detection.rows()` and returns a matplotlib `Figure` that belongs to nobody: no pyplot,
no global state, so that a callback can draw in the middle of training. matplotlib comes with the extra `report`;
`MATPLOTLIB` is false where it is missing, and drawing then raises UserError. Colours are Okabe and Ito's, which
colour-blind readers can tell apart; from the ninth domain on the line style changes too.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor
from torch.utils.data import default_collate

from dfl.distributed import is_sharded
from dfl.errors import UserError
from dfl.metrics import auroc, average_precision, pr_curve, resize_map, roc_curve

MATPLOTLIB = RequirementCache("matplotlib>=3.9")
if MATPLOTLIB:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

MISSING = "figures need matplotlib; install it with: pip install 'dfl[report]'"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
REAL, FAKE = COLOURS[0], COLOURS[1]
STYLES = ("-", "--", ":")
INK = "#444444"

Rows = Mapping[str, Tensor]


def _plain(name: str) -> str:
    """Return a name that matplotlib draws as it is: between two dollars it would read formulas, and hide ``_name``."""
    return " " * name.startswith("_") + name.replace("$", r"\$")


def _figure(width: float, height: float) -> "Figure":
    """Return an empty figure of this size in inches, with a canvas that can draw it."""
    if not MATPLOTLIB:
        raise UserError(MISSING)
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _style(axes: "Axes", title: str, x: str, y: str) -> None:
    """Give one plot its small fonts, light grid and quiet frame."""
    axes.set_title(_plain(title), fontsize=9, loc="left", color="black")
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.set_ylabel(y, fontsize=8, color=INK)
    axes.tick_params(labelsize=7, colors=INK, length=2)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")


def _curves(domains: Mapping[str, Rows], title: str, x: str, y: str, pr: bool) -> "Figure":
    """Draw one curve per domain with its area in the legend; a domain of one class has none and says so."""
    figure = _figure(4.6, 4.2 + 0.17 * len(domains))
    axes = figure.subplots()
    _style(axes, title, x, y)
    for place, (domain, rows) in enumerate(domains.items()):
        score, label = rows["score"], rows["label"]
        area = float((average_precision if pr else auroc)(score, label))
        across, up = (pr_curve if pr else roc_curve)(score, label)
        axes.plot(
            across.numpy(),
            up.numpy(),
            color=COLOURS[place % len(COLOURS)],
            linestyle=STYLES[place // len(COLOURS) % len(STYLES)],
            linewidth=1.4,
            drawstyle="steps-pre" if pr else "default",
            label=f"{_plain(domain)}  " + ("one class only" if math.isnan(area) else f"{area:.3f}"),
        )
    if not pr:
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle=(0, (4, 4)))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    figure.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=1 if len(domains) < 4 else 2)
    return figure


def roc(domains: Mapping[str, Rows]) -> "Figure":
    """Draw the ROC curves of all domains in one plot, with AUROC in the legend."""
    return _curves(domains, "ROC (AUROC)", "false positive rate", "true positive rate", pr=False)


def pr(domains: Mapping[str, Rows]) -> "Figure":
    """Draw the precision-recall curves of all domains in one plot, with average precision in the legend."""
    return _curves(domains, "Precision-recall (AP)", "recall", "precision", pr=True)


def _panels(n: int, width: float, height: float) -> tuple["Figure", np.ndarray]:
    """Return a figure and its n plots, three in a line, each of a size in inches."""
    columns = min(3, max(1, n))
    lines = max(1, math.ceil(n / columns))
    figure = _figure(width * columns, height * lines)
    plots = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in plots[n:]:
        axes.set_axis_off()
    return figure, plots


def histogram(domains: Mapping[str, Rows], threshold: float = math.nan, bins: int = 40) -> "Figure":
    """Draw the scores of real and of fake images, one plot per domain, as shares of the class.

    Args:
        domains: rows per domain.
        threshold: drawn as a line unless NaN.
        bins: equal-width bins on [0, 1].
    """
    figure, plots = _panels(len(domains), 3.3, 2.3)
    for axes, (domain, rows) in zip(plots, domains.items(), strict=False):
        _style(axes, domain, "score (probability of fake)", "share of the class")
        score, label = rows["score"].numpy(), rows["label"].numpy()
        for value, name, colour in ((0, "real", REAL), (1, "fake", FAKE)):
            part = score[label == value]
            part = part[np.isfinite(part)]
            share = np.full(len(part), 1 / max(1, len(part)))
            edges = np.linspace(0, 1, bins + 1)
            axes.hist(part, edges, weights=share, color=colour, alpha=0.25, histtype="stepfilled")
            axes.hist(
                part,
                edges,
                weights=share,
                color=colour,
                histtype="step",
                linewidth=1.1,
                label=f"{name} ({len(part):,})",
            )
        if not math.isnan(threshold):
            axes.axvline(threshold, color="black", linewidth=0.8, linestyle="--", label=f"threshold {threshold:.3f}")
        axes.set_xlim(-0.01, 1.01)
        axes.legend(fontsize=7, frameon=False, loc="upper center")
    return figure


def confusion(domains: Mapping[str, Tensor], names: Sequence[str]) -> "Figure":
    """Draw how many images of each class are called each class, one plot per domain, shaded by the share of the class.

    Args:
        domains: counts (K, K) per domain, a row for each class, a column for what it is called.
        names: of the classes.
    """
    shown = [_plain(name) for name in names]
    figure, plots = _panels(len(domains), 2.9, 2.8)
    for axes, (domain, counts) in zip(plots, domains.items(), strict=False):
        _style(axes, domain, "called", "is")
        share = (counts.double() / counts.sum(1, keepdim=True)).nan_to_num(0.0).numpy()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set_xticks(range(len(names)), shown)
        axes.set_yticks(range(len(names)), shown, rotation=90, va="center")
        for (i, j), part in np.ndenumerate(share):
            said = f"{int(counts[i, j]):,}" + (f"\n{part:.0%}" if counts[i].sum() else "")  # no share of no image
            ink = "white" if part > 0.5 else "black"
            axes.text(j, i, said, ha="center", va="center", fontsize=7, color=ink)
    return figure


def image_grid(images: Sequence[Tensor], titles: Sequence[str], columns: int = 8) -> "Figure":
    """Draw images in a grid, each under its title.

    Args:
        images: uint8 (3, H, W) each, sizes may differ.
        titles: one per image; keep them to about 20 characters a line.
        columns: images per line.
    """
    lines = max(1, math.ceil(len(images) / columns))
    figure = _figure(1.35 * columns, 1.65 * lines)
    plots = figure.subplots(lines, columns, squeeze=False).flatten()
    for axes in plots:
        axes.set_axis_off()
    for axes, image, title in zip(plots, images, titles, strict=False):
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_title(_plain(title), fontsize=6.5, pad=3)
    return figure


def most_wrong(rows: Rows, k: int, label: int | None = None) -> Tensor:
    """Return the places in `rows` of the k images whose score is farthest from their label, farthest first.

    Args:
        rows: of one domain.
        k: at most so many.
        label: only images of this label; None takes both.
    """
    wrong = (rows["score"] - rows["label"]).abs().nan_to_num(nan=2.0)  # a NaN score is the worst
    if label is not None:
        wrong = wrong.masked_fill(rows["label"] != label, -1.0)
    order = wrong.argsort(descending=True, stable=True)[:k]
    return order[wrong[order] >= 0]


def wrong_images(dataset: Any, rows: Rows, k: int) -> tuple[list[Tensor], list[str]]:
    """Read the k most wrong images again through their data set, with titles for `image_grid`.

    Args:
        dataset: `dataset[i]` is a batch row with `image` uint8 (3, H, W) and `path`.
        rows: of the same domain.
        k: at most so many.
    """
    images, titles = [], []
    for place in most_wrong(rows, k).tolist():
        item = dataset[int(rows["index"][place])]
        name = Path(str(item.get("path", ""))).name
        short = name if len(name) <= 18 else f"{name[:8]}…{name[-9:]}"
        images.append(item["image"])
        titles.append(f"{('real', 'fake')[int(rows['label'][place])]}  {float(rows['score'][place]):.3f}\n{short}")
    return images, titles


class Example(NamedTuple):
    """A fake with its mask and map: uint8 (3, H, W), float32 (H, W) twice, and what is known of it."""

    image: Tensor
    mask: Tensor
    prob: Tensor
    iou: float
    score: float
    path: str


def by_iou(rows: Rows, k: int) -> list[int]:
    """Return the places in `Localization.rows()` of the k best and the k worst fakes, best first, none twice."""
    known = ((rows["label"] == 1) & ~rows["iou"].isnan()).nonzero().flatten()
    order = known[rows["iou"][known].argsort(descending=True, stable=True)].tolist()
    return order if len(order) <= 2 * k else order[:k] + order[len(order) - k :]


def ask(module: Any, item: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a detector answers for one sample of a data set, in eval mode and without gradients; N is 1."""
    batch = default_collate([{k: v for k, v in item.items() if k not in ("bad", "training")}])
    batch = {k: v.to(module.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    batch = module.on_after_batch_transfer(batch, 0)
    training = module.training
    module.eval()
    with torch.no_grad():
        out = module.outputs(batch)
    module.train(training)
    return out


def map_examples(module: Any, dataset: Any, rows: Rows, scores: Rows, k: int) -> list[Example]:
    """Run a detector again on its k best and k worst maps, best first; none where weights are cut among ranks.

    Args:
        module: a detector that gives ``mask_logit``.
        dataset: `dataset[i]` is a batch row with ``image`` uint8 (3, H, W), ``mask`` (H, W) and ``path``.
        rows: `Localization.rows()` of the domain.
        scores: `Detection.rows()` of the domain.
        k: at most so many of each.
    """
    if is_sharded(module):
        return []
    score = dict(zip(scores["index"].tolist(), scores["score"].tolist(), strict=True))
    found = []
    for place in by_iou(rows, k):
        index = int(rows["index"][place])
        item = dataset[index]
        size = (item["mask"].shape[0], item["mask"].shape[1])
        prob = resize_map(ask(module, item)["mask_logit"].float().sigmoid().cpu(), size)[0].clamp(0, 1)
        image, mask, prob = (without_padding(x, item.get("extent")) for x in (item["image"], item["mask"], prob))
        iou = float(rows["iou"][place])
        found.append(Example(image, mask, prob, iou, score.get(index, math.nan), str(item["path"])))
    return found


def without_padding(planes: Tensor, extent: Tensor | None) -> Tensor:
    """Return planes (..., H, W) cut to the rows and columns (2,) that are no padding; all of them without an extent."""
    return planes if extent is None else planes[..., : int(extent[0]), : int(extent[1])]


def overlay(image: Tensor, prob: Tensor, most: float = 0.65) -> Tensor:
    """Lay a map (H, W) over an image uint8 (3, H, W): the surer, the more vermilion; uint8 (3, H, W)."""
    colour = torch.tensor([int(FAKE[i : i + 2], 16) for i in (1, 3, 5)]).view(3, 1, 1)
    share = most * prob.clamp(0, 1)
    return (image * (1 - share) + colour * share).round().to(torch.uint8)


def panels(example: Example) -> dict[str, Tensor]:
    """Return image, mask, map and overlay, uint8 (3, H, W) each."""
    gray = [(255 * x).round().to(torch.uint8).expand(3, -1, -1) for x in (example.mask, example.prob)]
    laid = overlay(example.image, example.prob)
    return {"image": example.image, "mask": gray[0], "map": gray[1], "overlay": laid}


def map_grid(examples: Sequence[Example]) -> "Figure":
    """Draw image, mask, map and overlay of each example, two examples a line, with its IoU."""
    images, titles = [], []
    for one in examples:
        for name, picture in panels(one).items():
            images.append(picture)
            titles.append(f"map, IoU {one.iou:.3f}" if name == "map" else name)
    return image_grid(images, titles)


def to_png(figure: "Figure") -> bytes:
    """Return the figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def to_array(figure: "Figure") -> np.ndarray:
    """Return the figure as pixels, uint8 (H, W, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
