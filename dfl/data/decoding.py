"""One way from a file to pixels, the same for training, testing and prediction.

Decoders disagree. They rotate by EXIF or do not, saturate 16-bit gray or scale it, and mix CMYK in different ways. A
detector that is trained through one decoder and tested through another sees another image. So every image of this
project passes `read_image`, and Pillow's pixels are the truth. A plain JPEG (8 bit, gray or three components, usual
chroma sampling, upright) or PNG (8-bit RGB) takes a faster decoder that gives the same pixels bit for bit, and an
uncompressed PPM (frames of videos, packed sets) is copied as it lies; everything else takes Pillow.

The rules, where decoders differ: EXIF orientation is applied; 16-bit gray is scaled by the bits that the file says it
has (BitsPerSample or MaxSampleValue of TIFF, sBIT of PNG, maxval of PGM), else by those of its set
(`depths.py`); 16-bit colour keeps its high byte; alpha is dropped; an animation gives its first frame;
colour profiles are not applied; float and 32-bit pixels are refused, because their range is not known. A file whose
header asks for too many pixels is refused before any pixel is decoded. Truncated files are errors, never half an image.
"""

import io
import os
import re
import stat
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

import cv2
import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import get_sampling

from dfl.data.formats import FORMATS, START, kind_of
from dfl.data.heif import open_heif
from dfl.data.png_header import plain_png

PILLOWS = tuple(name for name in FORMATS if name != "HEIF")
"""What Pillow may open by itself. EPS is absent on purpose: it would start another program."""

MAX_PIXELS = 64_000_000
FILE_LIMIT = 8 * MAX_PIXELS + (1 << 20)  # of bytes: uncompressed 16-bit RGBA is the largest image that is allowed
MAX_SCANS = 500  # libjpeg-turbo's own advice; a small progressive file with thousands of scans decodes for minutes

T = TypeVar("T")
_PPM = re.compile(rb"P6\s(\d{1,6})\s(\d{1,6})\s255\s")  # 8 bit, no comments
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodeError(Exception):
    """An image or mask that cannot be read.

    Attributes:
        path: the file, or `<bytes>`.
        reason: what is wrong with it, in plain words.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        # Both go to args so that the error survives a data worker's pickling; torch rebuilds it from one string.
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


def read_image(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, bits: int = -1) -> np.ndarray:
    """Decode an image to RGB; alpha is dropped, the stored colours are shown.

    Args:
        source: a file, or the bytes of one.
        max_pixels: refuse an image with more pixels. Pillow's own ceiling of about 179 million stays in force.
        bits: How many bits a 16-bit gray image holds that does not say so itself; -1 for 16.

    Returns:
        uint8 array (H, W, 3), C-contiguous, writable, turned upright.

    Raises:
        DecodeError: the file is missing, empty, no image, truncated, too large, or of a kind that has no clear RGB.
    """
    if isinstance(source, bytes):
        name, data = "<bytes>", source
    else:  # limited as by FILE_LIMIT; anything beyond is no image of ours
        name, data = str(source), read_file(str(source), limit=8 * max_pixels + (1 << 20))
    if not data:
        raise DecodeError(name, "the file is empty")
    return _decode(name, data, max_pixels, bits)


def scaled(values: np.ndarray, white: int) -> np.ndarray:
    """Return values from 0 to white as uint8 from 0 to 255, rounded."""
    if values.dtype == np.uint8:
        return values
    return ((values.astype(np.int64) * 255 + white // 2) // white).clip(0, 255).astype(np.uint8)


def resize_nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample (H, W) or (H, W, C) to `size` = (height, width): the source pixel under each target centre."""
    rows, columns = (
        ((2 * np.arange(new) + 1) * old // (2 * new)).astype(np.intp)
        for new, old in zip(size, mask.shape[:2], strict=True)
    )
    return np.ascontiguousarray(mask[rows][:, columns])


def image_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) as `read_image` gives it, upright, from the header of a file's content alone.

    Raises:
        DecodeError: it is empty, or its header is not that of a known image.
    """
    with open_header("<bytes>", io.BytesIO(data)) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in (5, 6, 7, 8) else (width, height)


def _decode(name: str, data: bytes, max_pixels: int, bits: int) -> np.ndarray:
    if data.startswith(b"\xff\xd8\xff") and _is_plain_jpeg(name, data, max_pixels):
        with suppress(ValueError):  # damaged: Pillow decides, so that there is one verdict
            return simplejpeg.decode_jpeg(data, "RGB")
    size = plain_png(data)
    if size is not None:
        _check_cost(name, data, size, max_pixels)
        with suppress(cv2.error):  # as above
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
            if pixels is not None:
                return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    head = _PPM.match(data)
    if head is not None:
        width, height = int(head[1]), int(head[2])
        if width and height and len(data) - head.end() == 3 * width * height:
            _check_cost(name, data, (width, height), max_pixels)
            return np.frombuffer(data, np.uint8, offset=head.end()).reshape(height, width, 3).copy()
    return _decode_with_pillow(name, data, max_pixels, bits)


def _is_plain_jpeg(name: str, data: bytes, max_pixels: int) -> bool:
    """Whether both decoders give the same pixels: gray or RGB of usual chroma sampling, upright, one image."""
    with open_header(name, io.BytesIO(data)) as image, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
        _check_cost(name, data, image.size, max_pixels)
        usual = image.mode == "L" or (image.mode == "RGB" and get_sampling(image) >= 0)
        return image.format == "JPEG" and usual and _orientation(image) == 1


def _decode_with_pillow(name: str, data: bytes, max_pixels: int, bits: int = -1) -> np.ndarray:
    def rgb(image: Image.Image, turn: Image.Transpose | None) -> np.ndarray:
        check_range(name, image, str(image.format))
        declared = white_of(image, data) if image.mode.startswith("I") else 255
        white = declared or (1 << (bits if bits > 0 else 16)) - 1
        upright = image if turn is None else image.transpose(turn)
        if image.mode.startswith("I"):
            return np.repeat(scaled(np.asarray(upright), white)[..., None], 3, axis=2)
        return np.array(upright.convert("RGB"))

    return with_pillow(name, data, max_pixels, rgb)


def with_pillow(name: str, data: bytes, max_pixels: int, make: Callable[[Image.Image, Image.Transpose | None], T]) -> T:
    """Load an image with Pillow and return ``make`` of it and of how it is to be turned."""
    with open_header(name, io.BytesIO(data)) as image:
        _check_cost(name, data, image.size, max_pixels)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata
                orientation = _orientation(image)
                image.load()
                return make(image, _TURNS.get(orientation))
        except DecodeError:
            raise
        except Exception as error:  # a damaged file makes Pillow raise nearly anything: OSError, SyntaxError, struct...
            raise DecodeError(name, f"damaged or cut off ({error or type(error).__name__})") from error


def check_range(name: str, image: Image.Image, kind: str) -> None:
    """Raise a DecodeError if nothing tells what white is."""
    if image.mode == "F" or (image.mode == "I" and kind == "TIFF"):
        raise DecodeError(
            name, f"{kind} with float or 32-bit pixels, whose range is not known; save it with 8 or 16 bits"
        )


def white_of(image: Image.Image, data: bytes) -> int | None:
    """Return the value of white that a 16-bit gray image declares; None where it only fits 16 bits.

    Raises:
        DecodeError: If it holds more than it declares.
    """
    bits = None
    if image.format == "PPM":
        return 65_535  # Pillow has scaled it by its maxval
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        stored = min(tags.get(258, (16,)))
        bits = stored if stored < 16 else None
        if 281 in tags:  # MaxSampleValue, of the kind of pixels or of these
            bits = min(stored, max(8, int(max(np.ravel(tags[281]))).bit_length()))
    elif image.format == "PNG" and (at := data.find(b"sBIT", 0, data.find(b"IDAT"))) > 0:
        bits = data[at + 4]
    if bits is None or not 8 <= bits < 16:
        return None if bits is None else 65_535
    values, white = np.asarray(image), (1 << bits) - 1
    if image.format == "PNG" and (values.max() > white or not (values & ((1 << (16 - bits)) - 1)).any()):
        return 65_535  # shifted up to 16 bits, as the standard of PNG wants it
    if values.max() > white:
        raise DecodeError("<bytes>", f"it says that it has {bits} bits, and holds {values.max()}")
    return white


def read_file(name: str, limit: int | None = None) -> bytes:
    """Return the content of a regular file.

    Raises:
        DecodeError: If it is not there, is no regular file (a pipe, a device, a folder), is empty, or is larger than
            ``limit``.
    """
    check_regular(name, limit)
    try:
        with open(on_disk(name), "rb", buffering=0) as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise _failed(name, error) from error


_ESCAPED = re.compile(r"%[89A-F][0-9A-F]")


def escaped(name: str) -> str:
    """Return a file's name as text that a table can hold: bytes that are not UTF-8 as %FF, which `on_disk` undoes."""
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", name)


def on_disk(name: str) -> str:
    """Undo `escaped`, unless there is a file of the escaped name."""
    if not _ESCAPED.search(name) or os.path.lexists(name):
        return name
    return _ESCAPED.sub(lambda match: chr(0xDC00 + int(match[0][1:], 16)), name)


def check_regular(name: str, limit: int | None = None) -> None:
    """Raise a DecodeError unless a file is there, is a regular one and holds bytes: others could be waited for."""
    try:
        info = os.stat(on_disk(name))
    except (OSError, ValueError) as error:
        raise _failed(name, error) from error
    if not stat.S_ISREG(info.st_mode):
        raise DecodeError(name, "not a regular file")
    if not info.st_size:  # or the system's own, such as /proc/kmsg, which could be waited for too
        raise DecodeError(name, "the file is empty")
    if limit is not None and info.st_size > limit:
        raise DecodeError(name, f"the file has {info.st_size} bytes, more than the {limit} any allowed image can have")


def _failed(name: str, error: Exception) -> DecodeError:
    return DecodeError(name, getattr(error, "strerror", None) or str(error))


def _check_cost(name: str, data: bytes, size: tuple[int, int], max_pixels: int) -> None:
    """Refuse what would take too much memory or time, before any pixel is decoded."""
    width, height = size
    if width * height > max_pixels:
        raise DecodeError(name, f"{width}x{height} is more than the {max_pixels} pixels allowed (max_pixels)")
    # Every scan of a JPEG is a pass over all pixels, and ten bytes make one. A file and image so small that even such
    # a file is decoded in two seconds need no count. Other bytes hold the marker by chance, once in 65,536.
    if width * height * len(data) > 10**11 and data.startswith(b"\xff\xd8"):
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS + len(data) // 16_384:
            raise DecodeError(name, f"a JPEG of {scans} scans, which would take minutes to decode")


def open_header(name: str, file: BinaryIO) -> Image.Image:
    """Return an image of which only the header was read.

    Raises:
        DecodeError: If it is none that we know, and what is needed to read it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our own cap is stricter than the size Pillow warns at
            return Image.open(file, formats=PILLOWS)
    except Image.DecompressionBombError as error:
        raise DecodeError(name, f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        file.seek(0)
        start = file.read(START)
        if kind_of(start) == "HEIF":
            try:
                return open_heif(file)
            except ValueError as reason:
                raise DecodeError(name, str(reason)) from reason
        if not start:
            raise DecodeError(name, "the file is empty") from error
        start_and_kinds = f"it starts with {start[:12]!r}, known are {', '.join(FORMATS)}"
        raise DecodeError(name, f"no known image or a damaged header; {start_and_kinds}") from error
    except Exception as error:  # as in _decode_with_pillow
        raise DecodeError(name, f"damaged header ({error or type(error).__name__})") from error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation that is still to be applied, from what stands before the pixels."""
    if image.format == "TIFF":  # Pillow turns these by itself
        return 1
    try:
        # PngImageFile.getexif would decode all pixels to look for a chunk behind them; the base class does not.
        return Image.Image.getexif(image).get(0x0112, 1)
    except Exception:  # unreadable EXIF says nothing about orientation; the pixels are still good
        return 1
