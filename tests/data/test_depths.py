"""Gray images of 10 and 12 bits in files of 16: scaled by what the file says, else by what its set holds."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfl.data import DataModule, Folder, Paths, Table
from dfl.data.decoding import DecodeError, read_image
from dfl.data.depths import with_defaults
from dfl.data.locators import load_image
from dfl.data.sources import Packed
from dfl.tools.equalize import equalize
from dfl.tools.pack import pack
from dfl.tools.scan import scan


def png(values: np.ndarray, sbit: int | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    data = file.getvalue()
    if sbit is None:
        return data
    chunk = b"sBIT" + bytes([sbit])
    return data[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]


def tiff(values: np.ndarray, largest: int | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", tiffinfo={} if largest is None else {281: largest})
    return file.getvalue()


def packed_tiff(content: bytes, width: int) -> bytes:
    """Return a TIFF of 12 bits a pixel, one line."""
    tags = [(256, width), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(content))]
    head = b"II*\0" + struct.pack("<I", 8 + len(content)) + content + struct.pack("<H", len(tags))
    return head + b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags) + bytes(4)


TWELVE = np.array([[0, 16, 2048, 4095]], np.uint16)
TEN = np.array([[0, 4, 512, 1023]], np.uint16)
SEEN = [0, 1, 128, 255]
DECLARED = {
    "PGM, maxval 4095": (b"P5 4 1 4095\n" + TWELVE.astype(">u2").tobytes(), SEEN),
    "PGM, maxval 1023": (b"P5 4 1 1023\n" + TEN.astype(">u2").tobytes(), SEEN),
    "PNG, sBIT 12": (png(TWELVE, 12), SEEN),
    "PNG, sBIT 10": (png(TEN, 10), SEEN),
    "PNG, sBIT 12, shifted up": (png(TWELVE * 16, 12), [0, 1, 128, 255]),
    "PNG, sBIT 12, shifted up and dark": (png(TWELVE // 256 * 16, 12), [0, 0, 0, 1]),
    "PNG, sBIT 16": (png(TWELVE, 16), [0, 0, 8, 16]),
    "TIFF, MaxSampleValue 4095": (tiff(TWELVE, 4095), SEEN),
    "TIFF, MaxSampleValue of its pixels": (tiff(np.minimum(TWELVE, 3871), 3871), [0, 1, 128, 241]),
    "TIFF, MaxSampleValue 65535": (tiff(TWELVE, 65_535), [0, 0, 8, 16]),
    "TIFF, 12 bits": (packed_tiff(bytes([0x00, 0x00, 0x10, 0x80, 0x0F, 0xFF]), 4), SEEN),
    "PNG, silent": (png(TWELVE), [0, 0, 8, 16]),
}


@pytest.mark.parametrize("name", DECLARED)
def test_a_file_that_says_how_many_bits_it_holds(name: str) -> None:
    data, seen = DECLARED[name]
    assert read_image(data)[0, :, 0].tolist() == seen
    if name != "PNG, silent":
        assert read_image(data, bits=8)[0, :, 0].tolist() == seen, "its own word counts"


def test_a_file_that_holds_more_than_it_says() -> None:
    with pytest.raises(DecodeError, match="it says that it has 12 bits, and holds 40000"):
        read_image(tiff(np.array([[40_000]], np.uint16), 4095))


def test_a_set_tells_what_its_files_do_not(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for bits, largest in ((10, 1000), (12, 4000), (14, 16_000), (16, 60_000)):
        root = tmp_path / str(bits)
        for i in range(6):
            file = root / ("real", "fake")[i % 2] / f"{i}.{('png', 'tif')[i % 2]}"
            file.parent.mkdir(parents=True, exist_ok=True)
            # the first is dark: alone it would be taken for one of 8 or 10 bits
            values = rng.integers(0, 200 if i == 0 else largest, (20, 20)).astype(np.uint16)
            file.write_bytes((png, tiff)[i % 2](values))
        source = Folder(str(root))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            table = with_defaults(source.load("train"), "here")
        assert table["bits"].to_pylist() == [bits if bits < 16 else -1] * 6
        assert [f"white is {(1 << bits) - 1} ({bits} bits)" in str(one.message) for one in said] == [True] * (bits < 16)
        bright = [load_image(row["path"], bits=row["bits"]).max() for row in table.to_pylist()]
        assert max(bright) > 220
        assert min(bright) < 60


@pytest.mark.filterwarnings("ignore:.*16-bit images that do not say")
def test_all_that_reads_a_set_sees_the_same(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i in range(8):
        file = root / ("real", "fake")[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(np.random.default_rng(i).integers(0, 4096, (32, 32)).astype(np.uint16)))
    data = DataModule(test={"x": Folder(str(root))}, size=32).datasets("test")["x"]
    whole = {Path(data.path(i)).stem: data[i]["image"].numpy().transpose(1, 2, 0) for i in range(8)}
    assert all(image.max() > 240 for image in whole.values())
    scan([str(root)], str(tmp_path / "t.parquet"), workers=1, progress=False)
    for source in (Table(str(tmp_path / "t.parquet")), Paths([str(root)])):
        again = DataModule(predict={"x": source}, size=32).datasets("predict")["x"]
        for i in range(8):
            assert (again[i]["image"].numpy().transpose(1, 2, 0) == whole[Path(again.path(i)).stem]).all()
    for keep in (False, True):
        folder = pack([str(root)], str(tmp_path / f"packed{keep}"), 32, keep=keep, workers=1, progress=False)
        table = with_defaults(Packed(str(folder)).load("train"), "packed")
        for path, bits in zip(table["path"].to_pylist(), table["bits"].to_pylist(), strict=True):
            assert any((load_image(path, bits=bits) == image).all() for image in whole.values())
    equalize([str(root)], str(tmp_path / "even"), 32, format="png", workers=1, progress=False)
    for path in Table(str(tmp_path / "even/table.parquet")).load("train")["path"].to_pylist():
        assert any((load_image(path) == image).all() for image in whole.values())


def test_a_table_may_say_it(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(TWELVE))
    (tmp_path / "t.csv").write_text("path,label,bits\na.png,0,16\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = with_defaults(Table(str(tmp_path / "t.csv")).load("train"), "here")
    assert table["bits"].to_pylist() == [16]
    assert load_image(table["path"][0].as_py(), bits=16)[0, :, 0].tolist() == [0, 0, 8, 16]
