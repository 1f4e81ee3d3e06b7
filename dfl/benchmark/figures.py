"""Figures of a benchmark, from its content alone; page and TensorBoard show the same ones.

Each function takes a `Lookup` and returns figures by name, none where the content has nothing for them. A method has
the same colour and line in all of them, by its rank. All but heat maps and ranks are as wide as a phone.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dfl.benchmark.lookup import ALIKE, ALL_FAKE, STORED, TITLES, Lookup, defined, is_defined, number
from dfl.data.chains import FAMILIES
from dfl.evaluation import matrices, plots
from dfl.metrics.names import about

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Figures = dict[str, "Figure"]
#: The most domains with curves and scores, methods in one plot of curves, and methods with a small plot of their own.
MOST_DOMAINS, MOST_LINES, MOST_PANELS = 9, 10, 8
#: Beginning of metrics of maps.
MASKS = "mask_"
#: Differences with a smaller p (Holm) are marked.
LEVEL = 0.05


def heat(look: Lookup, metric: str = "") -> Figures:
    """Draw method x domain, as stored and re-encoded alike beside each other; a frame: part of the training.

    Below the methods, metrics of maps have what a map that calls every pixel fake would get.

    Args:
        look: The content.
        metric: By default the one that methods are ordered by.
    """
    metric = metric or look.metric
    domains = look.domains(metric)
    methods = [m for m in look.methods if any(look.cell(m, d, v, metric) for d in domains for v in look.variants)]
    panels = {v: {m: [look.value(m, d, v, metric) for d in domains] for m in methods} for v in look.variants}
    if not panels or not domains or not methods:
        return {}
    constant = {v: [look.all_fake(d, v, metric) for d in domains] for v in panels}
    groups = [methods]
    if not np.isnan([*constant.values()]).all():
        groups.append([ALL_FAKE])
        panels = {v: rows | {ALL_FAKE: constant[v]} for v, rows in panels.items()}
    framed = {(m, d) for m in methods for d in domains if look.is_within(m, d)}
    label = about(metric).label
    drawn = matrices.heat_map({TITLES[v]: rows for v, rows in panels.items()}, domains, groups, label, framed)
    return {f"{label} of each method on each domain": drawn}


def maps(look: Lookup) -> Figures:
    """Draw the same of the first metric of maps, unless methods are ordered by it."""
    metric = next((name for name in look.rows("metrics") if name.startswith(MASKS)), look.metric)
    return heat(look, metric) if metric != look.metric else {}


def forest(look: Lookup) -> Figures:
    """Draw how far the best method as stored lies above each other one, AUROC, mean over the cross-domain test sets."""
    best, found = next(iter(look.methods), ""), {}
    for variant in () if look.mixed else look.variants:
        rows, marked = {}, set()
        for other in look.methods[1:]:
            if one := look.difference(best, other, variant):
                rows[other] = (defined(one["value"]), defined(one["low"]), defined(one["high"]))
                if defined(one.get("p_holm")) < LEVEL:
                    marked.add(other)
        if rows:
            title, axis = f"{best} minus, {TITLES[variant]}", "difference of AUROC, with its 95 % interval"
            found[_twice("Differences to the best method", variant)] = plots.intervals(rows, axis, 0.0, title, marked)
    return found


def _twice(title: str, variant: str) -> str:
    """Return the name of a figure of one variant."""
    return title if variant == STORED else f"{title}, {TITLES[variant]}"


def rates(look: Lookup) -> dict[str, Figures]:
    """Draw the ROC and the precision-recall curves of all methods, by domain."""
    found: dict[str, Figures] = {}
    kinds: tuple[Literal["roc", "pr"], ...] = ("roc", "pr")
    parts = {"roc": ("fpr", "tpr", "auroc", "ROC curves"), "pr": ("recall", "precision", "ap", "Precision-recall")}
    for domain, methods in _hardest(look, "curves"):
        for kind in kinds:
            x, y, metric, title = parts[kind]
            curves = {
                f"{m}  {number(look.value(m, domain, STORED, metric))}": (
                    _floats(methods[m][x]),
                    _floats(methods[m][y]),
                )
                for m in [name for name in look.methods if methods.get(name)][:MOST_LINES]
            }
            if curves:
                drawn = plots.rates(curves, kind, f"{domain}: ")
                found.setdefault(domain, {})[f"{title}: {domain}"] = drawn
    return found


def scores(look: Lookup) -> Figures:
    """Draw the scores of both classes as stored (filled) and re-encoded alike (dashed), a figure for each domain."""
    found = {}
    for domain, methods in _hardest(look, "histograms"):
        shown = [m for m in look.methods if methods.get(m)][:MOST_PANELS]
        drawn, panels = plots.panels(len(shown), 2.1, 1.5, columns=2)
        for axes, method in zip(panels, shown, strict=False):
            one = methods[method]
            edges = _floats(one["edges"])
            plots.style(axes, method)
            plots.stairs(axes, edges, _floats(one["real"]), _floats(one["fake"]))
            if alike := one.get("alike"):
                plots.stairs(axes, edges, _floats(alike["real"]), _floats(alike["fake"]), dashed=True)
            if is_defined(one.get("threshold")):
                axes.axvline(one["threshold"], color="black", linewidth=0.8, linestyle="--")
            axes.set_yticks([])
        if shown:
            drawn.suptitle(plots.plain(domain), fontsize=10, x=0.02, ha="left")
            handles, labels = panels[0].get_legend_handles_labels()
            drawn.legend(handles, labels, loc="outside lower center", fontsize=7, frameon=False, ncols=2)
            found[f"Scores: {domain}"] = drawn
    return found


def _hardest(look: Lookup, part: str) -> list[tuple[str, Any]]:
    """Return the entries of a part by domain; of too many those where the mean AUROC of all methods is lowest."""
    domains = look.named(part)
    means = {d: np.nanmean([1.0, *(look.value(m, d, STORED, "auroc") for m in look.methods)]) for d in domains}
    kept = sorted(domains, key=means.__getitem__)[:MOST_DOMAINS]
    return [(domain, one) for domain, one in domains.items() if domain in kept]


def robustness(look: Lookup) -> Figures:
    """Draw AUROC over the strength of each family of degradations, a line for each method."""
    families: dict[str, dict[str, dict[Any, float]]] = {}
    for row in look.rows("robustness"):
        families.setdefault(row["family"], {}).setdefault(row["method"], {})[row["strength"]] = defined(row["value"])
    found = {}
    for family, methods in families.items():
        strengths = list(dict.fromkeys(s for own in methods.values() for s in own))
        lines = {m: [methods[m].get(s, math.nan) for s in strengths] for m in look.methods if m in methods}
        words = [f"{s:g}" if isinstance(s, float) else str(s) for s in strengths]
        labels = FAMILIES[family].axis, "AUROC"
        found[f"Robustness: {family}"] = _overlay(look, family, lines, range(len(words)), labels, words)
    return found


def ranks(look: Lookup) -> Figures:
    """Draw the average rank of each method, and a bar over those that do not differ (Demsar 2006)."""
    own = {variant: look.ranks(variant) for variant in look.variants}
    return {
        _twice("Critical difference of ranks", variant): critical_difference(
            one["average"], defined(one["critical"]), TITLES[variant]
        )
        for variant, one in own.items()
        if one.get("average")
    }


def alike_groups(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """Return the longest runs of methods that lie less than the critical difference apart, as first and last place.

    Args:
        ranks: Average ranks, rising.
        critical: The critical difference; NaN gives none.
    """
    runs: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = first + sum(other - rank < critical for other in ranks[first:]) - 1
        if last > first and (not runs or last > runs[-1][1]):
            runs.append((first, last))
    return runs


def critical_difference(average: Mapping[str, float], critical: float, title: str = "") -> "Figure":
    """Draw ranks on a line, names at both sides, and bars under those that do not differ.

    Args:
        average: Method -> average rank, 1 is the best.
        critical: The critical difference of Nemenyi's test; NaN leaves the bars out.
        title: Stands above, before the critical difference.
    """
    order = sorted(average, key=average.__getitem__)
    values = [average[name] for name in order]
    runs, half = alike_groups(values, critical), (len(order) + 1) // 2
    top = 0.5 + 0.35 * len(runs)
    drawn = plots.figure(6.5, 0.9 + 0.22 * (top + half))
    axes = drawn.subplots()
    low, high = 1, max(2, len(order))
    side = 0.06 * (high - low)
    for place, (name, rank) in enumerate(zip(order, values, strict=True)):
        left = place < half
        y = top + 0.5 + (place if left else len(order) - 1 - place)
        end = low - side if left else high + side
        axes.plot([rank, rank, end], [0, y, y], color=plots.INK, linewidth=0.9)
        words = f"{plots.plain(name)}  {rank:.2f}" if left else f"{rank:.2f}  {plots.plain(name)}"
        axes.text(
            end + (-side if left else side) / 4, y, words, ha="right" if left else "left", va="center", fontsize=8
        )
    for place, (first, last) in enumerate(runs):
        y, over = 0.5 + 0.35 * place, 0.012 * (high - low)
        axes.plot([values[first] - over, values[last] + over], [y, y], color=plots.FAKE, linewidth=3.5)
    if critical < high - low:
        axes.plot([low, low + critical], [-1.7, -1.7], "|-", color=plots.FAKE, linewidth=1.5)
    said = [title] * bool(title) + [f"critical difference {critical:.2f}"] * (not math.isnan(critical))
    axes.text(low, -2.1, ": ".join(said), fontsize=8, color=plots.FAKE)
    _rank_axis(axes, low, high, top + half)
    return drawn


def _rank_axis(axes: "Axes", low: int, high: int, bottom: float) -> None:
    """Show ranks above and nothing else."""
    axes.set(xlim=(low, high), ylim=(bottom, -2.6 if high > low else 0))
    axes.spines[["left", "right", "bottom", "top"]].set_visible(False)
    axes.plot([low, high], [0, 0], color=plots.INK, linewidth=1)
    axes.set_yticks([])
    axes.set_xticks([])
    for rank in range(low, high + 1, max(1, (high - low) // 10)):
        axes.plot([rank, rank], [-0.25, 0], color=plots.INK, linewidth=1, clip_on=False)
        axes.text(rank, -0.4, str(rank), ha="center", va="bottom", fontsize=8, color=plots.INK)


def calibration(look: Lookup) -> Figures:
    """Draw reliability diagrams (share of fakes over score; re-encoded alike dashed) and risk over coverage."""
    own = {m: one for m in look.methods if (one := look.calibration(m))}
    if not own:
        return {}
    drawn, panels = plots.panels(min(len(own), MOST_PANELS), 2.1, 2.1, columns=2)
    for axes, (method, one) in zip(panels, own.items(), strict=False):
        score, share, count = (_floats(one["reliability"][name]) for name in ("score", "share", "count"))
        plots.style(axes, method)
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=0.8, linestyle=(0, (4, 4)))
        axes.bar(score, 0.25 * count / max(1, count.max()), 0.04, color="#dddddd")
        axes.plot(score, share, "o-", color=plots.REAL, linewidth=1.2, markersize=3)
        words = f"ECE {number(one['ece'])}"
        if again := look.calibration(method, ALIKE):
            axes.plot(
                *(_floats(again["reliability"][n]) for n in ("score", "share")), "--", color=plots.REAL, linewidth=1
            )
            words += f", {number(again['ece'])}"
        axes.text(0.97, 0.08, words, ha="right", fontsize=8, color=plots.INK)
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    drawn.supxlabel("score", fontsize=8, color=plots.INK)
    drawn.supylabel("share of fakes", fontsize=8, color=plots.INK)
    found = {"Reliability": drawn}
    for variant in look.variants:
        curves = {m: one for m in own if (one := look.calibration(m, variant)).get("coverage")}
        if curves:
            found[_twice("Risk over coverage", variant)] = _overlay(
                look,
                _twice("risk over coverage", variant),
                {m: one["risk"] for m, one in curves.items()},
                {m: one["coverage"] for m, one in curves.items()},
                ("share of images with a verdict", "share of wrong verdicts"),
            )
    return found


def _overlay(
    look: Lookup,
    title: str,
    lines: Mapping[str, Sequence[float]],
    x: Sequence[float] | range | Mapping[str, Sequence[float]],
    labels: tuple[str, str],
    ticks: Sequence[str] = (),
) -> "Figure":
    """Draw a line for each method, with a legend below."""
    drawn = plots.figure(4.2, 2.9 + 0.085 * len(lines))
    axes = drawn.subplots()
    plots.style(axes, title, *labels)
    for method, y in lines.items():
        marker = "o" if ticks else ""
        at = x[method] if isinstance(x, Mapping) else x
        axes.plot(
            _floats(at),
            _floats(y),
            marker=marker,
            markersize=3,
            linewidth=1.4,
            label=plots.plain(method),
            **_line(look, method),
        )
    if ticks:
        axes.set_xticks(range(len(ticks)), [plots.plain(word) for word in ticks])
    drawn.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=2)
    return drawn


def _line(look: Lookup, method: str) -> dict[str, Any]:
    return plots.looks(look.methods.index(method))


def _floats(values: Any) -> np.ndarray:
    """Return numbers as float64 (n,); None, which is how JSON has what is undefined, becomes NaN."""
    return np.array(list(values), np.float64)


def every(look: Lookup) -> Iterator[tuple[str, "Figure"]]:
    """Give all figures with their names, one after the other."""
    parts: Sequence[Callable[[Lookup], Figures]] = (heat, maps, forest, scores, robustness, ranks, calibration)
    for part in parts:
        yield from part(look).items()
    for both in rates(look).values():
        yield from both.items()
