"""What the verbs that write images do to pixels: shrink, cut, encode; the mask always as its image."""

import io
from typing import Any

import numpy as np
from PIL import Image

Pair = tuple[np.ndarray, np.ndarray | None]
#: Crops begin at multiples of the largest JPEG block, so that the grid of an earlier JPEG lies the same way in all
#: images: where it lies would otherwise tell the sizes, and with them often the classes, apart.
GRID = 16


def shorter_to(image: np.ndarray, mask: np.ndarray | None, size: int) -> Pair:
    """Bring the shorter side to a size, antialiased, as ``Transform`` does; the mask by nearest pixel.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W), or None.
        size: Pixels of the shorter side.

    Returns:
        Image and mask; the longer side is rounded, and at least ``size``.
    """
    from dfl.data.resize import interpolated  # torch: where nothing is resized, processes start without it

    height, width = image.shape[:2]
    scale = size / min(height, width)
    return interpolated((image, mask), max(size, round(height * scale)), max(size, round(width * scale)))


def centre(image: np.ndarray, mask: np.ndarray | None, size: int) -> Pair:
    """Cut ``size`` x ``size`` from the middle, up to ``GRID`` - 1 pixels off it."""
    height, width = image.shape[:2]
    top, left = ((side - size) // 2 // GRID * GRID for side in (height, width))
    box = np.s_[top : top + size, left : left + size]
    return np.ascontiguousarray(image[box]), None if mask is None else np.ascontiguousarray(mask[box])


def encoded(pixels: np.ndarray, encoding: str, quality: int = 95, subsampling: str = "4:4:4") -> bytes:
    """Return uint8 (H, W, 3) or (H, W) as ``png``, ``jpeg`` or ``raw`` (PPM), without any metadata."""
    if encoding == "raw":
        return f"P6 {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + pixels.tobytes()
    words: dict[str, Any] = {"quality": quality, "subsampling": subsampling} if encoding == "jpeg" else {}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, encoding.upper(), **words)
    return buffer.getvalue()
