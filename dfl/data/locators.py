"""Where an image is: a file, or a place inside a file.

Most images are files, and their locator is the path. Public sets also keep images in Parquet files, in LMDB, and as
frames of videos, and several faces in one picture. Such an image is named by the file, a ``#`` and where in it:

    shard-00001.parquet#column=image&row=12    cell of a Parquet column of bytes, or of structs with a field ``bytes``
    shard-00001.arrow#column=image&row=12      the same of an Arrow IPC file, memory-mapped (``dfl data pack``)
    FaceForensics++_lmdb#key=a/b/000.png       entry of an LMDB, the key with %, & and # percent-encoded
    000_003.mp4#frame=120                      frame number 120 of a video, from 0, in the order of display
    000_003.mp4#at=3/32                        frame in the middle of part 3 (from 0) of 32 equal parts of the video
    crowd.jpg#xywh=40,60,128,128               box of an image: left, top, width, height in pixels of the upright image

``xywh`` may follow one of the others (``a.mp4#frame=7&xywh=...``). A ``#`` that none of these words follows belongs to
the file's name, and so does one that such words follow, where there is no such place but a file of the whole name.
``at`` saves a source from opening each video to count its frames.
"""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.decoding import FILE_LIMIT, MAX_PIXELS, DecodeError, on_disk, read_file, read_image

_N = r"\d{1,18}"
_PLACE = rf"(?:column=[^&#]+&)?row={_N}|row={_N}&column=[^&#]+|key=[^&#]+|frame={_N}|at={_N}/{_N}"
_BOX = rf"xywh={_N},{_N},{_N},{_N}"
_INSIDE = re.compile(rf"#((?:{_PLACE})(?:&{_BOX})?|{_BOX})\Z")


def locate(file: str | Path, **inside: object) -> str:
    """Name a place inside a file, for example ``locate("a.parquet", column="image", row=12)``."""
    words = "&".join(f"{name}={quote(str(value), safe='/,:@ ')}" for name, value in inside.items())
    return f"{file}#{words}" if words else str(file)


def split(locator: str) -> tuple[str, dict[str, str]]:
    """Return the file of a locator and the words that say where in it."""
    match = _INSIDE.search(locator)
    if match is None:
        return locator, {}
    words = dict(word.split("=", 1) for word in match[1].split("&"))
    return locator[: match.start()], {name: unquote(value) for name, value in words.items()}


def below(root: Path, locator: str) -> str:
    """Return a relative locator as one below a folder; what is absolute, or no file at all, stays as it is."""
    return locator if not locator or locator.startswith("polygon:") else str(root / locator)


def all_below(root: Path, locators: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ``below`` of each of many locators."""
    if any_odd(locators):
        return pa.chunked_array([[below(root, text) for text in locators.to_pylist()]], pa.string())
    stay = pc.or_(pc.starts_with(locators, "/"), pc.or_(pc.starts_with(locators, "polygon:"), pc.equal(locators, "")))
    folder = "" if str(root) == "." else f"{str(root).rstrip('/')}/"
    return pc.if_else(stay, locators, pc.binary_join_element_wise(folder, locators, ""))


def any_odd(paths: pa.Array | pa.ChunkedArray) -> bool:
    """Tell whether one of many paths is not in its simplest form: with ``//``, ``.``, ``..`` or a slash at the end."""
    odd = pc.match_substring_regex(paths, r"/\.{0,2}(/|\z)|^\.{1,2}(/|\z)" if os.sep == "/" else "")
    return bool(pc.any(odd).as_py())


def shared_paths(one: pa.ChunkedArray, other: pa.ChunkedArray) -> list[str]:
    """Return the different paths that are in both columns, sorted."""
    small, large = sorted((column.cast(pa.large_string()) for column in (one, other)), key=len)
    if not len(small):
        return []
    a, b = pc.min_max(small).as_py(), pc.min_max(large).as_py()
    if a["max"] < b["min"] or b["max"] < a["min"]:  # such as those of two folders
        return []
    return sorted(pc.unique(large.filter(pc.is_in(large, small))).to_pylist())


def read_bytes(locator: str) -> bytes:
    """Return the bytes of an image file.

    Frames of videos are given as uncompressed PPM, which keeps every pixel. A box (``xywh``) is not cut out here.

    Raises:
        DecodeError: If the file or the place in it is not there.
        UserError: If a package is not installed that the kind of file needs.
    """
    file, inside = split(locator)
    if not inside.keys() - {"xywh"}:
        return read_file(file, FILE_LIMIT)
    try:
        if "\0" in file:
            raise DecodeError(locator, "no file's name holds a zero byte")
        return _read_inside(on_disk(file), inside)
    except DecodeError:
        if os.path.isfile(on_disk(locator)):  # all of it is a name
            return read_file(locator, FILE_LIMIT)
        raise


def _read_inside(file: str, inside: dict[str, str]) -> bytes:
    # at first use: pyarrow.parquet, lmdb and av are heavy, and most sets are plain files
    from dfl.data import containers

    if "row" in inside:
        return containers.table_cell(file, inside.get("column", "image"), int(inside["row"]))
    if "key" in inside:
        return containers.lmdb_entry(file, inside["key"])
    if "frame" in inside:
        return containers.video_frame(file, lambda count: int(inside["frame"]))
    index, parts = map(int, inside["at"].split("/"))
    return containers.video_frame(file, lambda count: (2 * index + 1) * count // (2 * max(parts, 1)))


def load_image(locator: str, *, max_pixels: int = MAX_PIXELS, bits: int = -1) -> np.ndarray:
    """Return the pixels of a locator, as ``read_image`` gives them.

    Args:
        locator: Where the image is.
        max_pixels: Images with more pixels are refused.
        bits: Those of the row: how many a 16-bit gray image holds that does not say so itself.

    Returns:
        uint8 (H, W, 3), RGB, C-contiguous.

    Raises:
        DecodeError: If it cannot be read, or its box reaches out of the image.
    """
    file, inside = split(locator)
    if not inside:
        return read_image(locator, max_pixels=max_pixels, bits=bits)
    try:
        source = read_bytes(locator) if inside.keys() - {"xywh"} else file
        image = read_image(source, max_pixels=max_pixels, bits=bits)
    except DecodeError as e:  # name the place, not the bytes
        if "xywh" in inside and os.path.isfile(on_disk(locator)):  # all of it is a name
            return read_image(locator, max_pixels=max_pixels, bits=bits)
        raise type(e)(locator, e.reason) from e
    if "xywh" not in inside:
        return image
    x, y, w, h = map(int, inside["xywh"].split(","))
    if not w or not h or x + w > image.shape[1] or y + h > image.shape[0]:
        raise DecodeError(locator, f"the box is not inside the image of {image.shape[1]}x{image.shape[0]} pixels")
    return np.ascontiguousarray(image[y : y + h, x : x + w])
