"""PNG through OpenCV: which ones, and that pixels and verdicts are Pillow's."""

import struct
import zlib

import pytest
from test_decoding import ORDINARY, chunk, encode, photo, png

from dfl.data import decoding
from dfl.data.decoding import DecodeError, read_image
from dfl.data.png_header import plain_png


def with_chunk(data, name, body):
    """A PNG with one more chunk before its pixels."""
    at = data.index(b"IDAT") - 4
    return data[:at] + chunk(name, body) + data[at:]


def pngs():
    """Name -> (PNG, whether OpenCV may read it)."""
    rgb = encode(photo(), "PNG")
    pixels = rgb[rgb.index(b"IDAT") + 4 : -16]
    ends = rgb[:33], chunk(b"IEND", b"")
    table = {
        "plain": (rgb, True),
        "gamma": (with_chunk(rgb, b"gAMA", struct.pack(">I", 22_727)), True),
        "dpi": (encode(photo(), "PNG", dpi=(72, 72)), True),
        "text": (with_chunk(rgb, b"tEXt", b"parameters\0a cat"), True),
        "two_pieces": (ends[0] + chunk(b"IDAT", pixels[:99]) + chunk(b"IDAT", pixels[99:]) + ends[1], True),
        "wrong_checksum_of_pixels": (ends[0] + chunk(b"IDAT", pixels[:-4] + b"oops") + ends[1], True),
        "too_few_pixels": (ends[0] + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + ends[1], True),
        "exif_as_text": (with_chunk(rgb, b"tEXt", b"Raw profile type exif\0nothing"), False),
        "xmp": (with_chunk(rgb, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation='6'/>"), False),
        "odd_gamma": (with_chunk(rgb, b"gAMA", b"\0"), False),
        "transparent": (with_chunk(rgb, b"tRNS", bytes(6)), False),
        "interlaced": (png(1, 1, 8, 2, b"\0abc").replace(b"\x08\2\0\0\0", b"\x08\2\0\0\1"), False),
        "behind_the_end": (rgb + b"more", False),
        "no_end": (rgb[:-12], False),
        "cut": (rgb[:-99], False),
        "flipped": (rgb[:70] + bytes([rgb[70] ^ 8]) + rgb[71:], False),
    }
    names = [name for name in ORDINARY if name.endswith(".png")]
    plain_too = {"turn1.png": False, "1x1.png": True, "widest.png": True}  # Pillow writes an EXIF of orientation 1 too
    return table | {name: (ORDINARY[name][0], plain_too.get(name, False)) for name in names}


PNGS = pngs()


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", PNGS)
def test_a_png_through_opencv_is_pillows(name, monkeypatch):
    data, fast = PNGS[name]
    assert (plain_png(data) is not None) == fast
    found = []
    for reader in (plain_png, lambda data: None):
        monkeypatch.setattr(decoding, "plain_png", reader)
        try:
            found.append(read_image(data).tolist())
        except DecodeError as error:
            found.append(error.reason)
    assert found[0] == found[1]
