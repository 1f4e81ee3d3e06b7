"""Scores of single images from a file, whoever wrote it: ``predict`` of this project or another detector."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from dfl.data import csv_files
from dfl.data.sources import table as tables
from dfl.data.sources.contradictions import contradiction, evidence_columns, find_contradiction
from dfl.data.sources.labels import cell, label_meaning, real_and_fake_value
from dfl.errors import UserError, first_line

#: Names of the columns, lower case, in order of preference.
ALIASES = {
    **{name: tables.ALIASES[name] for name in ("path", "label", "group")},
    "score": ("score", "prob", "probability", "fake_prob", "prob_fake", "p_fake", "y_score", "pred", "prediction"),
    "logit": ("logit", "logits"),
    "video": tables.ALIASES["video"],
    "domain": ("domain", "dataset"),
    "threshold": ("threshold",),
}
#: How other programs write that there is nothing.
_NOTHING = ("", "na", "n/a", "#n/a", "nan", "null", "none")


@dataclass
class Scores:
    """Images with a score, a label and a group; those without are counted in ``lost``."""

    score: np.ndarray  # float64 (n,), probability of fake
    label: np.ndarray  # int64 (n,), 0 real, 1 fake
    group: np.ndarray  # str (n,)
    video: np.ndarray  # str (n,), '' for none
    domain: np.ndarray  # str (n,)
    #: The threshold that the file names, chosen on validation data; NaN where it names none.
    threshold: float = math.nan
    #: How many rows were left out, by reason.
    lost: dict[str, int] = field(default_factory=dict)
    #: Paths that stand in more than one row of a domain.
    repeated: int = 0


def read(file: Path, attributes: str | None = None, label_of_fake: str | None = None) -> Scores:
    """Read a file of scores.

    Args:
        file: ``.csv``, ``.jsonl`` or ``.parquet`` with a score (or a logit), a label and a group for each image.
        attributes: Columns, separated by commas, whose values make the group: ``gender,race``.
        label_of_fake: The label that means fake, where labels are neither 0 and 1 nor names such as fake.

    Raises:
        UserError: If the file or a column is not there, or a value makes no sense.
    """
    raw = _load(file)
    if not len(raw):
        raise UserError(f"{file} is empty: there is no score in it")
    found = {name: column for name, names in ALIASES.items() if (column := _find(raw.column_names, names))}
    csv_files.once(file, raw.column_names, found.values())
    columns = {name: _cells(file, name, column, raw[column]) for name, column in found.items()}
    for name in ("label", "score"):
        if name not in columns and not (name == "score" and "logit" in columns):
            raise UserError(_lacks(file, name, raw.column_names))
    if attributes:
        columns["group"] = _joined(file, raw, attributes)
    elif "group" not in columns:
        raise UserError(
            _lacks(file, "group", raw.column_names) + "; or name the columns that make one: --attributes gender,race"
        )
    n = len(raw)
    score = _numbers(file, columns.get("score") or columns["logit"], "score")
    if "score" not in columns:
        score = 1 / (1 + np.exp(-np.clip(score, -700, 700)))
    outside = score[(score < 0) | (score > 1)]
    if len(outside):
        raise UserError(
            f"{file}: scores must be probabilities of fake in [0, 1], found {outside[0]:g}; call the column logit if "
            "they are log-odds"
        )
    has_label = np.array([v != "" for v in columns["label"]], bool)
    has_group = np.array([v != "" for v in columns["group"]], bool)
    lost = {"no label": ~has_label, "no score": np.isnan(score) & has_label}
    lost["no group"] = ~has_group & has_label & ~np.isnan(score)
    kept = np.flatnonzero(has_label & has_group & ~np.isnan(score))
    if not len(kept):
        why = max(lost, key=lambda reason: int(lost[reason].sum()))
        raise UserError(f"{file}: no image has a score, a label and a group ({why}), so there is nothing to compare")
    label = _labels(file, raw, found, kept, [columns["label"][i] for i in kept], label_of_fake)
    text = {name: np.array(columns.get(name, [""] * n), object)[kept] for name in ("group", "video", "domain", "path")}
    paths = Counter(zip(text["domain"], text["path"], strict=True))
    return Scores(
        score[kept],
        label,
        text["group"],
        text["video"],
        np.array([d or "all images" for d in text["domain"]], object),
        _threshold(file, columns.get("threshold", [])),
        {reason: int(rows.sum()) for reason, rows in lost.items() if rows.any()},
        sum(1 for (_, path), count in paths.items() if path and count > 1),
    )


def _labels(
    file: Path, raw: pa.Table, found: dict[str, str], kept: np.ndarray, values: list[str], label_of_fake: str | None
) -> np.ndarray:
    """Return 0 or 1 for each row that is kept, int64; what else speaks of real and fake must not say the opposite.

    Raises:
        UserError: If the values do not say which is fake.
        Contradiction: If another column, the folders or the column's own name say the opposite.
    """
    column = found["label"]
    meaning = label_meaning(set(values), label_of_fake, file, column)
    label = np.array([meaning[value] for value in values], np.int64)
    if label_of_fake is None:
        words = {name: one.take(pa.array(kept)) for name, one in evidence_columns(raw, {column}).items()}
        paths = words.pop(found["path"], None) if "path" in found else None
        if one := find_contradiction(pa.chunked_array([label]), paths, words):
            path = f"row {kept[one.row] + 1}" if paths is None else str(paths[one.row])
            real, fake = real_and_fake_value(meaning)
            ways = f"set --label_of_fake {real} if that is right, or --label_of_fake {fake} if the labels are"
            raise contradiction(str(file), f"column {column!r}", one, path, ways)
    return label


def _cells(file: Path, ours: str, name: str, column: pa.ChunkedArray) -> list[str]:
    """Return a column as text; labels and numbers that say that there is nothing as ''."""
    if tables.holds_bytes(column.type):
        raise UserError(f"{file}: column {name!r} holds {column.type}, where text or numbers belong")
    text = [cell(value) for value in column.to_pylist()]
    absent = _NOTHING if ours in ("label", "score", "logit", "threshold") else ()
    return ["" if one.strip().lower() in absent else one for one in text]


def _load(file: Path) -> pa.Table:
    if not file.is_file():
        raise UserError(f"no file {file}; give the scores of `dfl predict`, or --ckpt_path and --data")
    try:
        if file.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in file.read_text("utf-8").split("\n") if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError('each line must hold an object such as {"path": "a.png", "score": 0.9}')
            names = list(dict.fromkeys(name for row in rows for name in row))
            return pa.table({name: pa.array([_word(row.get(name)) for row in rows], pa.string()) for name in names})
        if file.suffix.lower() == ".parquet":
            return pa.parquet.read_table(file)
        return csv_files.read(file)
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read {file}: {first_line(error)}") from error


def _word(value: Any) -> str | None:
    return None if value is None else cell(value)


def _find(columns: list[str], names: tuple[str, ...]) -> str | None:
    lower = {c.strip().lower(): c for c in columns}
    return next((lower[name] for name in names if name in lower), None)


def _lacks(file: Path, name: str, columns: list[str]) -> str:
    names = ", ".join(ALIASES[name])
    return f"{file} has no column for the {name} ({names}); it has {', '.join(columns)}"


def _joined(file: Path, raw: pa.Table, attributes: str) -> list[str]:
    """Return ``gender=male,race=asian`` for each row; '' where a part is unknown."""
    names = [name.strip() for name in attributes.split(",")]
    found = [_find(raw.column_names, (name.lower(),)) for name in names]
    for name, column in zip(names, found, strict=True):
        if column is None:
            raise UserError(f"{file} has no column {name!r} (--attributes); it has {', '.join(raw.column_names)}")
    csv_files.once(file, raw.column_names, filter(None, found))
    parts = [[v.replace(",", ";") for v in _cells(file, "group", c, raw[c])] for c in found if c]
    return [
        ",".join(f"{n}={v}" for n, v in zip(names, row, strict=True)) if all(row) else ""
        for row in zip(*parts, strict=True)
    ]


def _numbers(file: Path, values: list[str], name: str) -> np.ndarray:
    try:
        return np.array([float(v) if v else math.nan for v in values], np.float64)
    except ValueError as error:
        raise UserError(f"{file}: the {name} is no number: {str(error).rpartition(': ')[2]}") from error


def _threshold(file: Path, values: list[str]) -> float:
    """Return the threshold of a file that has one; several are of several detectors, so none is taken."""
    known = _numbers(file, sorted({v for v in values if v}), "threshold")
    return float(known[0]) if len(known) == 1 else math.nan
