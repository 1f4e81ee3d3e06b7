"""The tables of a benchmark as files: Markdown, LaTeX, CSV and JSON, from its content alone.

What a machine's speed decides (images per second, memory) and the date stand in ``cost.csv`` alone, so that all other
files of one set of predictions have the same bytes each time.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfl.benchmark.lookup import ALL_FAKE, CHANGES, STORED, TITLES, Lookup, number
from dfl.data import csv_files
from dfl.evaluation.results import to_json
from dfl.metrics.names import about
from dfl.runs.files import write

#: Columns of `cost.csv` after the method; the last three change from machine to machine.
COST = ("parameters", "macs", "images_per_s", "memory_mb", "device")
CELLS = ("method", "domain", "role", "variant", "metric", "value", "low", "high", "spread", "seeds", "note")
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_LATEX |= {one: f"\\{one}" for one in "&%$#_{}"}


def save(content: Mapping[str, Any], folder: Path) -> None:
    """Write ``tables.md``, ``tables.tex``, ``cells.csv``, ``benchmark.json`` and ``cost.csv``.

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
    write(folder / "cost.csv", csv_files.whole(["name", *COST, "created"], costs))
    write(folder / "benchmark.json", to_json(lasting(content)))


def lasting(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a content without its date and what depends on the machine's speed."""
    methods = [{k: v for k, v in one.items() if k not in COST[2:]} for one in content.get("methods") or []]
    return {k: v for k, v in content.items() if k != "created"} | {"methods": methods}


#: A title, the names of the columns, and rows of texts.
Table = tuple[str, list[str], list[list[str]]]


def tables(look: Lookup) -> list[Table]:
    """Return the summary, a table for each metric with its domains as columns, and the published numbers, apart."""
    found = [
        _summary(look),
        *(_metric(look, name) for name in look.rows("metrics")),
        _differences(look),
        _changes(look),
    ]
    reference = [
        [r["method"], r["domain"], about(r["metric"]).label, number(r["value"]), r["source"], r["protocol"]]
        for r in look.rows("reference")
    ]
    head = ["method", "domain", "metric", "value", "source", "protocol"]
    return [one for one in (*found, ("Published numbers, in no mean", head, reference)) if one[2]]


def _summary(look: Lookup) -> Table:
    label, head, rows, means = about(look.metric).label, ["method", "images"], [], look.means(look.metric)
    for method in look.methods:
        for variant in look.variants:
            if one := look.summary_row(method, variant):
                numbers = [number(one.get(name)) for name in ("within", "cross", "low", "high", "minimum")]
                rest = [str(one.get("worst") or ""), number(one.get("gap")), number(one.get("spread"))]
                named = [number(look.value(method, name, variant, look.metric)) for name in means]
                rows.append([method, TITLES[variant], *numbers, *rest, *named])
    head += ["within", "cross", "low", "high", "min", "worst", "gap", "spread", *means]
    return f"{label}: summary", head, rows


def _metric(look: Lookup, name: str) -> Table:
    """Return method x domain, two lines a method; below it what metadata alone, or a map of fake pixels alone, give."""
    domains, rows = [*look.domains(name), *look.means(name)], []
    for method in look.methods:
        for variant in look.variants:
            cells = [look.cell(method, d, variant, name) for d in domains]
            if any(cells):
                rows.append([method, TITLES[variant], *(number(c["value"]) if c else "" for c in cells)])
    leaks = {one["name"]: (one.get("leak") or {}).get("metadata") for one in look.rows("domains")}
    if name == "auroc" and rows and any(leaks.get(d) for d in domains):
        found = [leaks.get(d) for d in domains]
        rows.append(["metadata alone", TITLES[STORED], *(number(one["value"]) if one else "" for one in found)])
    for variant in look.variants if rows else ():
        fake = [look.all_fake(d, variant, name) for d in domains]
        if not all(map(math.isnan, fake)):
            rows.append([ALL_FAKE, TITLES[variant], *map(number, fake)])
    return about(name).label, ["method", "images", *domains], rows if domains else []


def _differences(look: Lookup) -> Table:
    rows = []
    for one in look.rows("differences"):
        if not one["domain"]:
            numbers = [number(one.get(name), 4) for name in ("value", "low", "high", "p", "p_holm")]
            rows.append([one["a"], one["b"], *numbers])
    return "AUROC a - b, mean over the cross domains", ["a", "b", "a - b", "low", "high", "p", "p, Holm"], rows


def _changes(look: Lookup) -> Table:
    rows = [
        [
            r["method"],
            r["domain"],
            r["compared"],
            *(number(r[name]) for name in ("before", "after", "value", "low", "high")),
        ]
        for r in look.rows("changes")
    ]
    return CHANGES, ["method", "domain", "compared with", "before", "after", "change", "low", "high"], rows


def markdown(look: Lookup) -> str:
    """Return all tables as Markdown."""
    parts = [f"# Benchmark: {_line(look.content.get('name', ''))}\n"]
    for title, head, rows in tables(look):
        lines = [head, ["---"] + ["---:"] * (len(head) - 1), *([_bar(cell) for cell in row] for row in rows)]
        lines[0] = [_bar(cell) for cell in head]
        parts.append(f"## {_bar(title)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(parts)


def latex(look: Lookup) -> str:
    r"""Return all tables as LaTeX, for ``\usepackage{booktabs}``."""
    parts = [f"% {_line(look.content.get('name', ''))}; needs \\usepackage{{booktabs}}\n"]
    for title, head, rows in tables(look):
        body = "".join(f"    {' & '.join(map(escaped, row))} \\\\\n" for row in rows)
        parts.append(
            "\\begin{table}\n  \\centering\n"
            f"  \\caption{{{escaped(title)}}}\n"
            f"  \\begin{{tabular}}{{{'l' + 'r' * (len(head) - 1)}}}\n    \\toprule\n"
            f"    {' & '.join(map(escaped, head))} \\\\\n    \\midrule\n{body}"
            "    \\bottomrule\n  \\end{tabular}\n\\end{table}\n"
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
