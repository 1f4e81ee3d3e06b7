"""``dfl data equalize``: real and fake written anew in the same way, so that only the picture tells them apart.

Size, format, quantization tables and metadata are then the same in all files. What an earlier JPEG left in the pixels
stays there: ``crop`` keeps it, and the traces of a generator with it; ``resize`` blurs both.
"""

import re
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image, split
from dfl.data.masks import load_mask
from dfl.data.sources.base import ROW_SCHEMA
from dfl.errors import UserError
from dfl.runs.files import write
from dfl.runs.output_folder import OutputFolder, output_folder
from dfl.runs.workers import Workers
from dfl.tools.common import BadImages, Common, fingerprint, processes, write_parquet
from dfl.tools.pixels import centre, encoded, shorter_to
from dfl.tools.sources import read_rows

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
    **common: Unpack[Common],
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
        **common: Options of every verb.

    Returns:
        The table.

    Raises:
        UserError: If a row has no label, too many must be left out, or the folder holds something else.
    """
    if size < 16 or not 1 <= quality <= 100:
        raise UserError(f"equalize: size is at least 16 and quality 1 to 100, not {size} and {quality}")
    table = read_rows(sources, common.get("root"), mask_rules=True)
    unlabelled = table.filter(pc.less(table["label"], 0))
    if len(unlabelled):
        first = unlabelled["path"][0]
        raise UserError(f"equalize needs labels, and {len(unlabelled)} images have none, such as {first}")
    settings: dict[str, Any] = {"size": size, "fit": fit, "format": format}
    settings |= {"quality": quality, "subsampling": subsampling} if format == "jpeg" else {}
    with output_folder(output, "equalize", settings | {"rows": fingerprint(table)}) as folder:
        if not folder.done:
            bad = BadImages(len(table), "max_bad", max_bad)
            with processes(len(table), "equalize", common) as pool:
                _fill(folder, table, settings, bad, pool)
        file = folder.folder / "table.parquet"
        print(f"{pq.read_metadata(file).num_rows:,} images in {folder.folder}" + " (they were there)" * folder.done)
    return file


def _fill(folder: OutputFolder, table: pa.Table, settings: dict[str, Any], bad: BadImages, pool: Workers) -> None:
    """Write all images, the table and the record."""
    columns = [table[name].to_pylist() for name in ("path", "mask", "mask_rule", "bits", "split", "label")]
    jobs = [(i, *row) for i, row in enumerate(zip(*columns, strict=True))]
    numbers, files = [], []
    for i, result in enumerate(folder.results(partial(_write, folder.partial, settings), jobs, pool)):
        if result["reason"]:
            bad.add(columns[0][i], result["reason"])
        else:
            numbers.append(i)
            files.append([*result["files"], ""][:2])
    if not numbers:
        raise UserError(f"equalize: no image is left; {bad}")
    table = table.take(pa.array(numbers))
    paths, masks = map(pa.array, zip(*files, strict=True))
    written = {"path": paths, "mask": masks, "mask_rule": pc.if_else(pc.equal(masks, ""), "", "max")}
    written |= {"origin": table["path"]}
    columns_of_table = {name: table[name] for name in table.column_names} | written
    write_parquet(folder.partial / "table.parquet", pa.table(columns_of_table, schema=SCHEMA))
    counts: dict[str, Counter[str]] = {}
    for name, label in zip(table["split"].to_pylist(), table["label"].to_pylist(), strict=True):
        counts.setdefault(name, Counter())[_CLASSES[label]] += 1
    if bad.images:
        print(f"equalize: {bad}")
    folder.finish(counts=counts, left_out=bad.images)


def _write(folder: Path, settings: dict[str, Any], job: tuple[int, str, str, str, int, str, int]) -> dict[str, Any]:
    """Write one image and its mask; return their names, or why they could not be written."""
    number, path, mask, rule, bits, part, label = job
    size, failed = settings["size"], dict[str, Any](files=[])
    try:
        image = load_image(path, bits=bits)
        area = load_mask(mask, rule, (image.shape[1], image.shape[0]))
    except DecodeError as error:
        return failed | {"reason": error.reason}
    if settings["fit"] == "resize":
        image, area = shorter_to(image, area, size)
    elif min(image.shape[:2]) < size:
        return failed | {"reason": f"{image.shape[1]}x{image.shape[0]} is smaller than {size} (fit: crop)"}
    image, area = centre(image, area, size)
    # unique by its number, readable by the name it had
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(split(path)[0]).stem)[:60]
    name = "/".join(filter(None, (part, _CLASSES[label], f"{number:07d}_{stem}")))
    content = encoded(image, settings["format"], settings.get("quality", 95), settings.get("subsampling", "4:4:4"))
    files = {name + (".jpg" if settings["format"] == "jpeg" else ".png"): content}
    if area is not None:
        files[f"masks/{name}.png"] = encoded(area, "png")
    for file, content in files.items():
        write(folder / file, content, sync=False)
    return {"files": list(files), "reason": ""}
