"""Scores of single images from a file, whoever wrote it: ``predict`` of this project or another detector."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from scipy import special

from dfl.data import csv_files
from dfl.data.sources import table as tables
from dfl.data.sources.contradictions import contradiction, evidence_columns, find_contradiction
from dfl.data.sources.labels import cell, label_meaning, real_and_fake_value
from dfl.data.sources.names import NOTHING
from dfl.errors import UserError, first_line

#: Names of the columns, lower case, in order of preference.
ALIASES = {
    **{name: tables.ALIASES[name] for name in ("path", "label", "group", "generator", "source")},
    "detector": ("detector",),
    "score": ("score", "prob", "probability", "fake_prob", "prob_fake", "p_fake", "y_score", "pred", "prediction"),
    "logit": ("logit", "logits"),
    "video": tables.ALIASES["video"],
    "domain": ("domain", "dataset"),
    "threshold": ("threshold",),
}


@dataclass
class Scores:
    """Images with a score and a label, and a group where one is needed; those without are counted in ``left_out``."""

    score: np.ndarray  # float64 (n,), probability of fake
    label: np.ndarray  # int64 (n,), 0 real, 1 fake
    group: np.ndarray  # str (n,)
    video: np.ndarray  # str (n,), '' for none
    domain: np.ndarray  # str (n,)
    #: The threshold that the file names, chosen on validation data; NaN where it names none.
    threshold: float = math.nan
    #: How many rows were left out, by reason.
    left_out: dict[str, int] = field(default_factory=dict)
    #: Paths that stand in more than one row of a domain.
    repeated: int = 0
    #: The threshold in the row of each image, float64 (n,); NaN for none.
    thresholds: np.ndarray = field(default_factory=lambda: np.empty(0))
    #: ``path``, ``generator``, ``source`` and ``detector`` of each image, str (n,) each, '' for none.
    text: dict[str, np.ndarray] = field(default_factory=dict)
    #: Log-odds of the score, float64 (n,), which still rank what rounds to a score of 1.
    logit: np.ndarray = field(default_factory=lambda: np.empty(0))


def read(
    file: Path, attributes: str | None = None, label_of_fake: str | None = None, need_group: bool = True
) -> Scores:
    """Read a file of scores.

    Args:
        file: ``.csv``, ``.jsonl`` or ``.parquet`` with a score (or a logit), a label and a group for each image.
        attributes: Columns, separated by commas, whose values make the group: ``gender,race``.
        label_of_fake: The label that means fake, where labels are neither 0 and 1 nor names such as fake.
        need_group: Whether images without a group are left out.

    Raises:
        UserError: If the file or a column is not there, or a value makes no sense.
    """
    table = _load(file)
    if not len(table):
        raise UserError(f"{file} is empty: there is no score in it")
    columns = table.column_names
    name_of = {ours: column for ours, names in ALIASES.items() if (column := csv_files.called(file, columns, names))}
    csv_files.once(file, columns, name_of.values())
    cells = {ours: _cells(file, ours, column, table[column]) for ours, column in name_of.items()}
    for ours in ("label", "score"):
        if ours not in cells and not (ours == "score" and "logit" in cells):
            raise UserError(_lacks(file, ours, columns))
    if attributes:
        cells["group"] = _joined(file, table, attributes)
    elif "group" not in cells and need_group:
        raise UserError(
            _lacks(file, "group", columns) + "; or name the columns that make one: --attributes gender,race"
        )
    (score, logit), n = _probabilities(file, cells), len(table)
    has_label = np.array([cell != "" for cell in cells["label"]], bool)
    has_group = np.array([cell != "" for cell in cells["group"]], bool) if need_group else np.ones(n, bool)
    both = has_label & ~np.isnan(score)
    missing = {"no label": ~has_label, "no score": has_label & ~both, "no group": both & ~has_group}
    left_out = {reason: int(rows.sum()) for reason, rows in missing.items() if rows.any()}
    used = np.flatnonzero(both & has_group)
    if not len(used):
        why = max(left_out, key=left_out.__getitem__)
        wanted = "a score, a label and a group" if need_group else "a score and a label"
        raise UserError(f"{file}: no image has {wanted} ({why}), so there is nothing to compare")
    label = _labels(file, table, name_of, used, [cells["label"][i] for i in used], label_of_fake)
    names = ("group", "video", "domain", "path", "generator", "source", "detector")
    text = {ours: np.array(cells.get(ours, [""] * n), object)[used] for ours in names}
    paths = Counter(zip(text["domain"], text["path"], strict=True))
    of_rows = _numbers(file, cells.get("threshold", [""] * n), "threshold")
    thresholds = np.unique(of_rows[~np.isnan(of_rows)])
    return Scores(
        score[used],
        label,
        text["group"],
        text["video"],
        np.array([d or "all images" for d in text["domain"]], object),
        float(thresholds[0]) if len(thresholds) == 1 else math.nan,  # several are of several detectors
        left_out,
        sum(1 for (_, path), count in paths.items() if path and count > 1),
        of_rows[used],
        {name: text[name] for name in ("path", "generator", "source", "detector")},
        logit[used],
    )


def _probabilities(file: Path, cells: dict[str, list[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and their log-odds, float64 (n,) each, NaN where there are none.

    Of a file that has both, a column of logits that are not those of the scores is left alone.
    """
    logit = _numbers(file, cells["logit"], "logit") if "logit" in cells else None
    score = _numbers(file, cells["score"], "score") if logit is None or "score" in cells else special.expit(logit)
    outside = score[(score < 0) | (score > 1)]
    if len(outside):
        raise UserError(
            f"{file}: scores must be probabilities of fake in [0, 1], found {outside[0]:g}; call the column logit if "
            "they are log-odds"
        )
    if logit is None or not np.allclose(special.expit(logit), score, 0, 1e-3, equal_nan=True):
        logit = special.logit(score)
    return score, logit


def _labels(
    file: Path, table: pa.Table, name_of: dict[str, str], used: np.ndarray, cells: list[str], label_of_fake: str | None
) -> np.ndarray:
    """Return 0 or 1 for each row that is used, int64; what else speaks of real and fake must not say the opposite.

    Raises:
        UserError: If the values do not say which is fake.
        Contradiction: If another column, the folders or the column's own name say the opposite.
    """
    column = name_of["label"]
    meaning = label_meaning(set(cells), label_of_fake, file, column)
    label = np.array([meaning[cell] for cell in cells], np.int64)
    if label_of_fake is None:
        evidence = {name: one.take(pa.array(used)) for name, one in evidence_columns(table, {column}).items()}
        paths = evidence.pop(name_of["path"], None) if "path" in name_of else None
        if one := find_contradiction(pa.chunked_array([label]), paths, evidence):
            path = f"row {used[one.row] + 1}" if paths is None else str(paths[one.row])
            real, fake = real_and_fake_value(meaning)
            ways = f"set --label_of_fake {real} if that is right, or --label_of_fake {fake} if the labels are"
            raise contradiction(str(file), f"column {column!r}", one, path, ways)
    return label


def _cells(file: Path, ours: str, name: str, column: pa.ChunkedArray) -> list[str]:
    """Return a column as text; labels and numbers that say that there is nothing as ''."""
    if tables.holds_bytes(column.type):
        raise UserError(f"{file}: column {name!r} holds {column.type}, where text or numbers belong")
    text = [cell(value) for value in column.to_pylist()]
    absent = NOTHING if ours in ("label", "score", "logit", "threshold") else ()
    return ["" if one.strip().lower() in absent else one for one in text]


def _load(file: Path) -> pa.Table:
    if not file.is_file():
        raise UserError(f"no file {file}; give scores of single images, such as `dfl predict` writes")
    try:
        if file.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError('each line must hold an object such as {"path": "a.png", "score": 0.9}')
            names = list(dict.fromkeys(name for row in rows for name in row))
            text = [[None if (value := row.get(name)) is None else cell(value) for row in rows] for name in names]
            return pa.table({name: pa.array(one, pa.string()) for name, one in zip(names, text, strict=True)})
        if file.suffix.lower() == ".parquet":
            return pa.parquet.read_table(file)
        return csv_files.read(file)
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file}: {first_line(error)}") from error


def _lacks(file: Path, name: str, columns: list[str]) -> str:
    names = ", ".join(ALIASES[name])
    return f"{file} has no column for the {name} ({names}); it has {', '.join(columns)}"


def _joined(file: Path, table: pa.Table, attributes: str) -> list[str]:
    """Return ``gender=male,race=asian`` for each row; '' where a part is unknown."""
    names, columns = table.column_names, dict[str, str]()
    for name in (part.strip() for part in attributes.split(",")):
        # what is typed in its own case is that column
        column = name if name in names else csv_files.called(file, names, (name.lower(),))
        if column is None:
            raise UserError(f"{file} has no column {name!r} (--attributes); it has {', '.join(names)}")
        columns[name] = column
    csv_files.once(file, names, columns.values())
    parts = [[v.replace(",", ";") for v in _cells(file, "group", c, table[c])] for c in columns.values()]
    return [
        ",".join(f"{n}={v}" for n, v in zip(columns, row, strict=True)) if all(row) else ""
        for row in zip(*parts, strict=True)
    ]


def _numbers(file: Path, cells: list[str], name: str) -> np.ndarray:
    try:
        return np.array([float(v) if v else math.nan for v in cells], np.float64)
    except ValueError as error:
        raise UserError(f"{file}: the {name} is no number: {str(error).rpartition(': ')[2]}") from error
