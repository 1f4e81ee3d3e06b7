"""The domain matrix: what a detector that was trained on one domain is worth on all others, as table and heat map.

A row is a training, a column a test domain. The value where both are the same says how well a method learns a domain;
all others say what of that holds elsewhere, which is what counts in use.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only
from rich.text import Text

from dfl.data import csv_files
from dfl.evaluation import html, matrices, plots, results
from dfl.metrics.names import about
from dfl.runs import files
from dfl.terminal import console

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The row of what a map that calls every pixel fake would get, where a metric has that.
ALL_FAKE = "all fake"
CAPTION = "Rows: what was trained on. Columns: what was tested on. A frame: the domain was part of the training."

#: Label of a row -> one value for each column, then the means of seen and unseen domains.
Values = Mapping[str, Sequence[float]]


@dataclass
class Row:
    """One training: its name, the domains it was trained on, and test domain -> metric -> value."""

    label: str
    trained: tuple[str, ...]
    results: Mapping[str, Mapping[str, float]]

    def value(self, domain: str, metric: str) -> float:
        """Return a value; NaN where it was not measured, or is undefined."""
        value = self.results.get(domain, {}).get(metric)
        return math.nan if value is None else float(value)


def summary(row: Row, metric: str, columns: Sequence[str]) -> tuple[float, float]:
    """Return the means over the test domains that were trained on and over the others; NaN of none."""
    seen = [row.value(c, metric) for c in columns if c in row.trained]
    unseen = [row.value(c, metric) for c in columns if c not in row.trained]
    return _mean(seen), _mean(unseen)


def _mean(values: Sequence[float]) -> float:
    """Return the mean of what is defined."""
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def lines(metric: str, columns: Sequence[str], rows: Sequence[Row]) -> dict[str, list[float]]:
    """Return the values of a metric, see `Values`."""
    table = {row.label: [*(row.value(c, metric) for c in columns), *summary(row, metric, columns)] for row in rows}
    all_fake = [rows[0].value(c, f"{metric}_all_fake") for c in columns]
    if not all(map(math.isnan, all_fake)):
        table[ALL_FAKE] = [*all_fake, math.nan, math.nan]
    return table


def write(
    folder: Path, facts: Mapping[str, Any], metrics: Sequence[str], columns: Sequence[str], rows: Sequence[Row]
) -> dict[str, Any]:
    """Print the tables and write ``matrix.csv``, ``matrix.json``, ``matrix.html`` and ``matrix_<metric>.svg``.

    Args:
        folder: Where to.
        facts: ``name`` of the sweep, its ``configs``, ``options`` and ``runs``.
        metrics: What to show; the JSON file has all.
        columns: The test domains.
        rows: The trainings.

    Returns:
        The content of ``matrix.json``.

    Raises:
        UserError: If the files cannot be written.
    """
    content = {
        **facts,
        "tested_on": list(columns),
        "matrix": {metric: lines(metric, columns, rows) for metric in metrics},
        "trained_on": {row.label: list(row.trained) for row in rows},
        "results": {row.label: row.results for row in rows},
    }
    _write(folder, content, columns, rows)
    return content


@rank_zero_only
def _write(folder: Path, content: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Row]) -> None:
    files.write(folder / "matrix.csv", to_csv(content["matrix"], columns))
    files.write(folder / "matrix.json", results.to_json(content))
    files.write(folder / "matrix.html", page(content, columns, rows))
    for metric, values in content["matrix"].items():
        files.write(folder / f"matrix_{metric}.svg", plots.to_svg(heat_map(values, metric, columns, rows)))
        show(metric, values, columns, rows)
    print(f"page: {folder / 'matrix.html'}")


def to_csv(matrix: Mapping[str, Values], columns: Sequence[str]) -> str:
    """Return the tables of all metrics, one after the other, as CSV; an undefined value is ``nan``."""
    rows = [[metric, label, *cells] for metric, values in matrix.items() for label, cells in values.items()]
    head = csv_files.line(["metric", "trained_on", *columns, "mean_seen", "mean_unseen"])
    return head + "".join(map(csv_files.line, rows))


def show(metric: str, values: Values, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Print the table of a metric; what was trained on is bold."""
    trained = {row.label: row.trained for row in rows}
    shown = results.terminal_table(f"{about(metric).label}: trained on", *columns, "seen", "unseen")
    several = False
    for label, cells in values.items():
        if label == ALL_FAKE or (len(trained[label]) > 1 and not several):
            shown.add_section()
            several = True
        texts = [Text(_number(cell)) for cell in cells]
        for place, name in enumerate(columns):
            if name in trained.get(label, ()):
                texts[place].stylize("bold")
        shown.add_row(label, *texts)
    console(200).print(shown)


def heat_map(values: Values, metric: str, columns: Sequence[str], rows: Sequence[Row]) -> "Figure":
    """Return the heat map of a metric, with a frame where the domain was part of the training."""
    groups = [[r.label for r in rows if len(r.trained) == 1], [r.label for r in rows if len(r.trained) > 1]]
    groups.append([ALL_FAKE] if ALL_FAKE in values else [])
    cells = {label: row[: len(columns)] for label, row in values.items()}
    framed = {(row.label, column) for row in rows for column in columns if column in row.trained}
    return matrices.heat_map({"": cells}, columns, [g for g in groups if g], about(metric).label, framed)


def page(content: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Row]) -> str:
    """Return the page: a heat map and a table for each metric, and what was run."""
    parts = [f"<p class=soft>{CAPTION}</p>"]
    for metric, values in content["matrix"].items():
        name, help = about(metric).label, about(metric).help
        table = [[label, *map(_number, cells)] for label, cells in values.items()]
        parts += [
            f"<h2>{html.text(name)}</h2><p class=soft>{html.text(help)}</p>",
            html.figures({f"Heat map of {name}": heat_map(values, metric, columns, rows)}),
            html.table(["trained on", *columns, "mean of seen", "mean of unseen"], table),
        ]
    facts = {key: content[key] for key in ("configs", "options", "runs", "trained_on")}
    parts.append(html.folded("Sweep: configs, options and runs", f"<pre>{html.text(results.to_json(facts))}</pre>"))
    return html.document(f"{content['name']}: domain matrix", parts)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
