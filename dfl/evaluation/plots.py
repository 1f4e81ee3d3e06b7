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


def rates(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], kind: Literal["roc", "pr"]) -> "Figure":
    """Draw ROC or precision-recall curves, with a legend below.

    Args:
        curves: Text of the legend -> x and y, float (n,) each.
        kind: Of the curves. ROC goes straight from point to point, and chance is the diagonal; a precision holds up to
            the next recall.
    """
    drawn = figure(4.2, 3.9 + 0.17 * len(curves))
    axes = drawn.subplots()
    style(axes, *RATES[kind])
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
    bins: int = 40,
) -> "Figure":
    """Draw the values of real and of fake images over each other as shares of their class, one plot for each name.

    Args:
        classes: Title of a plot -> values of the real and of the fake images, float (n,) and (m,); what is not finite
            is left out.
        label: What the values are.
        limits: Ends of the axis; by default the least value and the 99.5th percentile of each plot. Values outside
            fall into the bins at the ends.
        threshold: Where a dashed line is drawn unless NaN.
        bins: Of equal width.
    """
    drawn, plots = panels(len(classes), 4.2, 2.2)
    for axes, (name, values) in zip(plots, classes.items(), strict=False):
        style(axes, name, label, "share of the class")
        finite = [part[np.isfinite(part)] for part in values]
        low, high = limits or _ends(np.concatenate(finite))
        edges = np.linspace(low, high, bins + 1)
        for part, word, colour in zip(finite, ("real", "fake"), (REAL, FAKE), strict=True):
            shares = np.histogram(part.clip(low, high), edges)[0] / max(1, len(part))
            axes.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(shares, edges, color=colour, linewidth=1.1, label=f"{word} ({len(part):,})")
        if not math.isnan(threshold):
            axes.axvline(threshold, color="black", linewidth=0.8, linestyle="--", label=f"threshold {threshold:.3f}")
        margin = 0.01 * (high - low)
        axes.set_xlim(low - margin, high + margin)
        axes.legend(fontsize=7, framealpha=0.8, edgecolor="none", loc="upper center")
    return drawn


def _ends(values: np.ndarray) -> tuple[float, float]:
    """Return the least value and the 99.5th percentile, or the unit interval around a constant or nothing."""
    low, high = (float(values.min()), float(np.percentile(values, 99.5))) if len(values) else (0.5, 0.5)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _tenths(values: Iterable[float]) -> tuple[float, float]:
    """Return the tenth below and the tenth above all finite values; 0 and 1 of none."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low = math.floor(10 * min(finite) + 1e-9) / 10
    return low, max(low + 0.1, math.ceil(10 * max(finite) - 1e-9) / 10)


def intervals(
    rows: Mapping[str, tuple[float, float, float]], label: str, line: float = math.nan, title: str = ""
) -> "Figure":
    """Draw a dot with its interval for each name, one under the other.

    Args:
        rows: Name -> (value, low, high) in [0, 1]; a NaN value is written as undefined. The axis goes from the tenth
            below to the tenth above all of them.
        label: What the values are.
        line: Where a dashed line is drawn unless NaN, such as the value of all together.
        title: Above the plot.
    """
    drawn = figure(4.2, (0.95 if title else 0.75) + 0.27 * max(1, len(rows)))
    axes = drawn.subplots()
    style(axes, title, label)
    for place, (value, low, high) in enumerate(rows.values()):
        if math.isnan(value):
            axes.annotate(
                "undefined", (0.02, place), xycoords=("axes fraction", "data"), fontsize=8, color=INK, va="center"
            )
            continue
        axes.plot([low, high], [place, place], color=REAL, linewidth=2, alpha=0.5)
        axes.plot([value], [place], "o", color=REAL, markersize=5)
    if not math.isnan(line):
        axes.axvline(line, color="black", linewidth=0.8, linestyle="--", alpha=0.6)
    low, high = _tenths(v for row in rows.values() for v in row)
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


def heat_map(
    values: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    groups: Sequence[Sequence[str]],
    label: str,
    framed: Collection[tuple[str, str]] = (),
) -> "Figure":
    """Draw a matrix of what was trained on (rows) and tested on (columns), each cell with its number.

    Args:
        values: Name of a row -> one value for each column; cells of NaN have no colour.
        columns: Names above the columns.
        groups: Names of the rows, from above, with a gap between two groups.
        label: What the values are. Colours go from the tenth below to the tenth above all of them.
        framed: (row, column) of the cells with a frame.
    """
    from matplotlib.patches import Rectangle

    drawn = figure(1.8 + 0.8 * max(2, len(columns)), 1.5 + 0.42 * sum(map(len, groups)))
    axes = drawn.subplots()
    style(axes, x="tested on", y="trained on")
    axes.grid(False)
    low, high = _tenths(v for row in values.values() for v in row)
    places: list[tuple[float, str]] = []
    for group in groups:
        start = places[-1][0] + 1.25 if places else 0.0
        places += [(start + i, name) for i, name in enumerate(group)]
    for y, name in places:
        mesh = axes.pcolormesh(
            np.arange(len(columns) + 1) - 0.5,
            [y - 0.48, y + 0.48],
            [values[name]],
            cmap="Blues",
            vmin=low,
            vmax=high,
            edgecolors="white",
            linewidth=1,
        )
        for x, value in enumerate(values[name]):
            defined = math.isfinite(value)
            ink = "white" if defined and (value - low) / (high - low) > 0.62 else "black"
            axes.text(x, y, f"{value:.3f}" if defined else "n/a", ha="center", va="center", fontsize=8, color=ink)
            if (name, columns[x]) in framed:
                axes.add_patch(Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, fill=False, edgecolor=FAKE, linewidth=2))
    turned = max(map(len, columns), default=0) > 10
    words: dict[str, Any] = {"rotation": 35, "ha": "left"} if turned else {}
    axes.set_xticks(range(len(columns)), [plain(name) for name in columns], **words)
    axes.set_yticks([y for y, _ in places], [plain(name) for _, name in places])
    axes.set_ylim(places[-1][0] + 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = drawn.colorbar(mesh, ax=axes, location="bottom", shrink=0.6, aspect=30)
    bar.set_label(plain(label), fontsize=8, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)
    return drawn


def confusion(domains: Mapping[str, np.ndarray], names: Sequence[str]) -> "Figure":
    """Draw how many images of each class are called each class, one plot per domain, shaded by the share of the class.

    Args:
        domains: Counts, integers (K, K) per domain, a row for each class, a column for what it is called.
        names: Of the classes.
    """
    shown = [plain(name) for name in names]
    drawn, plots = panels(len(domains), 2.9, 2.8)
    for axes, (domain, counts) in zip(plots, domains.items(), strict=False):
        style(axes, domain, "called", "is")
        images = counts.sum(1, keepdims=True)
        share = counts / images.clip(1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.grid(False)
        axes.set_xticks(range(len(names)), shown)
        axes.set_yticks(range(len(names)), shown, rotation=90, va="center")
        for (i, j), part in np.ndenumerate(share):
            text = f"{int(counts[i, j]):,}" + (f"\n{part:.0%}" if images[i] else "")  # no share of no image
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white" if part > 0.5 else "black")
    return drawn


def image_grid(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 8) -> "Figure":
    """Draw images in a grid, each under its title.

    Args:
        images: uint8 (H, W, 3) each, sizes may differ.
        titles: One per image, at most about 20 characters a line.
        columns: Images per line.
    """
    lines = max(1, math.ceil(len(images) / columns))
    drawn = figure(1.35 * columns, 1.65 * lines)
    plots = drawn.subplots(lines, columns, squeeze=False).flatten()
    for axes in plots:
        axes.set_axis_off()
    for axes, image, title in zip(plots, images, titles, strict=False):
        axes.imshow(image)
        axes.set_title(plain(title), fontsize=6.5, pad=3)
    return drawn


def to_png(drawn: "Figure") -> bytes:
    """Return a figure as a PNG file, at twice the pixels that it takes on a page."""
    file = io.BytesIO()
    drawn.savefig(file, format="png", dpi=192)
    return file.getvalue()


def to_svg(drawn: "Figure") -> str:
    """Return a figure as an SVG file, the same bytes each time, with its words as text."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dfl"}):
        drawn.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def to_array(drawn: "Figure") -> np.ndarray:
    """Return a figure as pixels, uint8 (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
