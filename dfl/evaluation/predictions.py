"""Scores of single images as a table on disk: what `predict` writes.

Rows go to a temporary file as they come, so memory does not grow with the number of images; the file takes its name
when it is complete. With several processes each writes its own part, and the parts are joined at the end.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import BasePredictionWriter

from dfl.data import csv_files
from dfl.data.formats import LeftOut
from dfl.errors import NothingDone, UserError, visible
from dfl.evaluation.examples import overlay, without_padding
from dfl.metrics import resize_map
from dfl.metrics.measures import TEXT_OUTPUTS
from dfl.runs.files import claimed, errors_in_one_line, may_be_file, whole, write

COLUMNS = ("path", "score", "verdict", "threshold", "domain", "label", "group", "video")
Row = tuple[Any, ...]
SUFFIXES = (".csv", ".jsonl")
#: Names of unreadable images that are printed; the rest is counted.
MOST_NAMES = 10


class PredictionWriter(BasePredictionWriter):
    """Write path, score (probability of fake), verdict, threshold and domain of each image, and what is known of it.

    What is known are its label (0 real, 1 fake), group and video; empty where not. Detectors that tell classes add
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
        self.maps = None if maps is None else Path(maps).expanduser()
        self.map_format = map_format
        if output is not None and Path(output).suffix not in SUFFIXES:
            raise UserError(f"--output {output} must end in {' or '.join(SUFFIXES)}")
        self.output = output
        #: Where the scores went, after the run.
        self.path: Path | None = None
        self._file: IO[str] | None = None
        #: What this process alone may write while it runs.
        self._held = ExitStack()
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
            self._held.enter_context(claimed(self.path))
            if self.maps is not None:
                self._held.enter_context(claimed(self.maps, inside=True))
        trainer.strategy.barrier()
        self._rows = 0
        self._names = {column: names_of(trainer, column) for column in ("group", "video")}
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
        threshold = 0.5 if math.isnan(stored) else stored
        written = self._write_maps(pl_module, prediction, batch)
        self._columns = (*COLUMNS, *answered(prediction), *(["map"] if written else []))
        with errors_in_one_line(self.path):
            for row in rows(prediction, threshold, batch, self._names):
                line = (*row, next(written)) if written else row
                self._file.write(encode(line, str(self.path), self._columns))
                self._rows += 1

    def _write_maps(self, module: Any, prediction: dict[str, Any], batch: Any) -> Iterator[str] | None:
        """Write the maps of a batch; return their files in the order of its rows, or None if none are wanted.

        Raises:
            UserError: If the detector gives no maps.
        """
        if self.maps is None:
            return None
        if "map" not in prediction:
            raise UserError(
                f"--maps: {type(module).__name__} gives no maps; leave it out, or take a detector that does"
            )
        folder = self.maps / prediction["domain"]
        files = []
        images = as_seen(batch["image"], module)
        for i, index in enumerate(prediction["index"].tolist()):
            if index < 0:
                continue
            prob, extent = prediction["map"][i].float().cpu(), None
            if "extent" in prediction:  # back from the padded square to the image, as large as it was seen
                extent = prediction["extent"][i]
                prob = without_padding(
                    resize_map(prob[None], (images.shape[2], images.shape[3]))[0].clamp(0, 1), extent
                )
            file = folder / f"{index:06d}_{Path(prediction['path'][i]).stem}.{self.map_format}"
            content = io.BytesIO()
            if self.map_format == "npz":
                np.savez_compressed(content, map=prob.numpy())
            else:
                Image.fromarray((prob.numpy() * 65535).round().astype(np.uint16)).save(content, "png")
            write(file, content.getvalue(), sync=False)
            image, content = without_padding(images[i], extent), io.BytesIO()
            over = resize_map(prob[None], (image.shape[1], image.shape[2]))[0]
            laid = overlay(image, over).permute(1, 2, 0).contiguous().numpy()
            Image.fromarray(laid).save(content, "jpeg", quality=92)
            write(file.with_name(f"{file.stem}_overlay.jpg"), content.getvalue(), sync=False)
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
        self._join(trainer.world_size, max(columns, key=len))  # a rank without an image knows only those of all
        self._held.close()
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
        self._held.close()

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
    batch: Mapping[str, Any] | None = None,
    names: Mapping[str, Mapping[int, str]] | None = None,
) -> Iterator[Row]:
    """Yield one row of ``COLUMNS`` and of what is `answered`, for each image of a batch, without padding.

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
    scores = prediction["score"].float().cpu().numpy()
    limit = np.float32(threshold)
    known = [_known(batch or {}, column, (names or {}).get(column, {}), len(scores)) for column in COLUMNS[5:]]
    more = _answers(prediction, len(scores))
    columns = zip(scores, prediction["index"].tolist(), prediction["path"], *known, more, strict=True)
    for score, index, path, label, group, video, answer in columns:
        if index >= 0 and math.isnan(score):
            raise UserError(
                f"the score of {path} is no number, and no scores are written: the weights are damaged, or "
                "trainer.precision is too coarse for them"
            )
        if index >= 0:
            verdict = "fake" if score >= limit else "real"
            told = label if label == "" else int(label)
            yield path, _short(score), verdict, _short(limit), prediction["domain"], told, group, video, *answer


def answered(prediction: Mapping[str, Any]) -> list[str]:
    """Return the columns of what a detector tells beyond its score: classes and text."""
    classes = ["class", *(f"prob_{name}" for name in prediction["class_names"])] if "class_prob" in prediction else []
    return classes + [name for name in TEXT_OUTPUTS if name in prediction]


def _answers(prediction: Mapping[str, Any], n: int) -> list[list[Any]]:
    """Return the cells of `answered` for each of n images."""
    cells: list[list[Any]] = [[] for _ in range(n)]
    if "class_prob" in prediction:
        for row, prob in zip(cells, prediction["class_prob"].float().cpu().numpy(), strict=True):
            row += [prediction["class_names"][int(prob.argmax())], *map(_short, prob)]
    for name in TEXT_OUTPUTS:
        for row, said in zip(cells, prediction.get(name, []), strict=False):
            row.append(said)
    return cells


def _short(value: np.float32) -> float:
    """Return a float32 as a number whose shortest decimal gives it back."""
    return float(str(value))


def _known(batch: Mapping[str, Any], column: str, names: Mapping[int, str], n: int) -> list[str]:
    """Return a column of a batch as names, '' for unknown."""
    ids = batch[column].tolist() if column in batch else [-1] * n
    return ["" if one < 0 else names.get(one, str(one)) for one in ids]


def names_of(trainer: pl.Trainer, column: str) -> dict[int, str]:
    """Return the name by id of a column of the data module's vocabulary."""
    vocab = getattr(getattr(trainer, "datamodule", None), "vocab", {})
    return {number: name for name, number in vocab.get(column, {}).items()}


def as_seen(image: torch.Tensor, module: Any) -> torch.Tensor:
    """Return images (N, 3, H, W) in [0, 1] as uint8 on the CPU; uint8 ones as they are."""
    if not image.is_floating_point():
        return image.cpu()
    return (image.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)


def encode(row: tuple[Any, ...], name: str, columns: tuple[str, ...] = COLUMNS) -> str:
    """Return a row as a line of CSV, or of JSON, without what is unknown, where the file's name says so."""
    if name.endswith(".jsonl"):
        told = {column: cell for column, cell in zip(columns, row, strict=True) if cell != ""}
        return json.dumps(told, ensure_ascii=False) + "\n"
    return csv_files.line(row)


def _unscored(trainer: pl.Trainer, lost: list[tuple[str, str]]) -> Iterator[str]:
    """Yield what is to be said of the images that could not be read, and of the files that were not taken for any."""
    if lost:
        names = ", ".join(f"{path} ({reason})" for path, reason in lost[:MOST_NAMES])
        more = f" and {len(lost) - MOST_NAMES} more" if len(lost) > MOST_NAMES else ""
        yield f"{len(lost)} images could not be read and have no score: {names}{more}"
    left_out = LeftOut()
    for source in getattr(getattr(trainer, "datamodule", None), "sources", {}).get("predict", {}).values():
        left_out.update(source.left_out)
    if left_out:
        yield str(left_out)


def unreadable(trainer: pl.Trainer) -> list[tuple[str, str]]:
    """Return path and reason of images that this process could not read, as the data module booked them."""
    sets = getattr(getattr(trainer, "datamodule", None), "sets", {}).get("predict", {})
    return [(str(path), str(reason)) for data in sets.values() for path, reason in dict(data.bad).items()]
