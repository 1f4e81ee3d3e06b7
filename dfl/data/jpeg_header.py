"""Is this file a plain JPEG, which both decoders turn into the same pixels?

The answer takes microseconds and errs to the safe side: whatever is unusual gets a no, and the caller takes Pillow.
"""

import warnings

from PIL import Image

_TABLES = (0xC4, 0xDB, 0xDD)  # segments besides APPn and COM that a plain JPEG has: Huffman, quantization, restart
_SAMPLING = {(0x11,), (0x11, 0x11, 0x11), (0x21, 0x11, 0x11), (0x22, 0x11, 0x11)}  # gray, 4:4:4, 4:2:2, 4:2:0
_ORIENTATION = 0x0112


def plain_jpeg(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of an upright 8-bit Huffman-coded gray or three-component JPEG, else None.

    Walks the segments up to the first scan. None also for padding between segments, several images in one file (MPF),
    unusual chroma sampling, and metadata that turns the image or that cannot be parsed.
    """
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at, size, exif = 2, None, False
    while True:
        head = data[at : at + 4]
        if len(head) < 4 or head[0] != 0xFF:
            return None
        marker, length = head[1], (head[2] << 8) | head[3]
        body = at + 4
        at += 2 + length
        if length < 2 or at > len(data):
            return None
        if marker == 0xDA:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = _frame(marker, data[body:at])
            if size is None:
                return None
        elif marker == 0xE1:
            if data.startswith(b"Exif\0\0", body):
                if exif or not _upright(data[body:at]):
                    return None
                exif = True
            elif b"Orientation" in data[body:at]:  # XMP can turn an image too
                return None
        elif marker == 0xFF or (marker < 0xE0 and marker not in _TABLES) or data.startswith(b"MPF\0", body):
            return None
    return size


def _frame(marker: int, body: bytes) -> tuple[int, int] | None:
    """(width, height) of a Huffman-coded 8-bit frame header with usual sampling, else None."""
    if marker > 0xC2 or len(body) < 6 or body[0] != 8 or len(body) != 6 + 3 * body[5]:
        return None
    height, width = (body[1] << 8) | body[2], (body[3] << 8) | body[4]
    return (width, height) if width and height and tuple(body[7::3]) in _SAMPLING else None


def _upright(content: bytes) -> bool:
    """Whether an EXIF segment surely says orientation 1 or nothing."""
    exif = Image.Exif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            exif.load(content)
    except Exception:  # Pillow warns of damaged EXIF, or raises nearly anything
        return False
    return exif.get(_ORIENTATION, 1) == 1
