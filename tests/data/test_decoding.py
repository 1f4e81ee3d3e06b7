"""Every kind of file a data set may hold, made here, against Pillow's pixels or a plain error."""

import contextlib
import io
import pickle
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from odd_images import chunk, encode, exif, ordinary, photo, png
from PIL import Image, ImageFile, ImageOps

from dfl.data import decoding
from dfl.data.decoding import DecodeError, image_size, read_image, resize_nearest
from dfl.data.masks import load_mask
from dfl.data.png_header import plain_png


def pillow(data):
    """The reference."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


ORDINARY = ordinary()


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("name", ORDINARY)
def test_pixels_are_pillows(name, tmp_path):
    data = ORDINARY[name]
    (tmp_path / name).write_bytes(data)
    pixels = read_image(tmp_path / name)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.writeable
    np.testing.assert_array_equal(pixels, pillow(data))
    np.testing.assert_array_equal(pixels, read_image(data))
    assert image_size(data) == (pixels.shape[1], pixels.shape[0])


@pytest.mark.parametrize("sampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_fast_path_equals_pillow_at_odd_sizes(sampling):
    for seed, (height, width) in enumerate([(1, 9), (2, 2), (7, 8), (8, 7), (15, 17), (16, 16), (33, 31), (3, 200)]):
        for quality in (5, 75, 100):
            data = encode(photo(height, width, seed), "JPEG", subsampling=sampling, quality=quality)
            assert decoding._is_plain_jpeg("", data, decoding.MAX_PIXELS)
            np.testing.assert_array_equal(read_image(data), pillow(data))


def test_16_bit_gray_is_scaled_not_saturated():
    values = np.array([[0, 128, 129, 257, 32_896, 65_535]], np.uint16)
    want = [0, 0, 1, 1, 128, 255]
    for kind in ("PNG", "TIFF", "PPM"):
        pixels = read_image(encode(Image.fromarray(values), kind))
        assert pixels[0].tolist() == [[value] * 3 for value in want], kind
    turned = read_image(encode(Image.fromarray(values), "PNG", exif=exif(6)))
    assert turned[:, 0, 0].tolist() == want


def test_alpha_is_dropped():
    half = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    half.putpixel((1, 0), (10, 20, 30, 255))
    assert read_image(encode(half, "PNG")).tolist() == [[[200, 0, 0], [10, 20, 30]]]


def broken():
    jpeg, float_tiff = encode(photo(), "JPEG"), encode(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")
    return {
        "empty": (b"", "empty"),
        "html": (b"<!DOCTYPE html><html>404</html>", "<!DOCTYPE"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "no known image"),
        "magic_only": (b"\xff\xd8\xff", "header"),
        "float_tiff": (float_tiff, "float"),
        "int32_tiff": (encode(Image.fromarray(np.ones((4, 4), np.int32)), "TIFF"), "32-bit"),
        "last_two_bytes_missing": (jpeg[:-2], "cut off"),
        "no_height": (jpeg.replace(struct.pack(">HH", 61, 47), struct.pack(">HH", 0, 47)), "damaged header"),
    }


BROKEN = broken()


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_say_what_is_wrong(name, tmp_path):
    data, reason = BROKEN[name]
    file = tmp_path / "a.jpg"
    file.write_bytes(data)
    with pytest.raises(DecodeError, match=reason) as raised:
        read_image(file)
    assert raised.value.path == str(file)
    assert str(raised.value) == f"{file}: {raised.value.reason}"


@pytest.mark.parametrize("name", ["missing.jpg", "", "nul\0.jpg"])
def test_no_file(name, tmp_path):
    for read in (read_image, lambda path: load_mask(path, "max", (1, 1))):
        with pytest.raises(DecodeError):
            read(f"{tmp_path}/{name}")


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_truncated_at_every_tenth(kind):
    image = photo(160, 150)
    data = encode(image, "JPEG", progressive=True) if kind == "progressive" else encode(image, kind)
    for tenth in range(1, 10):
        with pytest.raises(DecodeError):
            read_image(data[: len(data) * tenth // 10])


@pytest.fixture
def undecoded(monkeypatch):
    """Return a context in which nothing may be decoded."""

    def decoded(*args, **words):
        pytest.fail("it was decoded")

    @contextlib.contextmanager
    def context():
        with monkeypatch.context() as patch:
            patch.setattr(decoding.simplejpeg, "decode_jpeg", decoded)
            patch.setattr(ImageFile.ImageFile, "load", decoded)
            yield

    return context


def test_bombs_are_refused_before_decoding(undecoded):
    zeros = zlib.compressobj(9)
    body = b"".join(zeros.compress(bytes(10_000 // 8 + 1)) for _ in range(10_000)) + zeros.flush()
    head = struct.pack(">IIBBBBB", 10_000, 10_000, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    jpeg = encode(photo(), "JPEG").replace(struct.pack(">HH", 61, 47), struct.pack(">HH", 60_000, 60_000))
    assert len(bomb) < 15_000
    tracemalloc.start()
    for data in (bomb, jpeg, png(100_000, 100_000, 8, 2, b"")):
        with undecoded(), pytest.raises(DecodeError, match="pixels"):
            read_image(data)
    assert tracemalloc.get_traced_memory()[1] < 2e6
    tracemalloc.stop()
    assert image_size(bomb) == (10_000, 10_000)
    with pytest.raises(DecodeError, match="47x61 is more than the 2866 pixels"):
        read_image(encode(photo(), "JPEG"), max_pixels=47 * 61 - 1)
    assert read_image(encode(photo(), "JPEG"), max_pixels=47 * 61).shape == (61, 47, 3)


@pytest.mark.parametrize("fill", [b"", b"\xff"], ids=["fast", "slow"])
def test_thousands_of_scans_are_refused(fill, undecoded):
    data = encode(photo(2000, 2000), "JPEG", progressive=True, quality=5)
    data = data[:2] + fill + data[2:]
    last = data.rindex(b"\xff\xda")
    many = data[:last] + data[last : last + 12] * 2000 + data[-2:]
    with undecoded(), pytest.raises(DecodeError, match="2009 scans"):
        read_image(many)


def test_error_survives_a_data_worker():
    error = pickle.loads(pickle.dumps(DecodeError("a.jpg", "the file is empty")))
    assert (error.path, error.reason) == ("a.jpg", "the file is empty")
    assert str(DecodeError("a worker's traceback")) == "a worker's traceback"


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "exif", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_fuzz(kind):
    """Damage never escapes as another error, and the fast path never disagrees with Pillow about a damaged file."""
    options = {"progressive": {"progressive": True}, "exif": {"exif": exif(1)}}.get(kind, {})
    data = encode(photo(), "JPEG" if kind in ("progressive", "exif") else kind, **options)
    rng = np.random.default_rng(0)
    for _ in range(150):
        bad = bytearray(data)
        for at in rng.integers(0, min(len(bad), rng.choice([40, 700, len(bad)])), rng.integers(1, 4)):
            bad[at] = rng.integers(256)
        outcomes = []
        for read in (read_image, lambda d: decoding._decode_with_pillow("<bytes>", d, decoding.MAX_PIXELS)):
            try:
                outcomes.append(read(bytes(bad)))
            except DecodeError as error:
                outcomes.append(error)
        if isinstance(outcomes[0], np.ndarray):
            np.testing.assert_array_equal(*outcomes)
        else:
            assert isinstance(outcomes[1], DecodeError)


def test_resize_nearest_is_torchs_nearest_exact():
    rng = np.random.default_rng(0)
    for old, new in [((7, 9), (3, 4)), ((5, 5), (11, 13)), ((256, 100), (224, 224)), ((1, 1), (4, 2))]:
        mask = rng.integers(0, 256, old, dtype=np.uint8)
        want = F.interpolate(torch.from_numpy(mask)[None, None].float(), size=new, mode="nearest-exact")
        np.testing.assert_array_equal(resize_nearest(mask, new), want[0, 0].numpy())


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
    return table | {name: (ORDINARY[name], plain_too.get(name, False)) for name in names}


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
