"""``predict --ray N``: parts of a long list, each scored by one of N workers that hold a detector each.

A part is a slice of the list, a whole number of batches long, and a Parquet file of the rows that `predict` writes of
it. Each part is made by `predict` itself, in a worker, so scores are those of one process; a part that is there is not
made again. Of a bucket, a worker copies the images of a part first, and removes them after it.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytorch_lightning as pl
import torch
from lightning_utilities.core.imports import RequirementCache

from dfl.cli.buckets import Bucket
from dfl.data import DataModule, Source, csv_files
from dfl.data.appearance import Usual
from dfl.data.sources.base import put
from dfl.detectors.base import Detector
from dfl.detectors.loading import load
from dfl.errors import NothingDone, UserError, first_line, visible
from dfl.evaluation.predictions import PredictionWriter
from dfl.evaluation.said import Counts, unscored
from dfl.runs.checkpoint import read_checkpoint
from dfl.runs.files import claimed, remove, whole, write
from dfl.runs.weights_hash import WeightsHash

_HAS_RAY = RequirementCache("ray>=2.40")
#: Images of a part, or the next whole number of batches.
PART = 1024
#: What decides the rows of all parts, beside them.
FACTS = "_job.json"  # by which letter readers of a folder of Parquet know that it is none of the parts
#: Where a part says, in JSON, what its verdicts mean and what of it could not be read.
KEY = b"dfl"
#: Columns of numbers; all others are text.
NUMBERS = ("score", "logit", "probability", "threshold")


@dataclass(frozen=True)
class Job:
    """What every worker is told.

    Attributes:
        checkpoint: The detector.
        places: Hyper-parameters that name files, which a checkpoint does not bring.
        data: Arguments of the `DataModule` but for its sources.
        writer: Arguments of the `PredictionWriter`.
        usual: What the training images look like.
        precision: Of the trainer.
        place: The working directory, which paths start from.
        folder: Where the parts go.
        bucket: What the paths of rows are addresses of; None: they are files.
    """

    checkpoint: Path
    places: dict[str, Any]
    data: dict[str, Any]
    writer: dict[str, Any]
    usual: Usual | None
    precision: str
    place: Path
    folder: Path
    bucket: Bucket | None

    def file(self, number: int) -> Path:
        """Return the file of a part."""
        return self.folder / f"part-{number:06d}.parquet"


class Rows(Source):
    """Rows of another source, as they are."""

    def __init__(self, table: pa.Table) -> None:
        super().__init__()
        self.table = table

    def items(self, split: str) -> pa.Table:
        """Return them, whatever the split."""
        return self.table


class Worker:
    """One detector, and the parts that it is given; Ray keeps it in a process of its own."""

    def __init__(self, job: Job) -> None:
        os.chdir(job.place)
        self.job, self.detector = job, load(job.checkpoint, **job.places)

    def __call__(self, part: Mapping[str, Any]) -> dict[str, str]:
        """Score a part and write its file.

        Args:
            part: Its ``number``, ``domain`` and ``rows``, a table in Arrow's format for streams.

        Returns:
            ``error``: why there is no part, or ''. It is not raised, since Ray would hand on the words of its traceback
            and not the error.
        """
        try:
            self._score(part)
        except UserError as error:
            return {"error": str(error)}
        return {"error": ""}

    def _score(self, part: Mapping[str, Any]) -> None:
        job, number = self.job, int(part["number"])
        table = pa.ipc.open_stream(part["rows"]).read_all()
        settings: dict[str, Any] = {"devices": 1, "precision": job.precision, "logger": False}
        settings |= dict.fromkeys(("enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        with tempfile.TemporaryDirectory() as folder:
            file, names = Path(folder, "rows.csv"), table["path"].to_pylist()
            places = names if job.bucket is None else job.bucket.copies(names, Path(folder))
            called = dict(zip(places, names, strict=True))
            data = DataModule(predict={str(part["domain"]): Rows(put(table, "path", places))}, **job.data)
            data.usual = job.usual
            trainer = pl.Trainer(callbacks=[PredictionWriter(str(file), **job.writer)], **settings)
            try:
                trainer.predict(self.detector, data, return_predictions=False)
                found = _typed(csv_files.read(file))
                found = put(found, "path", [called.get(place, place) for place in found["path"].to_pylist()])
            except NothingDone:
                found = pa.table({})
        bad = next(iter(data.sets["predict"].values())).bad
        said = {
            "meaning": self.detector.rule(job.writer["fpr"], job.writer["coverage"]).meaning,
            "bad": [(called.get(str(path), str(path)), str(why)) for path, why in bad.items()],
        }
        _write(job.file(number), found.replace_schema_metadata({KEY: json.dumps(said).encode()}))


def _write(file: Path, table: pa.Table) -> None:
    with whole(file) as partial:
        pq.write_table(table, partial)


def _typed(table: pa.Table) -> pa.Table:
    """Return a table of text with its numbers as numbers."""
    for i, name in enumerate(table.column_names):
        if name in NUMBERS or name.startswith("prob_"):
            known = pc.if_else(pc.equal(table[name], ""), None, table[name])
            table = table.set_column(i, name, known.cast(pa.float64()))
    return table


def run(
    detector: Detector,
    checkpoint: Path,
    data: DataModule,
    writer: dict[str, Any],
    precision: str,
    output: str,
    workers: int,
) -> None:
    """Score the data of ``predict`` by Ray; say what `predict` says at its end.

    Args:
        detector: As the checkpoint says; its weights are not read here.
        checkpoint: Its file.
        data: What to predict.
        writer: Arguments of the `PredictionWriter`, without the output.
        precision: Of the trainer.
        output: Folder of the parts.
        workers: How many processes, each with a GPU where there are some.

    Raises:
        UserError: If Ray is missing, maps are wanted, the folder holds parts of another job, or a worker meets one.
        NothingDone: If no image was scored.
    """
    if not _HAS_RAY:
        raise UserError("--ray needs the package ray: pip install 'dfl[ray]'")
    if writer.get("maps") is not None:
        raise UserError("--ray writes tables alone: leave --maps out")
    if workers < 1:
        raise UserError(f"--ray {workers} must be at least one worker")
    import ray  # an extra
    import ray.data

    settings = ("batch_size", "eval_batch_size", "num_workers", "on_bad", "max_bad", "max_pixels", "views", "transform")
    kept = {name: getattr(data, name) for name in settings} | {"num_workers": 0, "size": data.size}
    places = {name: detector.hparams[name] for name in detector.places if detector.hparams.get(name) is not None}
    folder = Path(output).expanduser().resolve()
    sources = list(data.sources["predict"].values())
    bucket = next((source for source in sources if isinstance(source, Bucket)), None)
    job = Job(checkpoint.resolve(), places, kept, writer, data.usual, precision, Path.cwd(), folder, bucket)
    parts = list(_parts(data, -(-PART // data.eval_batch_size) * data.eval_batch_size))
    with claimed(job.folder, inside=True):
        _begin(job, parts)
        missing = [part for part in parts if not job.file(part["number"]).is_file()]
        print(f"{job.folder}: {len(parts) - len(missing):,} of {len(parts):,} parts are there")
        if missing:
            try:
                ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
            except Exception as error:  # of any kind: no cluster, no memory, no time
                raise UserError(f"Ray does not start: {first_line(error)}") from error
            gpus = 1 if torch.cuda.is_available() else 0
            asked = ray.data.from_items(missing, override_num_blocks=len(missing))
            done = asked.map(Worker, fn_constructor_args=(job,), concurrency=workers, num_gpus=gpus).take_all()
            if errors := [one["error"] for one in done if one["error"]]:
                raise UserError(f"{len(errors):,} of {len(parts):,} parts were not made, the first: {errors[0]}")
        _tell(job, [job.file(part["number"]) for part in parts], data.views, sources)


def _tell(job: Job, files: list[Path], views: str, sources: list[Source]) -> None:
    """Say of all parts, whichever command made them, what `predict` says of its table; give each the same columns.

    Raises:
        NothingDone: If no image was scored; no part is left then.
    """
    counts, schema, meaning, videos = Counts(), None, "", False
    bad: set[tuple[str, str]] = set()
    empty: list[tuple[Path, pa.Schema]] = []
    for file in files:
        with pq.ParquetFile(file) as part:
            own, rows = part.schema_arrow, part.metadata.num_rows
            found = part.read([name for name in ("verdict", "unusual", "video") if name in own.names]).to_pylist()
        said = json.loads((own.metadata or {})[KEY])
        bad.update((path, why) for path, why in said["bad"])
        for row in found:
            counts.add(row)
            videos = videos or bool(row["video"])
        if rows:
            schema, meaning = own, said["meaning"]
        else:
            empty.append((file, own))
    lost = list(unscored(sorted(bad), sources))
    if schema is None:
        for file in (*files, job.folder / FACTS):
            remove(file)
        raise NothingDone(visible("; ".join(["no image was scored", *lost])))
    for file, own in empty:
        if own.names != schema.names:  # or a folder with it would not be read as one table
            _write(file, schema.empty_table().replace_schema_metadata(own.metadata))
    total = counts.verdicts.total()
    print(f"wrote {total:,} scores to {len(files):,} parts in {job.folder}: {counts}")
    if videos:
        print("scores of whole videos, and their timelines, are made without --ray alone")
    for line in (*counts.lines(meaning, views), *lost):
        print(visible(line))


def _parts(data: DataModule, size: int) -> Iterator[dict[str, Any]]:
    """Yield all parts of all domains, in order."""
    number = 0
    for domain, source in data.sources["predict"].items():
        source.prepare()
        table = source.load("test").combine_chunks()
        for start in range(0, len(table), size):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table.slice(start, size))
            yield {"number": number, "domain": domain, "rows": sink.getvalue().to_pybytes()}
            number += 1


def _begin(job: Job, parts: list[dict[str, Any]]) -> None:
    """Note what the job is; refuse a folder with parts of another one."""
    images = hashlib.sha256(b"".join(hashlib.sha256(part["rows"]).digest() for part in parts)).hexdigest()
    data = job.data | {"transform": job.data["transform"].spec()}
    weights = WeightsHash()(read_checkpoint(job.checkpoint)["state_dict"])
    facts = {"weights": weights, "images": images, "data": data, "writer": job.writer, "precision": job.precision}
    text, file = json.dumps(facts, indent=1, sort_keys=True, default=str), job.folder / FACTS
    if file.is_file() and file.read_text("utf-8") != text:
        raise UserError(f"{job.folder} holds parts of other weights, images or settings ({FACTS}): give another folder")
    if (job.folder / "job.json").is_file():
        raise UserError(f"{job.folder} holds parts of an older dfl: give another folder")
    if not file.is_file() and any(job.folder.glob("part-*.parquet")):
        raise UserError(f"{job.folder} holds parts that are not of dfl (there is no {FACTS}): give another folder")
    write(file, text)
