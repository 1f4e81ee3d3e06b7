"""The tables of a benchmark as files: Markdown, LaTeX, CSV and JSON, from its content alone.

What a machine's speed decides (images per second, memory) and the date stand in ``cost.csv`` alone, so that all other
files of one set of predictions have the same bytes each time.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dfl.benchmark.lookup import (
    ALL_FAKE,
    MARK,
    SEEN,
    STORED,
    TITLES,
    Lookup,
    defined,
    is_defined,
    number,
    p_value,
    percent,
    signed,
)
from dfl.data import csv_files
from dfl.evaluation.results import to_json
from dfl.metrics.names import FAIRNESS, about
from dfl.runs.files import write

#: Columns of `cost.csv` after the method; the last three change from machine to machine.
COST = ("parameters", "macs", "images_per_s", "memory_mb", "device")
CELLS = ("method", "domain", "role", "variant", "metric", "value", "low", "high", "spread", "seeds", "note")
#: The most domains that have intervals beside their values.
ACROSS = 8
#: Numbers of the calibration of a method.
CALIBRATION = ("temperature", "ece", "ece_scaled", "aurc")
#: In place of a threshold for an FPR that so few real images cannot show.
UNRESOLVED = "not resolved"
#: Columns of `statistics.csv`: what is of more than one cell.
STATISTICS = ("part", "method", "other", "domain", "variant", "metric", "what", "value", "low", "high", "p", "p_holm")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    MARK: r"\dag{}",
}
_LATEX |= {one: f"\\{one}" for one in "&%$#_{}"}


def save(content: Mapping[str, Any], folder: Path) -> None:
    """Write ``tables.md``, ``tables.tex``, ``cells.csv``, ``statistics.csv``, ``benchmark.json`` and ``cost.csv``.

    Args:
        content: Of `dfl.benchmark.compare`.
        folder: Where to; it is there.

    Raises:
        UserError: If they cannot be written.
    """
    look = Lookup(content)
    cells = ({**cell, "seeds": " ".join(map(str, cell.get("seeds") or []))} for cell in look.rows("cells"))
    costs = ({**one, "created": content.get("created")} for one in look.rows("methods"))
    write(folder / "tables.md", markdown(look))
    write(folder / "tables.tex", latex(look))
    write(folder / "cells.csv", csv_files.whole(CELLS, cells))
    write(folder / "statistics.csv", csv_files.whole(STATISTICS, statistics(look)))
    write(folder / "cost.csv", csv_files.whole(["name", *COST, "created"], costs))
    write(folder / "benchmark.json", to_json(lasting(content)))


def statistics(look: Lookup) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``statistics.csv``: summaries, shifts, differences, ranks, calibration, gaps between groups.

    The domain of a minimum is the worst one, and none stands for the mean over the cross domains.
    """
    for one in look.rows("summaries"):
        for what in ("within", "cross", "minimum", "gap", "spread"):
            row = {"part": "summary", **{key: one[key] for key in ("method", "variant", "metric")}, "what": what}
            more = {"low": one["low"], "high": one["high"]} if what == "cross" else {}
            yield row | {"domain": one["worst"] if what == "minimum" else "", "value": one.get(what)} | more
    for one in look.rows("shifts"):
        for what in ("real", "fake"):
            yield {"part": "shift", "metric": "score", **one, "what": what, "value": one[what]}
    for one in look.rows("differences"):
        yield {"part": "difference", "metric": "auroc", **one, "method": one["a"], "other": one["b"]}
    for variant, found in look.named("ranks").items():
        row = {"part": "rank", "variant": variant, "metric": "auroc"}
        yield {**row, "what": "Friedman", "value": found["friedman"]["statistic"], "p": found["friedman"]["p"]}
        yield {**row, "what": "critical difference", "value": found["critical"]}
        for method, rank in found["average"].items():
            yield {**row, "method": method, "what": "average", "value": rank}
            for other, p in found["nemenyi"][method].items():
                if other != method:
                    yield {**row, "method": method, "other": other, "what": "Nemenyi", "p": p}
    for variant, by in look.named("calibration").items():
        for method, found in by.items():
            for name in CALIBRATION:
                row = {"part": "calibration", "method": method, "variant": variant}
                yield {**row, "metric": name, "value": found[name]}
    for one in look.rows("fairness"):
        for name in FAIRNESS:
            if name in one:
                yield {"part": "fairness", **one, "metric": name, "what": one["attribute"], "value": one[name]}


def lasting(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a content without its date and what depends on the machine's speed."""
    methods = [{k: v for k, v in one.items() if k not in COST[2:]} for one in content.get("methods") or []]
    return {k: v for k, v in content.items() if k != "created"} | {"methods": methods}


class Table(NamedTuple):
    """A table of texts."""

    title: str
    head: list[str]
    rows: list[list[str]]
    #: Below it.
    note: str = ""


def tables(look: Lookup) -> list[Table]:
    """Return summaries, a table for each metric with its domains as columns, tests, and the published numbers, apart.

    The summary and the domains of the metric that methods are ordered by are the first two.
    """
    found = [
        *(one for name in look.first for one in (_summary(look, name), _metric(look, name))),
        *(_metric(look, name) for name in look.rows("metrics") if name not in look.first),
        *(_shifts(look), _generators(look), differences(look), *(ranks(look, variant) for variant in look.variants)),
        *(
            areas(look),
            *degraded(look),
            views(look),
            calibration(look),
            thresholds(look),
            gaps(look),
            changes(look),
        ),
    ]
    reference = [
        [r["method"], r["domain"], about(r["metric"]).label, number(r["value"]), r["source"], r["protocol"]]
        for r in look.rows("reference")
    ]
    head = ["method", "domain", "metric", "value", "source", "protocol"]
    return [one for one in (*found, Table("Published numbers, in no mean", head, reference)) if one.rows]


def _summary(look: Lookup, name: str) -> Table:
    label, head, rows, means = about(name).label, ["method", "images"], [], look.means(name)
    domains = look.domains(name)
    for method in look.methods:
        for variant in look.variants:
            one = look.summary_row(method, variant, name)
            if any(is_defined(one.get(what)) for what in ("within", "cross")):
                numbers = [number(one.get(what)) for what in ("within", "cross", "low", "high", "minimum")]
                for place, role in enumerate(("within", "cross")):
                    numbers[place] += look.mark(method, variant, name, domains, role)
                rest = [str(one.get("worst") or ""), number(one.get("gap")), number(one.get("spread"))]
                named = [number(look.value(method, mean, variant, name)) for mean in means]
                rows.append([method, TITLES[variant], *numbers, *rest, *named])
    head += ["within", "cross", "low", "high", "min", "worst", "gap", "spread", *means]
    return Table(f"{label}: summary", head, rows, look.notes(name, domains))


def _metric(look: Lookup, name: str) -> Table:
    """Return method x domain, two lines a method; below it what metadata alone, or a map of fake pixels alone, give.

    The metric that methods are ordered by has its intervals beside its values, unless domains are too many.
    """
    domains, rows = [*look.domains(name), *look.means(name)], []
    intervals = name == look.metric and len(domains) <= ACROSS

    def text(cell: Mapping[str, Any]) -> str:
        low, high = defined(cell.get("low")), defined(cell.get("high"))
        ends = f" ({low:.3f}-{high:.3f})" if intervals and not math.isnan(low + high) else ""
        return number(cell["value"]) + MARK * bool(cell.get("note")) + ends if cell else ""

    known = False
    for method in look.methods:
        for variant in look.variants:
            cells = [look.cell(method, d, variant, name) for d in domains]
            known = known or any(is_defined(cell.get("low")) for cell in cells)
            if any(cells):
                rows.append([method, TITLES[variant], *map(text, cells)])
    leaks = {one["name"]: (one.get("leak") or {}).get("metadata") for one in look.rows("domains")}
    if name == "auroc" and rows and any(leaks.get(d) for d in domains):
        rows.append(["metadata alone", TITLES[STORED], *(text(leaks.get(d) or {}) for d in domains)])
    for variant in look.variants if rows else ():
        fake = [look.all_fake(d, variant, name) for d in domains]
        if not all(map(math.isnan, fake)):
            rows.append([ALL_FAKE, TITLES[variant], *map(number, fake)])
    notes = [("In brackets: 95 % interval." if intervals else "95 % intervals are in cells.csv.") * known]
    notes.append(look.notes(name, domains))
    return Table(
        about(name).label, ["method", "images", *domains], rows if domains else [], " ".join(filter(None, notes))
    )


def _shifts(look: Lookup) -> Table:
    rows = [
        [r["method"], r["domain"], *(f"{defined(r[y]):+.3f}" for y in ("real", "fake"))] for r in look.rows("shifts")
    ]
    title = "Mean score of each class, re-encoded alike minus as stored"
    return Table(title, ["method", "domain", "real", "fake"], rows)


def ranks(look: Lookup, variant: str) -> Table:
    """Return average ranks, the best first, and Nemenyi's p of each pair; Friedman's test below."""
    found = look.ranks(variant)
    names = sorted(found.get("average") or {}, key=lambda name: found["average"][name])
    rows = [
        [a, number(found["average"][a], 2), *("" if a == b else p_value(found["nemenyi"][a][b]) for b in names)]
        for a in names
    ]
    note = ""
    if rows:
        friedman = found["friedman"]
        note = f"Over {found['domains']} domains. Friedman: statistic {number(friedman['statistic'], 2)}, "
        note += f"p {p_value(friedman['p'])}. "
        note += f"Critical difference of ranks (Nemenyi, 5 %): {number(found['critical'], 2)}."
    title = f"Average rank by AUROC, {TITLES[variant]}, and p of each pair (Nemenyi)"
    return Table(title, ["method", "rank", *names], rows, note)


def differences(look: Lookup) -> Table:
    """Return the differences of all pairs, mean over the cross domains."""
    rows = []
    for one in look.beside("differences", "domain", "a", "b"):
        if not one["domain"]:
            numbers = [signed(one.get(name)) for name in ("value", "low", "high")]
            tests = [p_value(one.get(name)) for name in ("p", "p_holm")]
            rows.append([one["a"], one["b"], TITLES[one["variant"]], *numbers, *tests])
    head = ["a", "b", "images", "a - b", "low", "high", "p", "p, Holm"]
    return Table("AUROC a - b, mean over the cross domains", head, rows)


def changes(look: Lookup) -> Table:
    """Return the share that is called fake of a domain and of what it is compared with, of each method."""
    rows = []
    for one in look.beside("changes", "method", "domain"):
        shares, change = map(number, (one["before"], one["after"])), (signed(one[n]) for n in ("value", "low", "high"))
        rows.append([one["method"], one["domain"], one["compared"], TITLES[one["variant"]], *shares, *change])
    head = ["method", "domain", "compared with", "images", "before", "after", "change", "low", "high"]
    return Table("Share called fake at the validation threshold, before and after", head, rows)


def areas(look: Lookup) -> Table:
    """Return the area under each curve of robustness."""
    own = look.named("robustness_area")
    rows = [[m, *(number(by.get(m)) for by in own.values())] for m in look.methods] if own else []
    return Table("Area under each curve of AUROC over strength", ["method", *own], rows)


def degraded(look: Lookup) -> list[Table]:
    """Return AUROC under each degradation, and the share of verdicts that it changes; methods are columns."""
    own = {(row["variant"], row["method"]): row for row in look.rows("robustness")}
    found = []
    for title, name, shown in (("AUROC", "value", number), ("Verdicts that change", "flips", percent)):
        rows = [
            [variant, *(shown(own.get((variant, m), {}).get(name)) for m in look.methods)]
            for variant in dict.fromkeys(variant for variant, _ in own)
        ]
        found.append(Table(f"{title} under degradations", ["degradation", *look.methods], rows))
    return found


def views(look: Lookup) -> Table:
    """Return the summaries of views other than the centre, and of that."""
    variants = [v for v in look.rows("variants") if "@" in v]
    summaries = [(m, v, look.summary_row(m, v)) for m in look.methods for v in [STORED, *variants] if variants]
    names = ("within", "cross", "minimum", "gap")
    rows = [[m, v, *(number(one.get(name)) for name in names)] for m, v, one in summaries if one]
    return Table("Views", ["method", "view", "within", "cross", "min", "gap"], rows)


def calibration(look: Lookup) -> Table:
    """Return temperature, ECE before and after it, and the area under the curve of risk over coverage."""
    rows = [
        [method, TITLES[variant], *(number(own[name]) for name in CALIBRATION)]
        for method in look.methods
        for variant in look.variants
        if (own := look.calibration(method, variant))
    ]
    head = ["method", "images", "temperature", "ECE", "ECE, scaled", "area under risk-coverage"]
    return Table("Calibration", head, rows, "The temperature is that of the validation images as stored." * bool(rows))


def thresholds(look: Lookup) -> Table:
    """Return the threshold for each wanted FPR, and the FPR that it has on the tested real images."""
    rows = []
    for one in look.rows("thresholds"):
        row = [one["method"], f"{100 * one['fpr']:g} %", f"{one['reals']:,}"]
        if one["resolved"]:
            numbers = (one["threshold"], one["low"], one["high"], *map(one["tested"].get, look.variants))
            rows.append(row + [number(value) for value in numbers])
        else:
            rows.append([*row, UNRESOLVED, *[""] * (2 + len(look.variants))])
    tested = (f"tested, {TITLES[variant]}" for variant in look.variants)
    head = ["method", "wanted FPR", "reals", "threshold", "low", "high", *tested]
    note = "Chosen on the real images of validation; low and high: 95 % interval of the FPR on others like them. "
    note += f"{UNRESOLVED[0].upper()}{UNRESOLVED[1:]}: fewer than one of them may be called fake."
    return Table("Thresholds for a wanted false positive rate", head, rows, note * bool(rows))


def _generators(look: Lookup) -> Table:
    rows: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for one in look.beside("generators", "domain", "generator"):
        rows.setdefault((one["domain"], one["generator"], one["variant"]), {})[one["method"]] = one
    methods = [m for m in look.methods if any(m in own for own in rows.values())]
    lines, flagged = [], False
    for (domain, generator, variant), own in rows.items():
        first = next(iter(own.values()))
        cells = [number(own[m]["auroc"]) + MARK * bool(own[m]["flag"]) if m in own else "" for m in methods]
        flagged = flagged or any(one["flag"] for one in own.values())
        year = "" if first["year"] is None else str(first["year"])
        lines.append([generator, domain, year, f"{first['n']:,}", TITLES[variant], *cells])
    head = ["generator", "domain", "year", "fakes", "images", *methods]
    return Table("AUROC by generator", head, lines, f"{MARK} {SEEN}" * flagged)


def gaps(look: Lookup) -> Table:
    """Return how far groups of people lie apart, of each method and domain."""
    names = [name for name in FAIRNESS if any(name in row for row in look.rows("fairness"))]
    rows = [
        [r["method"], r["domain"], r["attribute"], TITLES[r["variant"]], *(number(r.get(name)) for name in names)]
        for r in look.beside("fairness", "method", "domain", "attribute")
    ]
    labels = [FAIRNESS[name].label for name in names]
    return Table("Gaps between groups of people", ["method", "domain", "groups by", "images", *labels], rows)


def markdown(look: Lookup) -> str:
    """Return all tables as Markdown."""
    parts = [f"# Benchmark: {_line(look.content.get('name', ''))}\n"] + [f"{_bar(look.seen)}\n"] * bool(look.seen)
    for title, head, rows, note in tables(look):
        lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([_bar(cell) for cell in row] for row in rows)]
        lines[0] = [_bar(cell) for cell in head]
        parts.append(f"## {_bar(title)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
        parts += [f"{_bar(note)}\n"] * bool(note)
    return "\n".join(parts)


def latex(look: Lookup) -> str:
    r"""Return all tables as LaTeX, for ``\usepackage{booktabs}``."""
    parts = [f"% {_line(look.content.get('name', ''))}; needs \\usepackage{{booktabs}}\n% {_line(look.seen)}\n"]
    for title, head, rows, note in tables(look):
        below = f"  \\par\\smallskip\\footnotesize {escaped(note)}\n" if note else ""
        body = "".join(f"    {' & '.join(map(escaped, row))} \\\\\n" for row in rows)
        parts.append(
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{escaped(title)}}}\n"
            f"  \\begin{{tabular}}{{{'l' + 'r' * (len(head) - 1)}}}\n    \\toprule\n"
            f"    {' & '.join(map(escaped, head))} \\\\\n    \\midrule\n{body}"
            f"    \\bottomrule\n  \\end{{tabular}}\n{below}\\end{{table}}\n"
        )
    return "\n".join(parts)


def escaped(text: str) -> str:
    """Return a text that LaTeX sets as it is."""
    return "".join(_LATEX.get(one, one) for one in _line(text))


def _bar(text: str) -> str:
    """Return a text that Markdown shows as it is, in one cell."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", _line(text))


def _line(text: Any) -> str:
    """Return a text on one line."""
    return " ".join(str(text).split())
