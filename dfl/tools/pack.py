"""``dfl data pack``: small images in few large files, for training that waits for neither decoder nor network.

A shard is an Arrow IPC file: the columns ``image`` and ``mask`` are the bytes of files, the others those of each row.
It is memory-mapped, so any row can be read at any time for the cost of its own bytes, and the sampler asks for (row,
epoch) as it does for files. ``Packed`` reads the folder.
"""

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Unpack

import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image, read_bytes, split
from dfl.data.masks import load_mask
from dfl.data.sources.base import ROW_SCHEMA
from dfl.data.sources.packed import INDEX, RECORD
from dfl.errors import UserError
from dfl.runs.files import whole
from dfl.runs.output_folder import OutputFolder, output_folder
from dfl.runs.workers import Workers
from dfl.tools.common import BadImages, Common, fingerprint, processes, write_parquet
from dfl.tools.pixels import encoded, shorter_to
from dfl.tools.sources import read_rows

#: Rows of a batch of a shard: what is in memory at once while a shard is written.
BATCH = 64
#: Columns of both a shard and the index; ``origin`` is what the image was made from.
ROW_COLUMNS = pa.schema(
    [
        *(field for field in ROW_SCHEMA if field.name not in ("path", "mask", "mask_rule")),
        *(("set", pa.string()), ("origin", pa.string()), ("width", pa.int32()), ("height", pa.int32())),
    ]
)
SHARD_SCHEMA = pa.schema([("image", pa.large_binary()), ("mask", pa.large_binary()), *ROW_COLUMNS])


def pack(
    sources: list[str],
    output: str,
    size: int = 256,
    encoding: Literal["raw", "png", "jpeg"] = "raw",
    quality: int = 95,
    keep: bool = False,
    shard: int = 4096,
    max_bad: float = 0.01,
    **common: Unpack[Common],
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
        **common: Options of every verb.

    Returns:
        The folder.

    Raises:
        UserError: If too many must be left out, or the folder holds something else.
    """
    if size < 16 or not 1 <= quality <= 100 or shard < 1:
        raise UserError(
            f"pack: size is at least 16, quality 1 to 100, shard at least 1, not {size}, {quality}, {shard}"
        )
    table = read_rows(sources, common.get("root"), mask_rules=True)
    settings: dict[str, Any] = {"size": size, "encoding": encoding, "keep": keep, "shard": shard}
    settings |= {"quality": quality} if encoding == "jpeg" else {}
    with output_folder(output, "pack", settings | {"rows": fingerprint(table)}) as folder:
        if not folder.done:
            bad = BadImages(len(table), "max_bad", max_bad)
            with processes(len(table), "pack", common) as pool:
                _fill(folder, table, settings, bad, pool)
    record = json.loads((folder.folder / RECORD).read_text(encoding="utf-8"))
    size_in_all = sum(one["bytes"] for one in record["shards"])
    print(
        f"{record['images']:,} images in {folder.folder}: {len(record['shards'])} shards, {size_in_all / 1e6:,.1f} MB"
        + " (they were there)" * folder.done
    )
    return folder.folder


def _fill(folder: OutputFolder, table: pa.Table, settings: dict[str, Any], bad: BadImages, pool: Workers) -> None:
    """Write all shards, the index and the record."""
    shards: list[dict[str, Any]] = []
    starts = range(0, len(table), settings["shard"])
    for result in folder.results(partial(_shard, folder.partial, table, settings, pool), starts):
        pool.completed(min(len(table), starts[len(shards)] + settings["shard"]))
        for path, reason in result["left_out"]:
            bad.add(path, reason)
        shards.append({name: result[name] for name in ("file", "rows", "bytes", "sha256")})
    index = pa.concat_tables([_index(folder.partial / one["file"]) for one in shards])
    if not len(index):
        raise UserError(f"pack: no image is left; {bad}")
    write_parquet(folder.partial / INDEX, index)
    if bad.images:
        print(f"pack: {bad}")
    facts = {"file": INDEX, **_bytes_and_hash(folder.partial / INDEX)}
    folder.finish(images=len(index), shards=shards, index=facts, left_out=bad.images)


def _shard(folder: Path, table: pa.Table, settings: dict[str, Any], pool: Workers, start: int) -> dict[str, Any]:
    """Write the shard that begins at a row; return file, rows, bytes and sha256, and what was left out, and why."""
    rows = table.slice(start, settings["shard"])
    file = folder / f"shard-{start // settings['shard']:05d}.arrow"
    columns = [rows[name].to_pylist() for name in ("path", "mask", "mask_rule", "bits")]
    rows = rows.append_column("origin", rows["path"])
    left_out: list[tuple[str, str]] = []

    def good() -> Iterator[tuple[Any, ...]]:
        for i, result in enumerate(pool.map(partial(_packed, settings), zip(*columns, strict=True))):
            if isinstance(result, str):
                left_out.append((columns[0][i], result))
            else:
                yield i, *result

    readable = good()
    with whole(file) as part:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, SHARD_SCHEMA) as writer:
            while batch := list(islice(readable, BATCH)):
                numbers, *encoded_columns = zip(*batch, strict=True)
                new = dict(zip(("image", "mask", "width", "height"), encoded_columns, strict=True))
                old = rows.take(pa.array(numbers))
                arrays = [
                    pa.array(new[field.name], field.type) if field.name in new else old[field.name].combine_chunks()
                    for field in SHARD_SCHEMA
                ]
                writer.write_batch(pa.record_batch(arrays, schema=SHARD_SCHEMA))
        facts = _bytes_and_hash(part)
    n = len(rows) - len(left_out)
    return {"files": [file.name], "file": file.name, "rows": n, **facts, "left_out": left_out}


def _packed(settings: dict[str, Any], job: tuple[str, str, str, int]) -> tuple[bytes, bytes | None, int, int] | str:
    """Return the bytes of an image and of its mask, width and height; or why there are none."""
    path, mask, rule, bits = job
    try:
        image = load_image(path, bits=bits)
        area = load_mask(mask, rule, (image.shape[1], image.shape[0]))
        small = min(image.shape[:2]) <= settings["size"]
        as_it_is = settings["keep"] and small and "xywh" not in split(path)[1]
        content = read_bytes(path) if as_it_is else b""
    except DecodeError as error:
        return error.reason
    if not small:
        image, area = shorter_to(image, area, settings["size"])
    content = content or encoded(image, settings["encoding"], settings.get("quality", 95))
    return content, None if area is None else encoded(area, "png"), image.shape[1], image.shape[0]


def _index(shard: Path) -> pa.Table:
    """Return the rows of a shard without their bytes, the images and masks as locators that start at its folder."""
    fields = [SHARD_SCHEMA.get_field_index(name) for name in ("mask", *ROW_COLUMNS.names)]
    options = pa.ipc.IpcReadOptions(included_fields=fields)
    with pa.OSFile(str(shard)) as file:  # read, not mapped: the rows outlive it
        table = pa.ipc.open_file(file, options=options).read_all()
    numbers = pa.array([str(i) for i in range(len(table))], pa.string())
    image, mask = (
        pc.binary_join_element_wise(f"{shard.name}#column={column}&row=", numbers, "") for column in ("image", "mask")
    )
    columns = {name: table[name] for name in ROW_COLUMNS.names}
    columns |= {"path": image, "mask": pc.if_else(pc.is_valid(table["mask"]), mask, "")}
    columns["mask_rule"] = pa.array([""] * len(table), pa.string())
    names = [*ROW_SCHEMA.names, *(name for name in ROW_COLUMNS.names if name not in ROW_SCHEMA.names)]
    return pa.table(columns).select(names)


def _bytes_and_hash(file: Path) -> dict[str, Any]:
    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"bytes": file.stat().st_size, "sha256": digest}
