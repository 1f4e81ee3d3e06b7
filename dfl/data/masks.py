"""Masks of manipulated pixels, as the public sets store them.

Sets disagree: some say 255 = manipulated, some 0 = manipulated, one paints the region green in a JPEG. A row carries a
rule that turns its mask file to ours (255 = manipulated). A rule is words with commas between them:

    (nothing)       not stated: ``mask_sets.py`` looks at the set's masks; read as ``max`` where that is the only way
    max             the stored values of a channel: r, g, b, a (alpha), max or mean of the colours; soft edges stay soft
    max>0, g>127    a channel compared with a number from 0 to 255; manipulated where it holds
    mean<128, max=2 the same, for sets that mark manipulated pixels dark, or by one number
    all             no file: the whole image is manipulated
    full            where the cell of the mask is empty, the whole image is manipulated
    resize          a mask of another size than its image is resized (nearest pixel), not an error

A mask may also be written in the row itself, as polygons in pixels of the image: ``polygon:x,y,x,y,x,y;x,y,...``.
Pixels inside any of them are manipulated; ``polygon:`` alone says that none is.
"""

import re
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dfl.data.containers import AbsentCell
from dfl.data.decoding import MAX_PIXELS, DecodeError, image_size, resize_nearest, scaled
from dfl.data.locators import locate, read_bytes, split
from dfl.data.planes import read_planes
from dfl.errors import UserError

_COMPARE = re.compile(r"(r|g|b|a|max|mean)(?:([<>=])(\d{1,5}))?\Z")
_WORDS = ("all", "full", "resize")


def check_rule(rule: str) -> str:
    """Return a rule as it is.

    Raises:
        UserError: If it holds a word that is none.
    """
    words = rule.split(",") if rule else []
    for word in words:
        if word not in _WORDS and not _COMPARE.match(word):
            raise UserError(
                f"mask rule {rule!r}: {word!r} is none of max, max>0 (r, g, b, a, mean; <, =), all, full, resize"
            )
    if sum(word not in _WORDS for word in words) > 1:
        raise UserError(f"mask rule {rule!r} compares twice")
    return rule


def says(rule: str) -> bool:
    """Tell whether a rule says how the values of a mask are meant."""
    return any(word == "all" or _COMPARE.match(word) for word in rule.split(","))


def load_mask(mask: str, rule: str, size: tuple[int, int], *, max_pixels: int = MAX_PIXELS) -> np.ndarray | None:
    """Return the manipulated pixels of an image.

    Args:
        mask: Locator or polygons; '' for no mask.
        rule: How to read it.
        size: (width, height) of the image.
        max_pixels: Masks with more pixels are refused.

    Returns:
        uint8 (H, W), 255 = manipulated, or None if there is no mask.

    Raises:
        DecodeError: If the mask cannot be read, or has another size than the image.
    """
    words = rule.split(",") if rule else []
    if "all" in words:
        return np.full((size[1], size[0]), 255, np.uint8)
    if not mask:
        return None
    if mask.startswith("polygon:"):
        return _draw(mask.removeprefix("polygon:"), size)
    try:
        file, inside = split(mask)
        if "xywh" in inside:  # the box of a face: its mask is cut as its image is
            return _cut(file, inside, rule, mask, max_pixels)
        compare = next((word for word in words if word not in _WORDS), "")
        return _read(mask, compare, size, "resize" in words, max_pixels)
    except AbsentCell:
        return np.full((size[1], size[0]), 255, np.uint8) if "full" in words else None


def _cut(file: str, inside: dict[str, str], rule: str, mask: str, max_pixels: int) -> np.ndarray | None:
    x, y, w, h = map(int, inside.pop("xywh").split(","))
    whole = locate(file, **inside)
    area = load_mask(whole, rule, image_size(read_bytes(whole)), max_pixels=max_pixels)
    if area is None:
        return None
    if x + w > area.shape[1] or y + h > area.shape[0]:
        raise DecodeError(mask, f"the box is not inside the mask of {area.shape[1]}x{area.shape[0]} pixels")
    return np.ascontiguousarray(area[y : y + h, x : x + w])


def _read(mask: str, compare: str, size: tuple[int, int], resize: bool, max_pixels: int) -> np.ndarray:
    match = _COMPARE.match(compare or "max")
    if match is None:
        raise DecodeError(mask, f"unknown mask rule {compare!r}")
    try:
        planes, white, _ = read_planes(read_bytes(mask), max_pixels)
        out = _judged(_channel(planes, match[1]), white, match[2], int(match[3] or 0))
    except AbsentCell:
        raise
    except DecodeError as e:
        raise DecodeError(mask, e.reason) from e
    if out.shape == (size[1], size[0]):
        return out
    if not resize:
        raise DecodeError(
            mask, f"the mask is {out.shape[1]}x{out.shape[0]} pixels, but its image is {size[0]}x{size[1]}"
        )
    return resize_nearest(out, (size[1], size[0]))


def _channel(planes: np.ndarray, name: str) -> np.ndarray:
    """Return one channel, or the largest or mean of the colours, (H, W)."""
    if name == "a":
        if planes.shape[2] < 4:
            raise DecodeError("<bytes>", "the mask has no alpha channel, which its rule asks for")
        return planes[..., 3]
    if planes.shape[2] == 1:
        return planes[..., 0]
    if name in "rgb":
        return planes[..., "rgb".index(name)]
    return planes[..., :3].max(axis=2) if name == "max" else planes[..., :3].mean(axis=2)


def _judged(values: np.ndarray, white: int, sign: str | None, number: int) -> np.ndarray:
    """Return uint8 (H, W): the values themselves without a sign, else 255 where they compare so with the number.

    Numbers are shares of 255; but what is 0, and what equals a number, is decided by the stored values.
    """
    if sign is None:
        return scaled(values, white)
    if sign != "=" and (sign, number) not in ((">", 0), ("<", 1)):
        values = values if white == 255 else scaled(values, white)
    holds = values > number if sign == ">" else values < number if sign == "<" else values == number
    return np.where(holds, 255, 0).astype(np.uint8)


def _draw(polygons: str, size: tuple[int, int]) -> np.ndarray:
    canvas = Image.new("L", size)
    for polygon in filter(None, polygons.split(";")):
        points = polygon_of(polygon.split(","), size)
        ImageDraw.Draw(canvas).polygon(points, fill=255)
    return np.array(canvas)


def polygon_of(values: Any, size: tuple[int, int] | None = None) -> list[float]:
    """Return the coordinates x, y, x, y, ... of a polygon.

    Args:
        values: They, as numbers or as text.
        size: (width, height) of the image that it must touch; None for any.

    Raises:
        DecodeError: If they are no polygon.
    """
    shown = str(values)[:60]
    if not isinstance(values, list) or any(isinstance(v, list | dict | bool | None) for v in values):
        raise DecodeError("polygon", f"expected a list of numbers x, y, x, y, ..., found {shown}")
    try:
        points = [float(v) for v in values]
    except (TypeError, ValueError, OverflowError) as e:
        raise DecodeError("polygon", f"{shown}: {e}") from e
    if len(points) < 6 or len(points) % 2:
        raise DecodeError("polygon", f"{len(points)} numbers are no polygon, which has three points or more: {shown}")
    if not all(abs(v) < 1e6 for v in points):  # nan too
        raise DecodeError("polygon", f"coordinates that are no pixels: {shown}")
    xs, ys = points[::2], points[1::2]
    if size and (max(xs) < 0 or max(ys) < 0 or min(xs) > size[0] or min(ys) > size[1]):
        raise DecodeError("polygon", f"it lies outside of the image of {size[0]}x{size[1]} pixels: {shown}")
    return points
