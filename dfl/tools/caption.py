"""``dfl data caption``: the same table with a caption of each image, which a pretrained model writes.

Detectors that read words beside the picture (`DeFake`) train on it; generators can be prompted with it. Cut off at any
moment, the same command goes on: parts lie beside the output until they are all there. An image is in the same batch
whatever was there before, so the file is the one that an uninterrupted run writes.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image
from dfl.data.sources.base import put
from dfl.errors import UserError
from dfl.runs.files import claimed, write
from dfl.runs.workers import Workers
from dfl.tools.common import Common, findable, fingerprint, list_missing, parquet_file, processes, write_parquet
from dfl.tools.file_facts import stamp
from dfl.tools.sources import read_rows

if TYPE_CHECKING:  # processes that decode images need no transformers
    from dfl.networks.captioner import Captioner

#: Batches of a part: what is lost at most when a run is cut off.
PART = 4
#: Where a table keeps what its captions were written by and of.
KEY = b"dfl.caption"


def caption(
    sources: list[str],
    model: str,
    output: str = "captions.parquet",
    batch: int = 16,
    beams: int = 3,
    shortest: int = 5,
    longest: int = 60,
    prompt: str = "",
    keep: bool = False,
    max_bad: float = 0.01,
    device: str | None = None,
    **common: Unpack[Common],
) -> Path:
    """Write a table of the images with a caption of each.

    Args:
        sources: Data configs, folders, tables.
        model: A captioner of transformers, by folder or hub name: BLIP, GIT, ViT-GPT2.
        output: The table, a Parquet file, read by ``Table``. Images without a caption are not in it, but listed beside
            it (``.missing.csv``).
        batch: Images at once.
        beams: Of the beam search; 1 takes the most likely token each time.
        shortest: Fewest tokens of a caption.
        longest: Most tokens of a caption.
        prompt: Words that the model goes on from, such as "a picture of"; captions leave them out.
        keep: Leave captions that a source has, such as the prompts of generated images, as they are.
        max_bad: Largest share of images without a caption that is accepted.
        device: Where the model runs, such as ``cpu``; by default a GPU if there is one.
        **common: Options of every verb.

    Returns:
        The table's file.

    Raises:
        UserError: If the model is none that captions, too many images cannot be read, or what was begun is of another
            model or of other images.
    """
    from dfl.networks.captioner import Captioner  # slow to import

    if batch < 1:
        raise UserError(f"--batch is {batch}: it must be at least 1")
    file = parquet_file(output)
    table = read_rows(sources, common.get("root"))
    with claimed(file):
        captioner = Captioner(model, beams, shortest, longest, prompt, device)
        settings = captioner.about() | {"batch": batch, "keep": keep, "rows": fingerprint(table)}
        stamps = [list(stamp(path)) for path in table["path"].to_pylist()]
        whole = settings | {"files": hashlib.sha256(json.dumps(stamps).encode()).hexdigest()}
        if _written_by(file) != whole:
            parts = _begin(file, settings)
            with processes(len(table), "caption", common) as pool:
                results = list(_captions(captioner, table, stamps, parts, batch, keep, pool))
            _write(file, table, results, whole, max_bad)
            shutil.rmtree(parts)
    written = pq.read_table(file, columns=["caption"])
    print(f"{len(written):,} captions in {file}, such as {written['caption'][0].as_py()!r}")
    return file


def _written_by(file: Path) -> Any:
    """Return the settings that a table was written with; None if there is none."""
    with suppress(OSError, ValueError):
        return json.loads((pq.read_schema(file).metadata or {}).get(KEY, b"null"))


def _begin(file: Path, settings: dict[str, Any]) -> Path:
    """Return the folder of the parts, which holds those of an earlier run with the same settings.

    Raises:
        UserError: If it holds those of another.
    """
    parts = file.with_name(f".{file.name}.parts")
    record = parts / "caption.json"
    if record.is_file():
        with suppress(ValueError):
            before = json.loads(record.read_text(encoding="utf-8"))
            if before != settings:
                other = next(key for key in settings if settings[key] != before.get(key))
                raise UserError(
                    f"{parts} holds captions of a run that was cut off, with other settings ({other}): finish it, "
                    "remove the folder, or give another --output"
                )
            return parts
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    write(record, json.dumps(settings))
    return parts


def _captions(
    captioner: "Captioner",
    table: pa.Table,
    stamps: list[list[int]],
    parts: Path,
    batch: int,
    keep: bool,
    pool: Workers,
) -> Iterator[list[str]]:
    """Yield caption and '', or '' and why there is none, of each row.

    Those of a part that is there are in its file, if its images have the sizes and times that they had.
    """
    rows = table.select(["path", "bits", "caption"]).to_pylist()
    for start in range(0, len(rows), PART * batch):
        here = slice(start, start + PART * batch)
        file, done = parts / f"{start:09d}.json", {}
        with suppress(OSError, ValueError):  # not there, or empty after a power cut
            done = json.loads(file.read_text(encoding="utf-8"))
        if done.get("stamps") == stamps[here]:
            pool.completed(start + len(rows[here]))
        else:
            done = {"stamps": stamps[here], "results": _part(captioner, rows[here], batch, keep, pool)}
            write(file, json.dumps(done), sync=False)
        yield from done["results"]


def _part(captioner: "Captioner", rows: list[dict[str, Any]], batch: int, keep: bool, pool: Workers) -> list[list[str]]:
    """Return the results of the rows of a part."""
    jobs = [None if keep and row["caption"] else (row["path"], row["bits"]) for row in rows]
    results = [[row["caption"], ""] for row in rows]
    images: dict[int, np.ndarray] = {}
    for i, image in enumerate(pool.map(_image, jobs)):
        if isinstance(image, str):
            results[i] = ["", image]
        elif image is not None:
            images[i] = image
        if len(images) == batch or i == len(jobs) - 1:
            for k, text in zip(images, captioner(list(images.values())) if images else [], strict=True):
                results[k] = [text, "" if text else "the model wrote nothing"]
            images.clear()
    return results


def _image(job: tuple[str, int] | None) -> np.ndarray | str | None:
    """Return the pixels of an image, or why it cannot be read; None of none."""
    if job is None:
        return None
    try:
        return load_image(job[0], bits=job[1])
    except DecodeError as error:
        return error.reason


def _write(file: Path, table: pa.Table, results: list[list[str]], settings: dict[str, Any], max_bad: float) -> None:
    """Write the rows that have a caption."""
    captions, reasons = (pa.array(column, pa.string()) for column in zip(*results, strict=True))
    missing = {p: r for p, r in zip(table["path"].to_pylist(), reasons.to_pylist(), strict=True) if r}
    list_missing(missing, len(table), file, "caption", "max_bad", max_bad)
    table = put(table, "caption", captions).filter(pa.array([not r for r in reasons.to_pylist()]))
    write_parquet(file, findable(table, file).replace_schema_metadata({KEY: json.dumps(settings)}))
