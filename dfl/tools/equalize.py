"""``dfl data equalize``: real and fake written anew in the same way, so that only the picture tells them apart.

Size, format, quantization tables and metadata are then the same in all files. What an earlier JPEG left in the pixels
stays there: ``crop`` keeps it, and the traces of a generator with it; ``resize`` blurs both.

Cut off at any moment, the same command goes on. The folder's bytes depend on the images alone, never on the number of
processes; only the record holds a date.
"""

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image, split
from dfl.data.masks import load_mask
from dfl.data.sources.base import ROW_SCHEMA
from dfl.data.workers import Workers, making
from dfl.errors import UserError
from dfl.runs.files import whole, write
from dfl.tools.given import open_sources, rows
from dfl.tools.output import BadImages, Output, fingerprint
from dfl.tools.pixels import centre, encoded, shorter_to

#: Its table; ``origin`` is what an image was made from.
SCHEMA = pa.schema([*ROW_SCHEMA, ("set", pa.string()), ("origin", pa.string())])
_CLASSES = ("real", "fake")


def equalize(
    sources: list[str],
    output: str,
    size: int = 256,
    fit: Literal["crop", "resize"] = "crop",
    format: Literal["jpeg", "png"] = "jpeg",
    quality: int = 95,
    subsampling: Literal["4:4:4", "4:2:2", "4:2:0"] = "4:4:4",
    max_bad: float = 0.01,
    root: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write the images of both classes anew, the same way, into a new folder with a table and a record.

    Args:
        sources: Data configs, folders, tables.
        output: The folder: ``<split>/<real or fake>/*``, ``masks``, ``table.parquet`` and ``equalize.json``.
        size: Width and height of all images, in pixels.
        fit: ``crop`` cuts the middle out at native scale, and leaves smaller images out; ``resize`` brings the shorter
            side to the size first, antialiased.
        format: ``jpeg`` or ``png``.
        quality: Of a JPEG, 1 to 100.
        subsampling: Of a JPEG's chroma.
        max_bad: Largest share of images that may be left out: too small, unreadable, or with an unusable mask.
        root: Folder that replaces the root of every source of the configs.
        workers: Processes; by default one for each core.
        progress: Show a progress bar.

    Returns:
        The table.

    Raises:
        UserError: If a row has no label, too many must be left out, or the folder holds something else.
    """
    if size < 16 or not 1 <= quality <= 100:
        raise UserError(f"equalize: size is at least 16 and quality 1 to 100, not {size} and {quality}")
    table = rows(open_sources(sources, root), decide=True)
    unknown = table.filter(pc.less(table["label"], 0))
    if len(unknown):
        raise UserError(f"equalize needs labels, and {len(unknown)} images have none, such as {unknown['path'][0]}")
    settings: dict[str, Any] = {"size": size, "fit": fit, "format": format}
    settings |= {"quality": quality, "subsampling": subsampling} if format == "jpeg" else {}
    with making("equalize", Path(output)):
        folder = Output(output, "equalize", settings | {"rows": fingerprint(table)})
        if not folder.done:
            _fill(
                folder,
                table,
                settings,
                BadImages(len(table), max_bad),
                Workers(len(table), "equalize", workers, progress),
            )
        made = folder.folder / "table.parquet"
        print(f"{pq.read_metadata(made).num_rows:,} images in {folder.folder}" + " (they were there)" * folder.done)
    return made


def _fill(folder: Output, table: pa.Table, settings: dict[str, Any], left: BadImages, workers: Workers) -> None:
    """Write all images, the table and the record."""
    suffix = ".jpg" if settings["format"] == "jpeg" else ".png"
    origins = table["path"].to_pylist()
    named = zip(origins, table["split"].to_pylist(), table["label"].to_pylist(), strict=True)
    names = [_name(i, *facts) for i, facts in enumerate(named)]
    for parent in {Path(name).parent for name in names}:
        (folder.partial / parent).mkdir(parents=True, exist_ok=True)
    given = (table[column].to_pylist() for column in ("mask", "mask_rule", "bits"))
    tasks = zip(origins, *given, names, strict=True)
    keep, masks = [], []
    with workers as pool:
        for i, (mask, reason) in enumerate(pool.map(partial(_written, str(folder.partial), suffix, settings), tasks)):
            if reason:
                left.add(origins[i], reason)
            else:
                keep.append(i)
                masks.append(mask)
    if not keep:
        raise UserError(f"equalize: no image is left{left.in_words()}")
    kept = table.take(pa.array(keep))
    columns = {name: kept[name] for name in kept.column_names}
    columns |= {"path": pa.array([names[i] + suffix for i in keep]), "mask": pa.array(masks)}
    columns |= {"mask_rule": pa.array(["max" * bool(mask) for mask in masks]), "origin": kept["path"]}
    with whole(folder.partial / "table.parquet") as part:
        pq.write_table(pa.table(columns, schema=SCHEMA), part)
    counts: dict[str, Counter[str]] = {}
    for name, label in zip(kept["split"].to_pylist(), kept["label"].to_pylist(), strict=True):
        counts.setdefault(name, Counter())[_CLASSES[label]] += 1
    if left.images:
        print(f"equalize{left.in_words()}".replace("; ", ": ", 1))
    folder.finish(counts=counts, left_out=left.images)


def _name(i: int, origin: str, part: str, label: int) -> str:
    """Return where an image goes, without its suffix: unique by its number, readable by the name it had."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(split(origin)[0]).stem)[:60]
    return "/".join(filter(None, (part, _CLASSES[label], f"{i:07d}_{stem}")))


def _written(
    folder: str, suffix: str, settings: dict[str, Any], task: tuple[str, str, str, int, str]
) -> tuple[str, str]:
    """Write one image and its mask, unless they are there; return the mask's name, and why nothing could be written."""
    path, mask, rule, bits, name = task
    cover, size = f"masks/{name}.png", settings["size"]
    file = Path(folder, name + suffix)
    if file.is_file() and file.stat().st_size:  # the mask was written first
        return cover if Path(folder, cover).is_file() else "", ""
    try:
        image = load_image(path, bits=bits)
        area = load_mask(mask, rule, (image.shape[1], image.shape[0]))
    except DecodeError as error:
        return "", error.reason
    if settings["fit"] == "resize":
        image, area = shorter_to(image, area, size)
    elif min(image.shape[:2]) < size:
        return "", f"{image.shape[1]}x{image.shape[0]} is smaller than {size} (fit: crop)"
    image, area = centre(image, area, size)
    if area is not None:
        Path(folder, cover).parent.mkdir(parents=True, exist_ok=True)
        write(Path(folder, cover), encoded(area, "png"), sync=False)
    content = encoded(image, settings["format"], settings.get("quality", 95), settings.get("subsampling", "4:4:4"))
    write(file, content, sync=False)
    return "" if area is None else cover, ""
