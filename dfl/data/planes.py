"""From a mask's file to the values that it stores, 16-bit ones and alpha included; `masks.py` says what they mean."""

import cv2
import numpy as np
from PIL import Image

from dfl.data.decoding import MAX_PIXELS, DecodeError, check_range, white_of, with_pillow


def read_planes(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, int, str]:
    """Decode a mask to its stored values, whatever they mean (``masks.py``).

    Args:
        data: A file's content.
        max_pixels: Refuse a mask with more pixels.

    Returns:
        uint8 or uint16 array (H, W, C), turned upright: gray (C = 1), RGB, or RGB and alpha; the value of white; the
        format, as Pillow names it.

    Raises:
        DecodeError: As `read_image`.
    """
    if not data:
        raise DecodeError("<bytes>", "the file is empty")
    return with_pillow("<bytes>", data, max_pixels, lambda image, turn: _planes(image, turn, data))


def _planes(image: Image.Image, turn: Image.Transpose | None, data: bytes) -> tuple[np.ndarray, int, str]:
    kind = str(image.format)
    check_range("<bytes>", image, kind)
    if not image.mode.startswith("I") and _colour_of_16_bits(image, data):  # Pillow would drop the lower byte
        if turn is not None:
            raise DecodeError("<bytes>", f"{kind} of 16-bit colour that is to be turned; save it upright")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if pixels is None or pixels.ndim != 3:
            raise DecodeError("<bytes>", f"{kind} of 16-bit colour that cannot be read; save it with 8 bits")
        order = [2, 1, 0, 3] if pixels.shape[2] == 4 else [2, 1, 0]
        return pixels[..., order], 65_535, kind
    white = (white_of(image, data) or 65_535) if image.mode.startswith("I") else 255
    upright = image if turn is None else image.transpose(turn)
    if white != 255:
        return np.asarray(upright).clip(0, 65_535).astype(np.uint16)[..., None], white, kind
    mode = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
    pixels = np.array(upright.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[..., None], 255, kind


def _colour_of_16_bits(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return data[24] == 16
    return image.format == "TIFF" and max(image.tag_v2.get(258, (8,))) == 16  # type: ignore[attr-defined]
