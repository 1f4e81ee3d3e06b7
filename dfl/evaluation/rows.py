"""Scores of single images as rows of a table: what `predict` writes of each."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dfl.data import csv_files
from dfl.errors import UserError
from dfl.metrics.measures import TEXT_OUTPUTS
from dfl.metrics.verdicts import Rule

COLUMNS = ("path", "score", "logit", "probability", "verdict", "threshold", "domain", "label", "group", "video")

Row = dict[str, Any]


def rows(
    prediction: Mapping[str, Any],
    rule: Rule,
    batch: Mapping[str, Any],
    names: Mapping[str, Mapping[int, str]],
    beside: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[Row]:
    """Yield a row for each image of a batch, without padding: ``COLUMNS``, then classes, texts and what is beside them.

    Args:
        prediction: ``score`` (N,) float32 probability of fake, perhaps its log-odds ``logit`` (N,) float32, ``index``
            (N,), ``path`` N strings, ``domain``; where the detector gives them ``class_prob`` (N, K) float32 with K
            ``class_names``, and ``text`` and ``generated_text``, N strings each.
        rule: How a score becomes a probability and a verdict.
        batch: ``label``, ``group``, ``video`` (N,) integers, -1 for unknown; a column that lacks is unknown.
        names: Name by id of ``group`` and ``video``; an id without one is written as it is.
        beside: Further columns, N cells each.

    Raises:
        UserError: If a score is NaN, which is no verdict.
    """
    probs, threshold = prediction.get("class_prob"), _short(np.float32(rule.threshold))
    # of all rows at once: each copy waits for the device
    probs = None if probs is None else probs.float().cpu().numpy()
    score = prediction["score"].float().cpu().numpy()
    logit = prediction["logit"].float().cpu().numpy() if "logit" in prediction else None
    verdicts = rule.verdicts(score, logit)
    numbers = {column: batch[column].tolist() for column in ("label", "group", "video") if column in batch}
    for i, (index, path) in enumerate(zip(prediction["index"].tolist(), prediction["path"], strict=True)):
        if index < 0:
            continue
        if math.isnan(score[i]):
            raise UserError(
                f"the score of {path} is no number, and no scores are written: the weights are damaged, or "
                "trainer.precision is too coarse for them"
            )
        probability, verdict = verdicts[i]
        row = {
            "path": path,
            "score": _short(score[i]),
            "logit": "" if logit is None else _short(logit[i]),
            "probability": _short(np.float32(probability)),
            "verdict": verdict,
            "threshold": threshold,
            "domain": prediction["domain"],
        }
        for column in ("label", "group", "video"):
            number = numbers[column][i] if column in numbers else -1
            cell = number if column == "label" else names.get(column, {}).get(number, str(number))
            row[column] = "" if number < 0 else cell
        if probs is not None:
            prob = dict(zip(prediction["class_names"], probs[i], strict=True))
            row["class"] = max(prob, key=prob.__getitem__)
            row |= {f"prob_{name}": _short(value) for name, value in prob.items()}
        row |= {name: prediction[name][i] for name in TEXT_OUTPUTS if name in prediction}
        yield row | {name: cells[i] for name, cells in (beside or {}).items()}


def encode(row: Row, name: str) -> str:
    """Return a row as a line of CSV, or of JSON, without what is unknown, where the file's name says so."""
    if name.endswith(".jsonl"):
        return json.dumps({column: cell for column, cell in row.items() if cell != ""}, ensure_ascii=False) + "\n"
    return csv_files.line(row.values())


def _short(value: np.float32) -> float | str:
    """Return a float32 as a number whose shortest decimal gives it back; '' for NaN."""
    return "" if np.isnan(value) else float(str(value))
