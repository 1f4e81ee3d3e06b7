"""Scores of single images as a table on disk: what `predict` writes.

Rows go to a temporary file as they come, so memory does not grow with the number of images; the file takes its name
when it is complete. With several processes each writes its own part, and the parts are joined at the end.
"""

import csv
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter

from dfl.errors import UserError

COLUMNS = ("path", "score", "verdict", "threshold", "domain", "label", "group", "video")
Row = tuple[str, float, str, float, str, int | str, str, str]
SUFFIXES = (".csv", ".jsonl")
#: Names of unreadable images that are printed; the rest is counted.
MOST_NAMES = 10


class PredictionWriter(BasePredictionWriter):
    """Write path, score (probability of fake), verdict, threshold and domain of each image, and what is known of it.

    What is known are its label (0 real, 1 fake), group and video; empty where not.

    The verdict is ``fake`` at the threshold and above. The threshold is the one chosen on validation, or 0.5 when there
    is none. Padding rows (index -1) are left out; unreadable images are named on the terminal.

    Args:
        output: A ``.csv`` or ``.jsonl`` file; by default ``predictions.csv`` in the log folder of the run.
    """

    def __init__(self, output: str | None = None) -> None:
        super().__init__("batch")
        if output is not None and Path(output).suffix not in SUFFIXES:
            raise UserError(f"--output {output} must end in {' or '.join(SUFFIXES)}")
        self.output = output
        #: Where the scores went, after the run.
        self.path: Path | None = None
        self._file: IO[str] | None = None
        self._rows = 0
        self._names: dict[str, dict[int, str]] = {}

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open this process's part."""
        self.path = Path(self.output).expanduser() if self.output else Path(trainer.log_dir or ".") / "predictions.csv"
        self.path = Path(trainer.strategy.broadcast(str(self.path)))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = 0
        self._names = {column: names_of(trainer, column) for column in ("group", "video")}
        self._file = self._part(trainer.global_rank).open("w", newline="", encoding="utf-8")

    def write_on_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        prediction: dict[str, Any],
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the rows of one batch."""
        assert self._file is not None
        stored = float(getattr(pl_module, "threshold", math.nan))
        threshold = 0.5 if math.isnan(stored) else stored
        for row in rows(prediction, threshold, batch, self._names):
            self._file.write(encode(row, str(self.path)))
            self._rows += 1

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the parts under the final name, and say where the scores are and what could not be read."""
        assert self._file is not None
        assert self.path is not None
        self._file.close()
        self._file = None
        counts: list[Any] = [None] * trainer.world_size
        bad: list[Any] = [None] * trainer.world_size
        if trainer.world_size > 1:  # also waits until every part is complete
            torch.distributed.all_gather_object(counts, self._rows)
            torch.distributed.all_gather_object(bad, unreadable(trainer))
        else:
            counts, bad = [self._rows], [unreadable(trainer)]
        if not trainer.is_global_zero:
            return
        self._join(trainer.world_size)
        print(f"wrote {sum(counts)} scores to {self.path}")
        if lost := sorted({item for part in bad for item in part}):
            names = ", ".join(f"{path} ({reason})" for path, reason in lost[:MOST_NAMES])
            more = f" and {len(lost) - MOST_NAMES} more" if len(lost) > MOST_NAMES else ""
            print(f"{len(lost)} images could not be read and have no score: {names}{more}")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave no half-written file behind."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._part(trainer.global_rank).unlink(missing_ok=True)

    def _part(self, rank: int) -> Path:
        assert self.path is not None
        return self.path.with_name(f".{self.path.name}.part{rank}")

    def _join(self, parts: int) -> None:
        assert self.path is not None
        whole = self.path.with_name(f".{self.path.name}.whole")
        with whole.open("w", newline="", encoding="utf-8") as out:
            if self.path.suffix == ".csv":
                csv.writer(out).writerow(COLUMNS)
            for rank in range(parts):
                with self._part(rank).open(newline="", encoding="utf-8") as part:
                    out.writelines(part)
                self._part(rank).unlink()
        os.replace(whole, self.path)


def rows(
    prediction: Mapping[str, Any],
    threshold: float,
    batch: Mapping[str, Any] | None = None,
    names: Mapping[str, Mapping[int, str]] | None = None,
) -> Iterator[Row]:
    """Yield one row of ``COLUMNS`` for each image of a batch, without padding.

    Args:
        prediction: ``score`` (N,) float32 probability of fake, ``index`` (N,), ``path`` N strings, ``domain``.
        threshold: Score from which the verdict is fake.
        batch: ``label``, ``group``, ``video`` (N,) integers, -1 for unknown; a column that lacks is unknown.
        names: Name by id of ``group`` and ``video``; an id without one is written as it is.
    """
    scores = prediction["score"].float().cpu().numpy()
    limit = np.float32(threshold)
    known = [_known(batch or {}, column, (names or {}).get(column, {}), len(scores)) for column in COLUMNS[5:]]
    columns = zip(scores, prediction["index"].tolist(), prediction["path"], *known, strict=True)
    for score, index, path, label, group, video in columns:
        if index >= 0:
            # str of a float32 is the shortest decimal that gives it back
            verdict = "fake" if score >= limit else "real"
            told = label if label == "" else int(label)
            yield path, float(str(score)), verdict, float(str(limit)), prediction["domain"], told, group, video


def _known(batch: Mapping[str, Any], column: str, names: Mapping[int, str], n: int) -> list[str]:
    """Return a column of a batch as names, '' for unknown."""
    ids = batch[column].tolist() if column in batch else [-1] * n
    return ["" if one < 0 else names.get(one, str(one)) for one in ids]


def names_of(trainer: pl.Trainer, column: str) -> dict[int, str]:
    """Return the name by id of a column of the data module's vocabulary."""
    vocab = getattr(getattr(trainer, "datamodule", None), "vocab", {})
    return {number: name for name, number in vocab.get(column, {}).items()}


def encode(row: Row, name: str) -> str:
    """Return a row as a line of CSV, or of JSON, without what is unknown, where the file's name says so."""
    if name.endswith(".jsonl"):
        told = {column: cell for column, cell in zip(COLUMNS, row, strict=True) if cell != ""}
        return json.dumps(told, ensure_ascii=False) + "\n"
    return ",".join(_quoted(str(cell)) for cell in row) + "\r\n"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if any(c in cell for c in ',"\r\n') else cell


def unreadable(trainer: pl.Trainer) -> list[tuple[str, str]]:
    """Return path and reason of images that this process could not read, as the data module booked them."""
    sets = getattr(getattr(trainer, "datamodule", None), "sets", {}).get("predict", {})
    return [(str(path), str(reason)) for data in sets.values() for path, reason in dict(data.bad).items()]
