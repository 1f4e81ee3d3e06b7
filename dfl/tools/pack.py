"""``dfl data pack``: small images in few large files, for training that waits for neither decoder nor network.

A shard is an Arrow IPC file: the columns ``image`` and ``mask`` hold the bytes of files, the others what is known of
each row. It is memory-mapped, so any row can be read at any time for the cost of its own bytes. That is what makes the
promise of exact resume hold for packed sets without further code: the sampler asks for (row, epoch) as it does for
files. ``Packed`` reads the folder.

Cut off at any moment, the same command goes on with the next shard. The bytes depend on the images alone, never on the
number of processes; only the record holds a date.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image, read_bytes, split
from dfl.data.masks import load_mask
from dfl.data.sources.base import ROW_SCHEMA
from dfl.data.sources.packed import INDEX, RECORD
from dfl.data.workers import Workers, making
from dfl.errors import UserError
from dfl.runs.files import whole, write
from dfl.tools.given import open_sources, rows
from dfl.tools.output import BadImages, Output, fingerprint
from dfl.tools.pixels import encoded, shorter_to

#: Rows of a batch of a shard: what is in memory at once while a shard is written.
BATCH = 64
#: What a shard and the index know of a row; ``origin`` is what the image was made from.
KNOWN = pa.schema(
    [
        *(field for field in ROW_SCHEMA if field.name not in ("path", "mask", "mask_rule")),
        *(("set", pa.string()), ("origin", pa.string()), ("width", pa.int32()), ("height", pa.int32())),
    ]
)
SHARD_SCHEMA = pa.schema([("image", pa.large_binary()), ("mask", pa.large_binary()), *KNOWN])


def pack(
    sources: list[str],
    output: str,
    size: int = 256,
    encoding: Literal["raw", "png", "jpeg"] = "raw",
    quality: int = 95,
    keep: bool = False,
    shard: int = 4096,
    max_bad: float = 0.01,
    root: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the images into shards, the larger ones shrunk, with an index and a record; read by ``Packed``.

    Args:
        sources: Data configs, folders, tables.
        output: The folder: ``shard-*.arrow``, ``index.parquet`` and ``pack.json``.
        size: Pixels of the shorter side of larger images, antialiased; nothing is cut off or enlarged.
        encoding: ``raw`` (uncompressed) and ``png`` keep every pixel: the first is read many times as fast, the second
            takes a quarter less room. ``jpeg`` (4:4:4) keeps nearly all.
        quality: Of a JPEG, 1 to 100.
        keep: Keep the bytes of files that need no shrinking, whatever their format.
        shard: Images of a shard.
        max_bad: Largest share of images that may be left out: unreadable, or with an unusable mask.
        root: Folder that replaces the root of every source of the configs.
        workers: Processes; by default one for each core.
        progress: Show a progress bar.

    Returns:
        The folder.

    Raises:
        UserError: If too many must be left out, or the folder holds something else.
    """
    if size < 16 or not 1 <= quality <= 100 or shard < 1:
        raise UserError(
            f"pack: size is at least 16, quality 1 to 100, shard at least 1, not {size}, {quality}, {shard}"
        )
    table = rows(open_sources(sources, root), decide=True)
    settings: dict[str, Any] = {"size": size, "encoding": encoding, "keep": keep, "shard": shard}
    settings |= {"quality": quality} if encoding == "jpeg" else {}
    with making("pack", Path(output)):
        folder = Output(output, "pack", settings | {"rows": fingerprint(table)})
        if not folder.done:
            pool, bad = Workers(len(table), "pack", workers, progress), BadImages(len(table), max_bad)
            _fill(folder, table, settings, bad, pool)
    record = json.loads((folder.folder / RECORD).read_text(encoding="utf-8"))
    size_in_all = sum(one["bytes"] for one in record["shards"])
    print(
        f"{record['images']:,} images in {folder.folder}: {len(record['shards'])} shards, {size_in_all / 1e6:,.1f} MB"
        + " (they were there)" * folder.done
    )
    return folder.folder


def _fill(folder: Output, table: pa.Table, settings: dict[str, Any], left: BadImages, workers: Workers) -> None:
    """Write all shards, the index and the record."""
    shards: list[dict[str, Any]] = []
    with workers as pool:
        for start in range(0, len(table), settings["shard"]):
            piece = table.slice(start, settings["shard"])
            shards.append(_shard(folder.partial, len(shards), piece, settings, left, pool))
    index = pa.concat_tables([_index(folder.partial / one["file"]) for one in shards])
    if not len(index):
        raise UserError(f"pack: no image is left{left.in_words()}")
    with whole(folder.partial / INDEX) as part:
        pq.write_table(index, part)
    for one in shards:
        (folder.partial / f"{one['file']}.json").unlink()
    if left.images:
        print(f"pack{left.in_words()}".replace("; ", ": ", 1))
    facts = {"file": INDEX, **_facts(folder.partial / INDEX)}
    folder.finish(images=len(index), shards=shards, index=facts, left_out=left.images)


def _shard(
    folder: Path, number: int, piece: pa.Table, settings: dict[str, Any], left: BadImages, pool: Workers
) -> dict[str, Any]:
    """Write a shard, unless it is there; return its facts: file, rows, bytes, sha256."""
    name = f"shard-{number:05d}.arrow"
    note = folder / f"{name}.json"
    if note.is_file():  # written after its shard
        found = json.loads(note.read_text(encoding="utf-8"))
        pool.skip(len(piece))
    else:
        tasks = zip(*(piece[column].to_pylist() for column in ("path", "mask", "mask_rule", "bits")), strict=True)
        bad: list[tuple[str, str]] = []
        with whole(folder / name) as part:
            with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, SHARD_SCHEMA) as writer:
                for batch in _batches(piece, pool.map(partial(_packed, settings), tasks), bad):
                    writer.write_batch(batch)
            facts = _facts(part)
        found = {"facts": {"file": name, "rows": len(piece) - len(bad), **facts}, "left_out": bad}
        write(note, json.dumps(found))
    for path, reason in found["left_out"]:
        left.add(path, reason)
    facts_of_shard: dict[str, Any] = found["facts"]
    return facts_of_shard


def _batches(piece: pa.Table, answers: Iterator[Any], bad: list[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
    """Yield batches of ``BATCH`` rows, the last one shorter; book what cannot be read."""
    origins = piece["path"].to_pylist()
    known = piece.append_column("origin", piece["path"])

    def good() -> Iterator[tuple[int, Any]]:
        for i, (answer, reason) in enumerate(answers):
            if reason:
                bad.append((origins[i], reason))
            else:
                yield i, answer

    readable = good()
    while rows_of_batch := list(islice(readable, BATCH)):
        taken = known.take(pa.array([i for i, _ in rows_of_batch]))
        images, masks, widths, heights = zip(*(answer for _, answer in rows_of_batch), strict=True)
        made = {"image": images, "mask": masks, "width": widths, "height": heights}
        columns = [
            pa.array(made[field.name], field.type) if field.name in made else taken[field.name].combine_chunks()
            for field in SHARD_SCHEMA
        ]
        yield pa.record_batch(columns, schema=SHARD_SCHEMA)


def _packed(
    settings: dict[str, Any], task: tuple[str, str, str, int]
) -> tuple[tuple[bytes, bytes | None, int, int], str]:
    """Return the bytes of an image and its mask with width and height, and why there are none."""
    path, mask, rule, bits = task
    try:
        image = load_image(path, bits=bits)
        area = load_mask(mask, rule, (image.shape[1], image.shape[0]))
        small = min(image.shape[:2]) <= settings["size"]
        as_it_is = settings["keep"] and small and "xywh" not in split(path)[1]
        content = read_bytes(path) if as_it_is else b""
    except DecodeError as error:
        return (b"", None, 0, 0), error.reason
    if not small:
        image, area = shorter_to(image, area, settings["size"])
    content = content or encoded(image, settings["encoding"], settings.get("quality", 95))
    return (content, None if area is None else encoded(area, "png"), image.shape[1], image.shape[0]), ""


def _index(shard: Path) -> pa.Table:
    """Return the rows of a shard without their bytes, the images and masks as locators that start at its folder."""
    options = pa.ipc.IpcReadOptions(included_fields=[SHARD_SCHEMA.get_field_index(n) for n in ("mask", *KNOWN.names)])
    with pa.OSFile(str(shard)) as file:  # read, not mapped: the rows outlive it
        known = pa.ipc.open_file(file, options=options).read_all()
    numbers = pa.array([str(i) for i in range(len(known))], pa.string())
    has_mask = pc.is_valid(known["mask"])
    places = [
        pc.binary_join_element_wise(f"{shard.name}#column={column}&row=", numbers, "") for column in ("image", "mask")
    ]
    columns = {name: known[name] for name in KNOWN.names}
    columns |= {"path": places[0], "mask": pc.if_else(has_mask, places[1], "")}
    columns["mask_rule"] = pa.array([""] * len(known), pa.string())
    return pa.table(columns).select([*ROW_SCHEMA.names, *(n for n in KNOWN.names if n not in ROW_SCHEMA.names)])


def _facts(file: Path) -> dict[str, Any]:
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}
