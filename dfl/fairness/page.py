"""The audit for the eye: one page that needs nothing else, and the tables of the terminal."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dfl.evaluation import html, plots
from dfl.evaluation.results import terminal_table
from dfl.metrics.fairness import TOGETHER
from dfl.metrics.names import FAIRNESS, About
from dfl.terminal import console

NAMES = {"fpr": "FPR", "tpr": "TPR", "acc": "accuracy", "positive": "called fake", "auroc": "AUROC"}
MEASURES = FAIRNESS | {
    "gap_fpr": About("gap FPR", "largest difference of FPR between groups", "min"),
    "gap_tpr": About("gap TPR", "largest difference of TPR between groups", "min"),
}
ABOUT_RATES = (
    "FPR: share of real images that are called fake. TPR: share of fakes that are found. Brackets hold 95 % intervals, "
    "from images drawn anew inside each group and class."
)
ABOUT_GAPS = (
    "By chance: what the measure is on average when verdicts have nothing to do with groups; it is above 0, and the "
    "more so the smaller the groups. p: how often chance gives as much, not corrected for the number of measures. "
    "AUROC depends on no threshold and is not tested."
)


def page(content: Mapping[str, Any], source: str) -> str:
    """Return the whole page.

    Args:
        content: Of `dfl.fairness.examine.examine`.
        source: Where the scores are from.
    """
    findings = "".join(f'<li class="{f["severity"]}">{html.text(f["text"])}</li>' for f in content["findings"])
    return html.document(
        "Audit by group",
        [
            f"<p class=soft>{html.text(source)} · {content['images']:,} images · fake from a score of "
            f"{content['threshold']:.4f} ({html.text(content['threshold_from'])}) · {content['resamples']:,} "
            f"resamples, seed {content['seed']}</p>",
            f"<h2>Findings</h2><ul class=findings>{findings}</ul>",
            *(
                part
                for domain, one in content["domains"].items()
                for part in _domain(domain, one, content["threshold"])
            ),
        ],
    )


def _domain(domain: str, one: Mapping[str, Any], threshold: float) -> Iterator[str]:
    yield (
        f"<h2>{html.text(domain)}</h2><p class=soft>{one['real']:,} real and {one['fake']:,} fake images, AUROC "
        f"{_number(one['auroc'])}. {ABOUT_RATES}</p>"
    )
    for attribute, by in one["attributes"].items():
        yield f"<h3>By {html.text(attribute)}</h3>"
        lines = []
        for name, own in by["groups"].items():
            why = [by["left_out"].get(name, "")] if by["left_out"] else []
            counts = [f"{own[label]:,}" for label in ("real", "fake")]
            lines.append([name, *counts, *(_interval(own[rate]) for rate in NAMES), *why])
        yield html.table(["group", "real", "fake", *NAMES.values(), *(["left out"] if by["left_out"] else [])], lines)
        yield _figures(by, threshold)
        lines = []
        for name, gap in by["gaps"].items():
            numbers = [_interval(gap), _number(gap.get("by_chance")), _number(gap.get("p"), ".2g")]
            lines.append([MEASURES[name].label, *numbers, MEASURES[name].meaning])
        table = html.table(["measure", "value", "by chance", "p", "what it is"], lines)
        yield f"<h3>How far they lie apart</h3>{table}<p class=soft>{ABOUT_GAPS}</p>"
        lines = []
        for test in by["tests"]:
            numbers = [_number(test["value"]), _number(test["others"]), f"{test['n']:,}", f"{test['n_others']:,}"]
            numbers += [_number(test[name], ".2g") for name in ("p", "p_corrected")]
            lines.append([test["group"], NAMES[test["rate"]], *numbers])
        if lines:
            head = ["group", "rate", "value", "the others", "images", "of the others", "p", "p corrected"]
            yield f"<h3>Each group against the others</h3>{html.table(head, lines)}"


def _figures(by: Mapping[str, Any], threshold: float) -> str:
    drawn = {}
    for rate in ("fpr", "tpr", "auroc"):
        dots = {name: (own[rate]["value"], own[rate]["low"], own[rate]["high"]) for name, own in by["groups"].items()}
        together = dots.pop(TOGETHER)
        drawn[f"{NAMES[rate]} by group"] = plots.intervals(dots, NAMES[rate], together[0])
    curves = {MEASURES[name].label: np.array(by["curves"][name]) for name in ("gap_fpr", "gap_tpr", "F_FPR")}
    at = np.array(by["curves"]["threshold"])
    drawn["Differences by threshold"] = plots.lines(at, curves, "threshold", {"in use": threshold})
    return html.figures(drawn)


def show(content: Mapping[str, Any]) -> None:
    """Print a table for each attribute of each domain, then the findings."""
    out = console(160)
    for domain, one in content["domains"].items():
        for attribute, by in one["attributes"].items():
            table = terminal_table("group", "real", "fake", "FPR", "TPR", "AUROC", title=f"{domain}, by {attribute}")
            for name, own in by["groups"].items():
                if name == TOGETHER:
                    table.add_section()
                cells = [_interval(own[rate]) for rate in ("fpr", "tpr", "auroc")]
                table.add_row(name, f"{own['real']:,}", f"{own['fake']:,}", *cells)
            out.print(table)
    for finding in content["findings"]:
        mark = {"error": "error: ", "warning": "! "}.get(finding["severity"], "  ")
        out.print(f"{mark}{finding['text']}", soft_wrap=True)


def _number(value: float | None, form: str = ".4f") -> str:
    return "" if value is None else "n/a" if math.isnan(value) else f"{value:{form}}"


def _interval(one: Mapping[str, float]) -> str:
    if math.isnan(one["value"]):
        return "n/a"
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
