"""The audit for the eye: one page that needs nothing else, and the tables of the terminal."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.table import Table

from dfl.evaluation import html, plots
from dfl.metrics.fairness import TOGETHER
from dfl.metrics.names import FAIRNESS, About
from dfl.terminal import console

NAMES = {"fpr": "FPR", "tpr": "TPR", "acc": "accuracy", "positive": "called fake", "auroc": "AUROC"}
MEASURES = FAIRNESS | {
    "gap_fpr": About("gap FPR", "largest difference of FPR between groups", "min"),
    "gap_tpr": About("gap TPR", "largest difference of TPR between groups", "min"),
}
ABOUT = (
    "FPR: share of real images that are called fake. TPR: share of fakes that are found. Brackets hold 95 % intervals, "
    "from images drawn anew inside each group and class."
)


def page(found: Mapping[str, Any], source: str) -> str:
    """Return the whole page.

    Args:
        found: of `dfl.fairness.examine.examine`.
        source: where the scores are from.
    """
    said = "".join(f'<li class="{f["severity"]}">{html.text(f["text"])}</li>' for f in found["findings"])
    return html.document(
        "Audit by group",
        [
            f"<p class=soft>{html.text(source)} · {found['images']:,} images · fake from a score of "
            f"{found['threshold']:.4f} ({html.text(found['threshold_from'])}) · {found['resamples']:,} resamples, seed "
            f"{found['seed']}</p>",
            f"<h2>Findings</h2><ul class=findings>{said}</ul>",
            *(part for domain, one in found["domains"].items() for part in _domain(domain, one, found["threshold"])),
        ],
    )


def _domain(domain: str, one: Mapping[str, Any], threshold: float) -> Iterator[str]:
    yield (
        f"<h2>{html.text(domain)}</h2><p class=soft>{one['real']:,} real and {one['fake']:,} fake images, AUROC "
        f"{_number(one['auroc'])}. {ABOUT}</p>"
    )
    for attribute, by in one["attributes"].items():
        yield f"<h3>By {html.text(attribute)}</h3>"
        head = ["group", "real", "fake", *NAMES.values(), *(["left out"] if by["left_out"] else [])]
        yield html.table(head, list(_lines(by)))
        yield _figures(by, threshold)
        yield "<h3>How far they lie apart</h3>"
        yield html.table(
            ["measure", "value", "by chance", "p", "what it is"],
            [
                [one.label, _interval(gap), _number(gap.get("by_chance")), _p(gap.get("p")), one.meaning]
                for one, gap in ((MEASURES[name], gap) for name, gap in by["gaps"].items())
            ],
        )
        yield (
            "<p class=soft>By chance: what the measure is on average when verdicts have nothing to do with groups; it "
            "is above 0, and the more so the smaller the groups. p: how often chance gives as much, not corrected for "
            "the number of measures. AUROC depends on no threshold and is not tested.</p>"
        )
        if by["tests"]:
            yield "<h3>Each group against the others</h3>" + html.table(
                ["group", "rate", "value", "the others", "images", "of the others", "p", "p corrected"],
                [
                    [
                        *(test["group"], NAMES[test["rate"]], _number(test["value"]), _number(test["others"])),
                        *(f"{test['n']:,}", f"{test['n_others']:,}", _p(test["p"]), _p(test["p_corrected"])),
                    ]
                    for test in by["tests"]
                ],
            )


def _lines(by: Mapping[str, Any]) -> Iterator[list[str]]:
    for name, own in by["groups"].items():
        cells = [_interval(own[rate]) for rate in NAMES]
        why = [by["left_out"].get(name, "")] if by["left_out"] else []
        yield [name, f"{own['real']:,}", f"{own['fake']:,}", *cells, *why]


def _figures(by: Mapping[str, Any], threshold: float) -> str:
    drawn = {}
    for rate in ("fpr", "tpr", "auroc"):
        rows = {name: own[rate] for name, own in by["groups"].items() if name != TOGETHER}
        dots = {name: (one["value"], one["low"], one["high"]) for name, one in rows.items()}
        drawn[f"{NAMES[rate]} by group"] = plots.intervals(dots, NAMES[rate], by["groups"][TOGETHER][rate]["value"])
    curves = {MEASURES[name].label: np.array(by["curves"][name]) for name in ("gap_fpr", "gap_tpr", "F_FPR")}
    drawn["Differences by threshold"] = plots.lines(
        np.array(by["curves"]["threshold"]), curves, "threshold", {"in use": threshold}
    )
    return html.figures(drawn)


def show(found: Mapping[str, Any]) -> None:
    """Print a table for each attribute of each domain, then the findings."""
    out = console(160)
    for domain, one in found["domains"].items():
        for attribute, by in one["attributes"].items():
            table = Table("group", "real", "fake", "FPR", "TPR", "AUROC", title=f"{domain}, by {attribute}")
            for place, column in enumerate(table.columns):
                column.no_wrap, column.justify = True, "right" if place else "left"
            for name, own in by["groups"].items():
                if name == TOGETHER:
                    table.add_section()
                cells = [_interval(own[rate]) for rate in ("fpr", "tpr", "auroc")]
                table.add_row(name, f"{own['real']:,}", f"{own['fake']:,}", *cells)
            out.print(table)
    for finding in found["findings"]:
        mark = {"error": "error: ", "warning": "! "}.get(finding["severity"], "  ")
        out.print(f"{mark}{finding['text']}", soft_wrap=True)


def _number(value: float | None) -> str:
    return "" if value is None else "n/a" if math.isnan(value) else f"{value:.4f}"


def _interval(one: Mapping[str, float]) -> str:
    if math.isnan(one["value"]):
        return "n/a"
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _p(value: float | None) -> str:
    return "" if value is None else "n/a" if math.isnan(value) else f"{value:.2g}"
