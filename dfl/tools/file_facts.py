"""Facts of image files: size, format, quantization tables, hashes, and whether they can be read at all.

A detector could learn them in place of the picture (``dfl data check``), and copies are found by the hashes.
"""

import hashlib
import io
import os
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
from lightning_utilities.core.imports import RequirementCache
from PIL import Image

from dfl.data.appearance import jpeg_quality
from dfl.data.containers import AbsentCell
from dfl.data.decoding import DecodeError, on_disk, open_header
from dfl.data.locators import load_image, read_bytes, split
from dfl.data.mask_sets import stored_values
from dfl.data.masks import load_mask, says
from dfl.data.sources.base import ROW_SCHEMA
from dfl.errors import UserError

_HAS_IMAGEHASH = RequirementCache("imagehash>=4.3")
#: Facts of an image, beside the columns of its row and its set. Absent: -1, '' or NaN.
FACTS = pa.schema(
    [
        ("bytes", pa.int64()),  # of the file, or of the place inside one
        ("mtime", pa.int64()),  # of the file, in nanoseconds: a changed file is measured again
        ("format", pa.string()),  # Pillow's name: JPEG, PNG, WEBP, ...
        ("width", pa.int32()),  # of the picture as it is used: upright, its box cut out
        ("height", pa.int32()),
        ("mode", pa.string()),  # Pillow's: RGB, L, RGBA, ...
        ("quality", pa.int16()),  # of a JPEG with the standard tables, 1 to 100
        ("qtables", pa.string()),  # hash of the quantization tables
        ("subsampling", pa.string()),  # of a JPEG's chroma: 4:4:4, 4:2:2, 4:2:0
        ("sha256", pa.string()),  # of the file
        ("phash", pa.string()),  # 64-bit perceptual hash, hexadecimal
        ("error", pa.string()),  # why the image cannot be read
        ("mask_error", pa.string()),  # why its mask cannot be used
        ("mask_share", pa.float32()),  # of its pixels that are manipulated
        ("mask_values", pa.string()),  # ``mask_sets.stored_values`` of its file, where no rule is named
    ]
)
#: A table that ``dfl data scan`` writes.
SCAN_SCHEMA = pa.schema([*ROW_SCHEMA, ("set", pa.string()), *FACTS])
_ABSENT: dict[str, Any] = {
    f.name: "" if pa.types.is_string(f.type) else float("nan") if pa.types.is_floating(f.type) else -1 for f in FACTS
}


def need_imagehash() -> None:
    """Raise a UserError if the package for perceptual hashes is not installed."""
    if not _HAS_IMAGEHASH:
        raise UserError("near duplicates are found by the package imagehash: pip install 'dfl[data]'")


def stamp(path: str) -> tuple[int, int]:
    """Return (bytes, mtime in ns) of the file behind a locator; (-1, -1) if it is not there."""
    try:
        status = os.stat(on_disk(split(path)[0]))
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def measure(path: str, mask: str = "", rule: str = "", read_by: str | None = None, bits: int = -1) -> dict[str, Any]:
    """Return the facts of one image and its mask, by the names of ``FACTS``; what is wrong goes to ``error``.

    Args:
        path: Its locator.
        mask: That of its mask.
        rule: The rule of its row.
        read_by: The rule of its set (``mask_sets.py``), where that of its row leaves it open.
        bits: Those of its row.
    """
    facts = dict(_ABSENT)
    facts["mtime"] = stamp(path)[1]
    try:
        content = read_bytes(path)
        facts |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        facts |= header(content)
        pixels = load_image(path, bits=bits)
    except DecodeError as error:
        return facts | {"error": error.reason}
    height, width = pixels.shape[:2]
    facts |= {"width": width, "height": height, "phash": perceptual_hash(pixels)}
    try:
        if mask and not mask.startswith("polygon:") and not says(rule):
            with suppress(AbsentCell):
                facts["mask_values"] = stored_values(mask)
        area = load_mask(mask, read_by or rule, (width, height))
    except DecodeError as error:
        return facts | {"mask_error": error.reason}
    if area is not None:
        facts["mask_share"] = float((area > 127).mean())
    return facts


def perceptual_hash(pixels: np.ndarray) -> str:
    """Return the 64-bit pHash of uint8 (H, W, 3) as hexadecimal: signs of low DCT frequencies about their median."""
    import imagehash  # an extra

    return str(imagehash.phash(Image.fromarray(pixels)))


def header(content: bytes) -> dict[str, Any]:
    """Return what the header says, by the names of ``FACTS``; nothing where Pillow cannot read it."""
    try:
        with open_header("<bytes>", io.BytesIO(content)) as image:
            facts: dict[str, Any] = {"format": str(image.format), "mode": image.mode}
            facts |= {"width": image.width, "height": image.height}
            tables = getattr(image, "quantization", None)
            if image.format == "JPEG" and tables:
                text = repr(sorted((number, tuple(table)) for number, table in tables.items()))
                facts["qtables"] = hashlib.sha256(text.encode()).hexdigest()[:12]
                facts["quality"] = jpeg_quality(tables)
                facts["subsampling"] = _sampling(getattr(image, "layer", []))
            return facts
    except Exception:  # Pillow raises nearly anything on a damaged header
        return {}


def _sampling(layer: list[tuple[int, ...]]) -> str:
    """Return the usual name of the chroma sampling, from (id, h, v, table) of each component."""
    if len(layer) < 3:
        return "gray" if layer else ""
    (_, h, v, *_), (_, ch, cv, *_) = layer[0], layer[1]
    names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
    return names.get((h // max(ch, 1), v // max(cv, 1)), f"{h}x{v}/{ch}x{cv}")
