"""Plots of plain numbers, for the report, TensorBoard, the audit, the matrix and the check of a data set.

Each function takes NumPy arrays and returns a matplotlib ``Figure`` of its own: no pyplot, no global state, so that a
callback can draw in the middle of training. matplotlib is imported at the first plot. Colours are Okabe and Ito's,
which colour-blind readers can tell apart; from the ninth curve on the line style changes too.
"""

import io
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
REAL, FAKE = COLOURS[0], COLOURS[1]
STYLES = ("-", "--", ":")
INK = "#444444"


def plain(name: str) -> str:
    """Return a name that matplotlib draws as it is: between two dollars it would read formulas, and hide ``_name``."""
    return " " * name.startswith("_") + name.replace("$", r"\$")


def figure(width: float, height: float) -> "Figure":
    """Return an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")


def panels(n: int, width: float, height: float, columns: int = 3) -> "tuple[Figure, list[Axes]]":
    """Return a figure and its n plots, each of a size in inches, at most ``columns`` side by side."""
    columns = min(columns, max(1, n))
    lines = max(1, math.ceil(n / columns))
    whole = figure(width * columns, height * lines)
    plots = whole.subplots(lines, columns, squeeze=False).flatten().tolist()
    for axes in plots[n:]:
        axes.set_axis_off()
    return whole, plots


def style(axes: "Axes", title: str = "", x: str = "", y: str = "") -> None:
    """Give one plot its title, small fonts, light grid and thin frame."""
    axes.set_title(plain(title), fontsize=9, loc="left", color="black")
    axes.set_xlabel(plain(x), fontsize=8, color=INK)
    axes.set_ylabel(plain(y), fontsize=8, color=INK)
    axes.tick_params(labelsize=8, colors=INK, length=2)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")


def looks(place: int) -> dict[str, Any]:
    """Return colour and line style of the curve at a place in a plot."""
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": STYLES[place // len(COLOURS) % len(STYLES)]}


#: Title, x and y of curves in the unit square.
RATES = {
    "roc": ("ROC (AUROC)", "false positive rate", "true positive rate"),
    "pr": ("Precision-recall (AP)", "recall", "precision"),
}


def rates(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], kind: Literal["roc", "pr"], title: str = "") -> "Figure":
    """Draw ROC or precision-recall curves, with a legend below.

    Args:
        curves: Text of the legend -> x and y, float (n,) each.
        kind: Of the curves. ROC goes straight from point to point, and chance is the diagonal; a precision holds up to
            the next recall.
        title: Before that of the kind.
    """
    drawn = figure(4.2, 3.9 + 0.17 * len(curves))
    axes = drawn.subplots()
    style(axes, title + RATES[kind][0], *RATES[kind][1:])
    for place, (label, (x, y)) in enumerate(curves.items()):
        steps = "steps-pre" if kind == "pr" else "default"
        axes.plot(x, y, **looks(place), linewidth=1.4, drawstyle=steps, label=plain(label))
    if kind == "roc":
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle=(0, (4, 4)))
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    drawn.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=1 if len(curves) < 4 else 2)
    return drawn


def histograms(
    classes: Mapping[str, tuple[np.ndarray, np.ndarray]],
    label: str,
    limits: tuple[float, float] | None = None,
    threshold: float = math.nan,
) -> "Figure":
    """Draw the values of real and of fake images over each other as shares of their class, one plot for each name.

    Args:
        classes: Title of a plot -> values of the real and of the fake images, float (n,) and (m,); what is not finite
            is left out.
        label: What the values are.
        limits: Ends of the axis; by default the least value and the 99.5th percentile of each plot. Values outside
            fall into the bins at the ends.
        threshold: Where a dashed line is drawn unless NaN.
    """
    drawn, plots = panels(len(classes), 4.2, 2.2)
    for axes, (name, values) in zip(plots, classes.items(), strict=False):
        style(axes, name, label, "share of the class")
        finite = [part[np.isfinite(part)] for part in values]
        low, high = limits or _ends(np.concatenate(finite))
        edges = np.linspace(low, high, 41)
        real, fake = (np.histogram(part.clip(low, high), edges)[0] for part in finite)
        stairs(axes, edges, real, fake)
        if not math.isnan(threshold):
            axes.axvline(threshold, color="black", linewidth=0.8, linestyle="--", label=f"threshold {threshold:.3f}")
        margin = 0.01 * (high - low)
        axes.set_xlim(low - margin, high + margin)
        axes.legend(fontsize=7, framealpha=0.8, edgecolor="none", loc="upper center")
    return drawn


def stairs(axes: "Axes", edges: np.ndarray, real: np.ndarray, fake: np.ndarray, dashed: bool = False) -> None:
    """Draw counts of both classes as shares of their class: filled, or as dashed lines.

    Args:
        axes: Where to.
        edges: Of the bins, float (bins + 1,).
        real: Counts, (bins,).
        fake: Counts, (bins,).
        dashed: Lines alone, without an entry in the legend.
    """
    for counts, word, colour in ((real, "real", REAL), (fake, "fake", FAKE)):
        n = int(np.sum(counts))
        shares = np.asarray(counts) / max(1, n)
        if dashed:
            axes.stairs(shares, edges, color=colour, linewidth=1, linestyle=(0, (2, 1.5)))
        else:
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(shares, edges, color=colour, linewidth=1.1, label=f"{word} ({n:,})")


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Return the least value and the 99.5th percentile, or the unit interval around a constant or nothing."""
    low, high = (float(values.min()), float(np.percentile(values, 99.5))) if len(values) else (0.5, 0.5)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def tenths(values: Iterable[float]) -> tuple[float, float]:
    """Return the tenth below and the tenth above all finite values; 0 and 1 of none."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low = math.floor(10 * min(finite) + 1e-9) / 10
    return low, max(low + 0.1, math.ceil(10 * max(finite) - 1e-9) / 10)


def intervals(
    rows: Mapping[str, tuple[float, float, float]],
    label: str,
    line: float = math.nan,
    title: str = "",
    marked: Collection[str] = (),
) -> "Figure":
    """Draw a dot with its interval for each name, one under the other.

    Args:
        rows: Name -> (value, low, high); a NaN value is written as undefined. The axis goes from the tenth
            below to the tenth above all of them.
        label: What the values are.
        line: Where a dashed line is drawn unless NaN, such as the value of all together.
        title: Above the plot.
        marked: Names of the rows in the second colour.
    """
    drawn = figure(4.2, (0.95 if title else 0.75) + 0.27 * max(1, len(rows)))
    axes = drawn.subplots()
    style(axes, title, label)
    for place, (name, (value, low, high)) in enumerate(rows.items()):
        if math.isnan(value):
            axes.annotate(
                "undefined", (0.02, place), xycoords=("axes fraction", "data"), fontsize=8, color=INK, va="center"
            )
            continue
        colour = FAKE if name in marked else REAL
        axes.plot([low, high], [place, place], color=colour, linewidth=2, alpha=0.5)
        axes.plot([value], [place], "o", color=colour, markersize=5)
    if not math.isnan(line):
        axes.axvline(line, color="black", linewidth=0.8, linestyle="--", alpha=0.6)
    low, high = tenths(v for row in rows.values() for v in row)
    margin = 0.02 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_yticks(range(len(rows)), [plain(name) for name in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    return drawn


def lines(x: np.ndarray, ys: Mapping[str, np.ndarray], label: str, marks: Mapping[str, float]) -> "Figure":
    """Draw curves over one axis.

    Args:
        x: Rising values, float (n,).
        ys: Name of a curve -> its values, float (n,); it is broken where they are NaN.
        label: What ``x`` is.
        marks: Name -> place on the x axis of a dashed line.
    """
    drawn = figure(4.2, 2.6)
    axes = drawn.subplots()
    style(axes, x=label)
    for place, (name, y) in enumerate(ys.items()):
        axes.plot(x, y, **looks(place), linewidth=1.4, label=plain(name))
    for name, at in marks.items():
        axes.axvline(at, color="black", linewidth=0.8, linestyle="--", label=f"{plain(name)} {at:.3f}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7, frameon=False)
    return drawn


def image_grid(images: Sequence[np.ndarray], titles: Sequence[str]) -> "Figure":
    """Draw images in a grid, eight to a line, each under its title.

    Args:
        images: uint8 (H, W, 3) each, sizes may differ.
        titles: One per image, at most about 20 characters a line.
    """
    lines = max(1, math.ceil(len(images) / 8))
    drawn = figure(1.35 * 8, 1.65 * lines)
    plots = drawn.subplots(lines, 8, squeeze=False).flatten()
    for axes in plots:
        axes.set_axis_off()
    for axes, image, title in zip(plots, images, titles, strict=False):
        axes.imshow(image)
        axes.set_title(plain(title), fontsize=6.5, pad=3)
    return drawn


def to_png(drawn: "Figure") -> bytes:
    """Return a figure as a PNG file of 256 colours, at twice the pixels that it takes on a page."""
    file, small = io.BytesIO(), io.BytesIO()
    drawn.savefig(file, format="png", dpi=192)
    with Image.open(file) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(small, "png", optimize=True)
    return small.getvalue()


def to_array(drawn: "Figure") -> np.ndarray:
    """Return a figure as pixels, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
