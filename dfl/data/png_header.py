"""Is this file a plain PNG, which OpenCV turns into Pillow's pixels, a sixth faster?

Yes for 8-bit RGB without interlace, with whole chunks that Pillow takes nothing from. So no file that Pillow refuses,
turns or animates gets that far, and libpng, which prints what it finds wrong, finds nothing.
"""

import struct
import zlib

_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_RGB = b"\x08\x02\0\0\0"  # 8 bit, colour, no interlace
#: Chunks besides the pixels, by their length; that of a text is free.
_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}
_TURNING = (b"exif", b"xmp")  # parts of the keys of texts that may turn an image, lower case
_MAX_TEXT = 1 << 20


def plain_png(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of a plain PNG, else None."""
    if not data.startswith(_START) or data[24:29] != _RGB:
        return None
    at, end, view = 8, 33, memoryview(data)
    while end <= len(data):
        name = data[at + 4 : at + 8]
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return None
        if name == b"IEND":
            width, height = struct.unpack_from(">II", data, 16)
            return (width, height) if end == len(data) and width and height else None
        if name == b"tEXt":
            key = data[at + 8 : at + 88].partition(b"\0")[0].lower()
            if end > _MAX_TEXT or any(word in key for word in _TURNING):
                return None
        elif name not in (b"IHDR", b"IDAT") and _LENGTHS.get(name) != end - at - 12:
            return None
        at, end = end, end + 12 + int.from_bytes(data[end : end + 4])
    return None
