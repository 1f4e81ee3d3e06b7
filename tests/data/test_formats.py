"""Which files are images, and how those that are not taken are counted and named."""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfl.data import heif
from dfl.data.decoding import DecodeError, image_size, read_image
from dfl.data.formats import FORMATS, IMAGE_SUFFIXES, LeftOut, is_image, kind_of, taken
from dfl.data.sources.base import names_in
from tests.data.sources.layouts import touch

PIXELS = np.zeros((32, 48, 3), np.uint8)
PIXELS[:, :24] = (240, 30, 20)
PIXELS[:, 24:] = (10, 20, 230)


def encoded(kind: str, **words: object) -> bytes:
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    content = io.BytesIO()
    Image.fromarray(PIXELS).save(content, kind, **words)
    return content.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_a_format_of_the_table_is_read_and_known_by_its_first_bytes(tmp_path: Path, kind: str) -> None:
    content = encoded(kind)
    assert kind_of(content[:32]) == kind
    assert np.abs(read_image(content).astype(int) - PIXELS).mean() < 3
    (tmp_path / "download").write_bytes(content)
    for suffix in FORMATS[kind][0].split():
        shutil.copy(tmp_path / "download", tmp_path / f"x{suffix.upper()}")
    assert len(names_in(tmp_path)) == 1 + len(FORMATS[kind][0].split())


@pytest.mark.parametrize(
    "content", [b"", b"BMW is no bitmap, though it begins like one", b"P3rl", b"RIFF0000WAVE", b"%PDF-1.7", b"\xff\xd8"]
)
def test_other_files_without_suffix_are_no_images(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "README").write_bytes(content)
    assert not is_image(str(tmp_path / "README"))
    assert names_in(tmp_path) == []


def test_a_pipe_without_suffix_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_heic_is_turned_upright_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    heic, png = encoded("HEIF", exif=exif.tobytes()), encoded("PNG", exif=exif)
    assert image_size(heic) == image_size(png)
    assert np.abs(read_image(heic).astype(int) - read_image(png)).mean() < 3


def test_a_cut_heic_is_unreadable() -> None:
    content = encoded("HEIF")
    for length in (24, 200, len(content) - 20):
        with pytest.raises(DecodeError, match="HEIC with a damaged header|cut off"):
            read_image(content[:length])


def test_heic_without_its_package_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "HAS_HEIF", False)
    with pytest.raises(DecodeError, match=r"HEIC, which the package pillow-heif reads: pip install 'dfl\[heif\]'"):
        read_image(encoded("HEIF"))


def test_what_is_left_out_is_counted_by_suffix_with_a_few_names(tmp_path: Path) -> None:
    touch(tmp_path, "{a.jpg,b.MP4,c.mp4,LICENSE,n.txt,.DS_Store,._a.jpg}", "d/{e.mp4,f.mp4,g.tar}")
    found = LeftOut()
    with found.listening():
        for _ in range(2):  # once more: nothing is counted twice
            assert [Path(name).name for name in names_in(tmp_path)] == ["a.jpg"]
    assert len(found) == 7
    said = str(found).replace(f"{tmp_path}/", "")
    assert said == (
        "7 files were left out: 4 .mp4 (b.MP4, c.mp4, d/e.mp4, ...; video: extract frames, or name them: "
        "FILE#frame=0, FILE#at=0/8, or predict --frames 16); 1 .tar (d/g.tar; archive: unpack it); 1 without suffix "
        "(LICENSE); 1 .txt (n.txt)"
    )


def test_many_suffixes_make_one_short_line() -> None:
    found = LeftOut()
    found.note("x", [f"{i}.{i:04d}" for i in range(500)])
    assert len(found) == 500
    assert str(found).endswith("494 with other suffixes")
    assert len(str(found)) < 300


def test_who_listens_around_hears_too(tmp_path: Path) -> None:
    (tmp_path / "a.psd").touch()
    outer, inner = LeftOut(), LeftOut()
    with outer.listening(), inner.listening():
        assert taken(str(tmp_path), os.listdir(tmp_path), IMAGE_SUFFIXES) == []
    assert len(outer) == len(inner) == 1
    assert taken(str(tmp_path), os.listdir(tmp_path)) == [], "nobody listens"
    assert len(outer) == 1
