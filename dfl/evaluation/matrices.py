"""Plots of matrices of numbers: what was tested on what, and which class is called which."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dfl.evaluation import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


#: Width of a column of a heat map in inches.
CELL = 0.5


def heat_map(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    columns: Sequence[str],
    groups: Sequence[Sequence[str]],
    label: str,
    framed: Collection[tuple[str, str]] = (),
) -> "Figure":
    """Draw matrices of one scale, side by side up to 12 columns each and else one below the other, with all numbers.

    Args:
        panels: Title -> name of a row -> one value for each column; cells of NaN have no colour.
        columns: Names above the columns.
        groups: Names of the rows, from above, with a gap between two groups.
        label: What the values are. Colours go from the tenth below to the tenth above all of them.
        framed: (row, column) of the cells with a frame.
    """
    across = len(panels) if len(columns) <= 12 else 1
    lines = math.ceil(len(panels) / across)
    turned = max(map(len, columns), default=0) > 13 * CELL
    height = 0.8 + 0.42 * sum(map(len, groups)) + (0.04 * max(map(len, columns)) if turned else 0)
    names = 1.2 + 0.065 * max(len(name) for group in groups for name in group)
    beside = 0.03 * max(map(len, columns)) if turned else 0  # what the name of the last column takes
    drawn = plots.figure(names + across * (CELL * max(2, len(columns)) + beside), 0.7 + lines * height)
    grid = drawn.subplots(lines, across, squeeze=False, sharey=True)
    limits = plots.tenths(v for values in panels.values() for row in values.values() for v in row)
    for place, (title, values) in enumerate(panels.items()):
        own = grid.flatten()[place]
        mesh = _matrix(own, values, columns, groups, limits, framed)
        plots.style(own, title, "tested on" if place < across else "", "method" if place % across == 0 else "")
        own.grid(False)
        words: dict[str, Any] = {"rotation": 35, "ha": "left"} if turned else {}
        own.set_xticks(range(len(columns)), [plots.plain(name) for name in columns], **words)
        own.xaxis.tick_top()
        own.xaxis.set_label_position("top")
        own.tick_params(length=0)
        own.spines[:].set_visible(False)
    bar = drawn.colorbar(mesh, ax=grid, location="bottom", shrink=0.6, aspect=30)
    bar.set_label(plots.plain(label), fontsize=8, color=plots.INK)
    bar.ax.tick_params(labelsize=7, colors=plots.INK)
    bar.outline.set_visible(False)
    return drawn


def _matrix(
    axes: "Axes",
    values: Mapping[str, Sequence[float]],
    columns: Sequence[str],
    groups: Sequence[Sequence[str]],
    limits: tuple[float, float],
    framed: Collection[tuple[str, str]],
) -> Any:
    """Draw the cells of one matrix and the names of its rows; return what a colour bar needs."""
    from matplotlib.patches import Rectangle

    low, high = limits
    places: list[tuple[float, str]] = []
    for group in groups:
        start = places[-1][0] + 1.25 if places else 0.0
        places += [(start + i, name) for i, name in enumerate(group)]
    edges = np.arange(len(columns) + 1) - 0.5
    looks: dict[str, Any] = {"cmap": "Blues", "vmin": low, "vmax": high, "edgecolors": "white", "linewidth": 1}
    for y, name in places:
        mesh = axes.pcolormesh(edges, [y - 0.48, y + 0.48], [values[name]], **looks)
        for x, value in enumerate(values[name]):
            defined = math.isfinite(value)
            ink = "white" if defined and (value - low) / (high - low) > 0.62 else "black"
            axes.text(x, y, f"{value:.3f}" if defined else "n/a", ha="center", va="center", fontsize=8, color=ink)
            if (name, columns[x]) in framed:
                axes.add_patch(
                    Rectangle((x - 0.46, y - 0.43), 0.92, 0.86, fill=False, edgecolor=plots.FAKE, linewidth=2)
                )
    axes.set_yticks([y for y, _ in places], [plots.plain(name) for _, name in places])
    axes.set_ylim(places[-1][0] + 0.5, -0.5)
    return mesh


def confusion(domains: Mapping[str, np.ndarray], names: Sequence[str]) -> "Figure":
    """Draw how many images of each class are called each class, one plot per domain, shaded by the share of the class.

    Args:
        domains: Counts, integers (K, K) per domain, a row for each class, a column for what it is called.
        names: Of the classes.
    """
    shown = [plots.plain(name) for name in names]
    side = max(2.9, 0.42 * len(names))  # a cell holds four digits
    drawn, grid = plots.panels(len(domains), side, side - 0.1)
    for axes, (domain, counts) in zip(grid, domains.items(), strict=False):
        plots.style(axes, domain, "called", "is")
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
