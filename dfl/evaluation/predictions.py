"""Scores of single images as a table on disk, or on standard output: what `predict` writes.

Rows are on disk as they come, so memory does not grow with the number of images, and a run that was killed goes on; the
file takes its name when it is complete. With several processes each writes its own part, and the parts are joined at
the end.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import BasePredictionWriter

from dfl.data import csv_files
from dfl.data.metadata import metadata as metadata_of
from dfl.data.metadata import need_c2pa
from dfl.distributed import largest, say
from dfl.errors import NothingDone, UserError, visible
from dfl.evaluation.maps import write_maps
from dfl.evaluation.parts import Part
from dfl.evaluation.rows import Row, encode, rows
from dfl.evaluation.said import Counts, unscored
from dfl.evaluation.videos import MOST_TIMELINES, Videos
from dfl.metrics.verdicts import Rule, rule_of
from dfl.runs.files import claimed, errors_in_one_line, may_be_file, whole
from dfl.runs.weights_hash import WeightsHash

SUFFIXES = (".csv", ".jsonl")
#: The output that is standard output, as CSV.
STANDARD = "-"


class PredictionWriter(BasePredictionWriter):
    """Write path, score, its log-odds, calibrated probability, verdict, threshold, domain and labels of each image.

    Score and probability are of fake. Labels are its label (0 real, 1 fake), group and video; empty where unknown.
    Detectors with class logits add ``class``, the most probable one, and ``prob_<class>`` for each; those that write
    add ``text``, and ``generated_text`` where that is a part of it.

    What a verdict follows from is `Measured.rule`, and is said at the end. Padding rows (index -1) are left out;
    unreadable images, and files that were not taken for images, are named on the terminal. Where nothing at all was
    scored, no file is written.

    With ``output`` the same command goes on after a kill: with the same weights, images and settings, batches that are
    on disk are not scored again, and the file has the bytes of an uncut run.

    Args:
        output: A ``.csv`` or ``.jsonl`` file, or ``-`` for standard output; by default ``predictions.csv`` in the log
            folder of the run.
        maps: Folder for the maps of detectors that give ``mask_logit``: for each image ``<domain>/<index>_<name>.png``,
            16 bits, 65535 = surely manipulated, as large as the detector's maps, and an overlay (JPEG) of the image as
            the network saw it. Where images were padded, both are of the image alone, as large as it was seen. The
            table then has a column ``map``.
        map_format: ``png``, or ``npz`` with float32 ``map`` (h, w).
        fpr: Share of real images that may be called fake; by default the threshold of the best balanced accuracy.
        coverage: Share of images that are to have a verdict; others are ``unsure``.
        metadata: Add what the files say of their making, `dfl.data.metadata.COLUMNS`; scores do not depend on it.
        trust: PEM file of certificates whose signed manifests are believed.
        stream: Where the rows go if ``output`` is ``-``.
    """

    def __init__(
        self,
        output: str | None = None,
        maps: str | None = None,
        map_format: Literal["png", "npz"] = "png",
        fpr: float | None = None,
        coverage: float = 1.0,
        metadata: bool = False,
        trust: str | None = None,
        stream: IO[str] | None = None,
    ) -> None:
        super().__init__("batch")
        if map_format not in ("png", "npz"):
            raise UserError(f"--map_format {map_format} must be png or npz")
        if output is not None and output != STANDARD and Path(output).suffix not in SUFFIXES:
            raise UserError(f"--output {output} must end in {' or '.join(SUFFIXES)}, or be {STANDARD}")
        self.maps = None if maps is None else Path(maps).expanduser()
        self.map_format, self.output, self.fpr, self.coverage = map_format, output, fpr, coverage
        #: Where the scores went, after the run; None for standard output.
        self.path: Path | None = None
        self._trusted = certificates(metadata, trust)
        self._stream = stream or sys.stdout
        self._part: Part | None = None
        #: What this process alone may write while it runs.
        self._claims = ExitStack()
        self._rule: Rule = rule_of(None, 0.5)
        self._names: dict[str, dict[int, str]] = {}
        #: Unreadable images that the part names, by domain.
        self._named: Counter[str] = Counter()
        self._counts, self._videos = Counts(), Videos()

    # at the beginning

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Let the data ask which batches need not be scored again, when the weights are there."""
        self._part = self.path = None
        data = getattr(trainer, "datamodule", None)
        if stage == "predict" and data is not None:
            data.done = lambda: self._begin(trainer, pl_module)
            if self._trusted is not None:
                for one in data.sets["predict"].values():
                    one.beside = partial(metadata_of, trusted=self._trusted)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, where there are plain loaders, which did not ask."""
        if self._part is None and self.output != STANDARD:
            self._begin(trainer, pl_module)

    def _begin(self, trainer: pl.Trainer, module: Any) -> Mapping[str, int]:
        """Open this process's part; return how many of its batches are scored already, by domain.

        Raises:
            UserError: If there is no such threshold; if the file or the folder of maps cannot be written, or another
                run is writing it.
        """
        self._rule = module.rule(self.fpr, self.coverage)
        vocab = getattr(getattr(trainer, "datamodule", None), "vocab", {})
        self._names = {c: {number: name for name, number in vocab.get(c, {}).items()} for c in ("group", "video")}
        self._named, self._counts, self._videos = Counter(), Counts(), Videos()
        if self.output == STANDARD and trainer.world_size > 1:
            raise UserError(f"--output {STANDARD} is for one process; name a file for several")
        path = Path(self.output).expanduser() if self.output else Path(trainer.log_dir or ".") / "predictions.csv"
        path = Path(trainer.strategy.broadcast(str(path)))
        if trainer.is_global_zero:
            if self.output != STANDARD:
                may_be_file(path)
                self._claims.enter_context(claimed(path))
            if self.maps is not None:
                self._claims.enter_context(claimed(self.maps, inside=True))
        trainer.strategy.barrier()
        if self.output == STANDARD:
            return {}
        self.path = path
        with errors_in_one_line(path):
            self._part = Part(self._part_of(trainer.global_rank), self._facts(trainer, module))
            # as many as every rank has; the last is scored again, since without any batch no hook would be called
            found = self._part.found[: max(0, -largest(trainer, -len(self._part.found)) - 1)]
            self._part.begin(len(found))
        if found:
            say(f"{path}: {len(found):,} batches are scored already; going on behind them")
        for batch in found:
            _bad(trainer, batch.domain).update(batch.bad)
            self._named[batch.domain] = len(_bad(trainer, batch.domain))
        return Counter(batch.domain for batch in found)

    def _facts(self, trainer: pl.Trainer, module: Any) -> dict[str, Any] | None:
        """Return all that decides which rows are written, of a run that may go on; None of one that begins anew."""
        data = getattr(trainer, "datamodule", None)
        if data is None or self.output is None or trainer.limit_predict_batches != 1.0:
            return None
        return {
            "weights": WeightsHash()(module.state_dict()),
            # a list's hash is of what is below its common folder
            "images": {name: [one.sha256, one.path(0)] for name, one in data.sets["predict"].items() if len(one)},
            "seen": [data.transform.spec(), data.views, data.size or module.input_size, data.max_pixels],
            "batches": [data.eval_batch_size, trainer.world_size, str(trainer.precision)],
            "table": [str(self.path), str(self.maps), self.map_format, self._rule.meaning, self._trusted],
        }

    # batch by batch

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
        """Write the rows of one batch.

        Raises:
            UserError: If maps are wanted of a detector that gives none.
        """
        beside: dict[str, Sequence[str]] = dict(batch.get("beside", {}))
        if "appearance" in batch:
            beside["unusual"] = trainer.datamodule.usual.unusual(batch["appearance"].cpu().numpy())  # type: ignore[attr-defined]
        if self.maps is not None:
            if "map" not in prediction:
                what = type(pl_module).__name__
                raise UserError(f"--maps: {what} gives no maps; leave it out, or take a detector that does")
            beside["map"] = write_maps(self.maps, self.map_format, prediction, batch)
        found = list(rows(prediction, self._rule, batch, self._names, beside))
        if self._part is None:
            self._print(found)
            return
        assert self.path is not None
        domain = prediction["domain"]
        bad = list(islice(_bad(trainer, domain).items(), self._named[domain], None))
        self._named[domain] += len(bad)
        with errors_in_one_line(self.path):
            self._part.add(domain, found, bad)

    def _print(self, found: Sequence[Row]) -> None:
        """Print rows as CSV, and before the first one the names of the columns."""
        if found and not self._counts.verdicts:
            self._stream.write(csv_files.line(found[0]))
        self._stream.writelines(encode(row, ".csv") for row in self._counted(found))
        self._stream.flush()

    def _counted(self, found: Iterable[Row]) -> Iterator[Row]:
        """Yield rows, and count them for the last line."""
        for row in found:
            self._counts.add(row)
            self._videos.add(row)
            yield row

    # at the end

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the parts under the final name, and say where the scores are, what they mean, and what has none.

        Raises:
            NothingDone: If no image was scored.
        """
        if self._part is not None:
            assert self.path is not None
            with errors_in_one_line(self.path):
                self._part.close()
        own = unreadable(trainer)
        every: list[Any] = [own] * trainer.world_size
        if trainer.world_size > 1:  # also waits until every part is complete
            torch.distributed.all_gather_object(every, own)
        if not trainer.is_global_zero:
            return
        sources = getattr(getattr(trainer, "datamodule", None), "sources", {}).get("predict", {}).values()
        lost = list(unscored(sorted({item for part in every for item in part}), sources))
        if self._part is not None:
            self._join([Part(self._part_of(rank), None) for rank in range(trainer.world_size)])
        self._claims.close()
        if not (total := self._counts.verdicts.total()):
            raise NothingDone("; ".join(["no image was scored", *lost]))
        maps = "" if self.maps is None else f", maps to {self.maps}"
        print(f"wrote {total} scores to {self.path or 'standard output'}{maps}: {self._counts}")
        if n := len(self._videos):
            print(self._of_videos(n))
        views = trainer.datamodule.views  # type: ignore[attr-defined]
        for line in (*self._counts.lines(self._rule.meaning, views), *lost):
            print(visible(line))

    def _of_videos(self, n: int) -> str:
        """Write the scores of n videos; return a line on them."""
        if self.path is None:
            return f"scores of {n:,} videos, and their timelines, need a table beside them: give --output FILE"
        drawn = f"; timelines of the first {MOST_TIMELINES} alone" if n > MOST_TIMELINES else ""
        return f"wrote scores of {n:,} videos to {self._videos.write(self.path, self._rule)}{drawn}"

    def _join(self, parts: Sequence[Part]) -> None:
        """Write the table from its parts, unless they hold no row, and remove them."""
        assert self.path is not None
        found = self._counted(chain.from_iterable(part.rows() for part in parts))
        try:
            if (first := next(found, None)) is None:
                return
            with whole(self.path) as partial, partial.open("w", newline="", encoding="utf-8") as out:
                if self.path.suffix == ".csv":
                    out.write(csv_files.line(first))
                out.writelines(encode(row, str(self.path)) for row in chain([first], found))
        finally:
            for part in parts:
                part.remove()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave no half-written file behind, but what the same command can go on with after an interruption."""
        if self._part is not None:
            with suppress(OSError):  # a full disk refuses the rest once more
                goes_on = self.output is not None and not isinstance(exception, UserError)
                self._part.close() if goes_on else self._part.remove()
        self._claims.close()

    def _part_of(self, rank: int) -> Path:
        assert self.path is not None
        return self.path.with_name(f".{self.path.name}.part{rank}")


def unreadable(trainer: pl.Trainer) -> list[tuple[str, str]]:
    """Return path and reason of images that this process could not read."""
    sets = getattr(getattr(trainer, "datamodule", None), "sets", {}).get("predict", {})
    return [(str(path), str(reason)) for name in sets for path, reason in dict(_bad(trainer, name)).items()]


def certificates(wanted: bool, file: str | None) -> str | None:
    """Return the certificates of a file, '' for none, or None if no metadata are wanted.

    Raises:
        UserError: If the package for them is missing, or the file holds no certificate.
    """
    if file is not None and not wanted:
        raise UserError(f"--trust {file} says whose signed manifests are believed: give --metadata too")
    if not wanted:
        return None
    if file is None:
        return ""
    need_c2pa()
    path = Path(file).expanduser()
    text = path.read_text("ascii", "replace") if path.is_file() else ""
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise UserError(f"--trust {file}: {'no certificate in PEM in it' if text else f'no such file in {Path.cwd()}'}")
    return text


def _bad(trainer: pl.Trainer, domain: str) -> dict[str, str]:
    """Return the unreadable images of a domain so far, path to reason; of plain loaders nothing is known."""
    sets = getattr(getattr(trainer, "datamodule", None), "sets", {}).get("predict", {})
    return sets[domain].bad if domain in sets else {}
