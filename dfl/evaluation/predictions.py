"""Scores of single images as a table on disk: what `predict` writes.

Rows go to a temporary file as they come, so memory does not grow with the number of images; the file takes its name
when it is complete. With several processes each writes its own part, and the parts are joined at the end.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor

from dfl.data import csv_files
from dfl.data.formats import LeftOut
from dfl.errors import NothingDone, UserError, visible
from dfl.evaluation.examples import overlay, pixels, without_padding
from dfl.metrics import resize_map
from dfl.metrics.measures import TEXT_OUTPUTS
from dfl.runs.files import claimed, errors_in_one_line, may_be_file, whole, write

COLUMNS = ("path", "score", "verdict", "threshold", "domain", "label", "group", "video")
SUFFIXES = (".csv", ".jsonl")
#: Names of unreadable images that are printed; the rest is counted.
MOST_NAMES = 10

Row = dict[str, Any]


class PredictionWriter(BasePredictionWriter):
    """Write path, score (probability of fake), verdict, threshold and domain of each image, and its labels.

    These are its label (0 real, 1 fake), group and video; empty where unknown. Detectors with class logits add
    ``class``, the most probable one, and ``prob_<class>`` for each; those that write add ``text``, and
    ``generated_text`` where that is a part of it.

    The verdict is ``fake`` at the threshold and above. The threshold is the one chosen on validation, or 0.5 when there
    is none. Padding rows (index -1) are left out; unreadable images, and files that were not taken for images, are
    named on the terminal. Where nothing at all was scored, no file is written.

    Args:
        output: A ``.csv`` or ``.jsonl`` file; by default ``predictions.csv`` in the log folder of the run.
        maps: Folder for the maps of detectors that give ``mask_logit``: for each image ``<domain>/<index>_<name>.png``,
            16 bits, 65535 = surely manipulated, as large as the detector's maps, and an overlay (JPEG) of the image as
            the network saw it. Where images were padded, both are of the image alone, as large as it was seen. The
            table then has a column ``map``.
        map_format: ``png``, or ``npz`` with float32 ``map`` (h, w).
    """

    def __init__(
        self, output: str | None = None, maps: str | None = None, map_format: Literal["png", "npz"] = "png"
    ) -> None:
        super().__init__("batch")
        if map_format not in ("png", "npz"):
            raise UserError(f"--map_format {map_format} must be png or npz")
        if output is not None and Path(output).suffix not in SUFFIXES:
            raise UserError(f"--output {output} must end in {' or '.join(SUFFIXES)}")
        self.maps = None if maps is None else Path(maps).expanduser()
        self.map_format, self.output = map_format, output
        #: Where the scores went, after the run.
        self.path: Path | None = None
        self._file: IO[str] | None = None
        #: What this process alone may write while it runs.
        self._claims = ExitStack()
        self._rows = 0
        self._columns: tuple[str, ...] = COLUMNS
        self._names: dict[str, dict[int, str]] = {}

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open this process's part.

        Raises:
            UserError: If the file or the folder of maps cannot be written, or another run is writing it.
        """
        self.path = Path(self.output).expanduser() if self.output else Path(trainer.log_dir or ".") / "predictions.csv"
        self.path = Path(trainer.strategy.broadcast(str(self.path)))
        if trainer.is_global_zero:
            may_be_file(self.path)
            self._claims.enter_context(claimed(self.path))
            if self.maps is not None:
                self._claims.enter_context(claimed(self.maps, inside=True))
        trainer.strategy.barrier()
        self._rows = 0
        vocab = getattr(getattr(trainer, "datamodule", None), "vocab", {})
        self._names = {c: {number: name for name, number in vocab.get(c, {}).items()} for c in ("group", "video")}
        with errors_in_one_line(self.path):
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
        assert self.path is not None
        stored = float(getattr(pl_module, "threshold", math.nan))
        files = self._write_maps(pl_module, prediction, batch)
        with errors_in_one_line(self.path):
            for row in rows(prediction, 0.5 if math.isnan(stored) else stored, batch, self._names):
                row |= {"map": next(files)} if self.maps is not None else {}
                self._columns = tuple(row)
                self._file.write(encode(row, str(self.path)))
                self._rows += 1

    def _write_maps(self, module: Any, prediction: dict[str, Any], batch: Any) -> Iterator[str]:
        """Write the maps of a batch where they are wanted; return their files in the order of its rows.

        Raises:
            UserError: If the detector gives no maps.
        """
        if self.maps is None:
            return iter(())
        if "map" not in prediction:
            raise UserError(
                f"--maps: {type(module).__name__} gives no maps; leave it out, or take a detector that does"
            )
        files, images = [], as_seen(batch["image"])
        for i, index in enumerate(prediction["index"].tolist()):
            if index < 0:
                continue
            prob, image = prediction["map"][i].float().cpu(), images[i]
            if "extent" in prediction:  # back from the padded square to the image, as large as it was seen
                extent = prediction["extent"][i]
                prob = without_padding(resize_map(prob[None], _size(image))[0].clamp(0, 1), extent)
                image = without_padding(image, extent)
            name = f"{index:06d}_{Path(prediction['path'][i]).stem}.{self.map_format}"
            file, content, over = self.maps / prediction["domain"] / name, io.BytesIO(), io.BytesIO()
            if self.map_format == "npz":
                np.savez_compressed(content, map=prob.numpy())
            else:
                Image.fromarray((prob.numpy() * 65535).round().astype(np.uint16)).save(content, "png")
            laid = overlay(image, resize_map(prob[None], _size(image))[0])
            Image.fromarray(pixels(laid)).save(over, "jpeg", quality=92)
            write(file, content.getvalue(), sync=False)
            write(file.with_name(f"{file.stem}_overlay.jpg"), over.getvalue(), sync=False)
            files.append(str(file))
        return iter(files)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the parts under the final name, and say where the scores are and what has none.

        Raises:
            NothingDone: If no image was scored.
        """
        assert self._file is not None
        assert self.path is not None
        with errors_in_one_line(self.path):
            self._file.close()
        self._file = None
        own = (self._rows, self._columns, unreadable(trainer))
        every: list[Any] = [own] * trainer.world_size
        if trainer.world_size > 1:  # also waits until every part is complete
            torch.distributed.all_gather_object(every, own)
        if not trainer.is_global_zero:
            return
        counts, columns, bad = zip(*every, strict=True)
        unscored = list(_unscored(trainer, sorted({item for part in bad for item in part})))
        if not sum(counts):
            for rank in range(trainer.world_size):
                self._part(rank).unlink(missing_ok=True)
            raise NothingDone("; ".join(["no image was scored", *unscored]))
        self._join(trainer.world_size, max(columns, key=len))  # a rank without an image has only those of all
        self._claims.close()
        print(f"wrote {sum(counts)} scores to {self.path}" + ("" if self.maps is None else f", maps to {self.maps}"))
        for line in unscored:
            print(visible(line))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave no half-written file behind."""
        if self._file is not None:
            with suppress(OSError):  # a full disk refuses the rest once more
                self._file.close()
            self._file = None
            with suppress(OSError):
                self._part(trainer.global_rank).unlink(missing_ok=True)
        self._claims.close()

    def _part(self, rank: int) -> Path:
        assert self.path is not None
        return self.path.with_name(f".{self.path.name}.part{rank}")

    def _join(self, parts: int, columns: tuple[str, ...]) -> None:
        assert self.path is not None
        try:
            with whole(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as out:
                if self.path.suffix == ".csv":
                    out.write(csv_files.line(columns))
                for rank in range(parts):
                    with self._part(rank).open(newline="", encoding="utf-8") as part:
                        out.writelines(part)
        finally:
            for rank in range(parts):
                self._part(rank).unlink(missing_ok=True)


def rows(
    prediction: Mapping[str, Any],
    threshold: float,
    batch: Mapping[str, Any],
    names: Mapping[str, Mapping[int, str]],
) -> Iterator[Row]:
    """Yield a row for each image of a batch, without padding: ``COLUMNS``, then classes and texts.

    Args:
        prediction: ``score`` (N,) float32 probability of fake, ``index`` (N,), ``path`` N strings, ``domain``; where
            the detector gives them ``class_prob`` (N, K) float32 with K ``class_names``, and ``text`` and
            ``generated_text``, N strings each.
        threshold: Score from which the verdict is fake.
        batch: ``label``, ``group``, ``video`` (N,) integers, -1 for unknown; a column that lacks is unknown.
        names: Name by id of ``group`` and ``video``; an id without one is written as it is.

    Raises:
        UserError: If a score is NaN, which is no verdict.
    """
    limit, probs = np.float32(threshold), prediction.get("class_prob")
    probs = (
        None if probs is None else probs.float().cpu().numpy()
    )  # of all rows at once: each copy waits for the device
    numbers = {column: batch[column].tolist() for column in ("label", "group", "video") if column in batch}
    columns = zip(
        prediction["score"].float().cpu().numpy(), prediction["index"].tolist(), prediction["path"], strict=True
    )
    for i, (score, index, path) in enumerate(columns):
        if index < 0:
            continue
        if math.isnan(score):
            raise UserError(
                f"the score of {path} is no number, and no scores are written: the weights are damaged, or "
                "trainer.precision is too coarse for them"
            )
        row = {"path": path, "score": _short(score), "verdict": "fake" if score >= limit else "real"}
        row |= {"threshold": _short(limit), "domain": prediction["domain"]}
        for column in ("label", "group", "video"):
            number = numbers[column][i] if column in numbers else -1
            cell = number if column == "label" else names.get(column, {}).get(number, str(number))
            row[column] = "" if number < 0 else cell
        if probs is not None:
            prob = dict(zip(prediction["class_names"], probs[i], strict=True))
            row["class"] = max(prob, key=prob.__getitem__)
            row |= {f"prob_{name}": _short(value) for name, value in prob.items()}
        yield row | {name: prediction[name][i] for name in TEXT_OUTPUTS if name in prediction}


def encode(row: Row, name: str) -> str:
    """Return a row as a line of CSV, or of JSON, without what is unknown, where the file's name says so."""
    if name.endswith(".jsonl"):
        return json.dumps({column: cell for column, cell in row.items() if cell != ""}, ensure_ascii=False) + "\n"
    return csv_files.line(row.values())


def _short(value: np.float32) -> float:
    """Return a float32 as a number whose shortest decimal gives it back."""
    return float(str(value))


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[1], image.shape[2]


def as_seen(image: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] as uint8 on the CPU; uint8 ones as they are."""
    if not image.is_floating_point():
        return image.cpu()
    return (image.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)


def _unscored(trainer: pl.Trainer, bad: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield a sentence on the images that could not be read, and one on the files that were not taken for any."""
    if bad:
        names = ", ".join(f"{path} ({reason})" for path, reason in bad[:MOST_NAMES])
        more = f" and {len(bad) - MOST_NAMES} more" if len(bad) > MOST_NAMES else ""
        yield f"{len(bad)} images could not be read and have no score: {names}{more}"
    left_out = LeftOut()
    for source in getattr(getattr(trainer, "datamodule", None), "sources", {}).get("predict", {}).values():
        left_out.update(source.left_out)
    if left_out:
        yield str(left_out)


def unreadable(trainer: pl.Trainer) -> list[tuple[str, str]]:
    """Return path and reason of images that this process could not read."""
    sets = getattr(getattr(trainer, "datamodule", None), "sets", {}).get("predict", {})
    return [(str(path), str(reason)) for data in sets.values() for path, reason in dict(data.bad).items()]
