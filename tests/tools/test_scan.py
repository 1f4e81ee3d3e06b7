"""Scanning and splitting: what is measured, and what is not measured again."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dfl.data import Table
from dfl.errors import UserError
from dfl.tools import file_facts as facts
from dfl.tools.scan import scan
from dfl.tools.sources import read_rows
from dfl.tools.split import split


def test_facts_of_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3), dtype=np.uint8)
    for quality in (40, 75, 95):
        Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=quality, subsampling="4:2:0")
        measured = facts.measure(str(tmp_path / "a.jpg"))
        assert (measured["quality"], measured["format"], measured["subsampling"]) == (quality, "JPEG", "4:2:0")
    assert (measured["width"], measured["height"], measured["error"]) == (24, 40, "")
    assert np.isnan(measured["mask_share"])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    cover = np.zeros((40, 24), np.uint8)
    cover[:10] = 255
    Image.fromarray(cover).save(tmp_path / "m.png")
    Image.fromarray(cover[:20]).save(tmp_path / "small.png")
    measured = facts.measure(str(tmp_path / "a.png"), str(tmp_path / "m.png"))
    assert (measured["quality"], measured["qtables"], measured["mask_share"]) == (-1, "", 0.25)
    assert "24x20" in facts.measure(str(tmp_path / "a.png"), str(tmp_path / "small.png"))["mask_error"]
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:200])
    measured = facts.measure(str(tmp_path / "cut.jpg"))
    assert measured["error"]
    assert measured["sha256"]
    assert facts.measure(str(tmp_path / "none.jpg"))["error"]


def test_a_scan_reads_only_what_changed(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(faces, tmp_path / "set")
    bad = tmp_path / "set" / "fake" / "03.png"
    bad.write_bytes(b"nothing")
    scan([str(tmp_path / "set")], "1.parquet", workers=1, progress=False)
    assert "1 cannot be read, such as" in capsys.readouterr().out
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    bad.write_bytes((faces / "fake" / "04.png").read_bytes())
    measured: list[str] = []
    real = facts.measure
    monkeypatch.setattr("dfl.tools.scan.measure", lambda path, *more: measured.append(path) or real(path, *more))
    table = pq.read_table(scan([str(tmp_path / "set")], "1.parquet", workers=1, progress=False))
    assert measured == [str(bad)]
    assert set(table["error"].to_pylist()) == {""}
    hashes = dict(zip(table["path"].to_pylist(), table["sha256"].to_pylist(), strict=True))
    assert hashes[str(bad)] == hashes[str(bad.with_name("04.png"))]
    assert len(Table("1.parquet", fractions={"train": 0.5, "test": 0.5}).load("train")) == 30


def test_sources_by_word(faces: Path, tmp_path: Path) -> None:
    table = read_rows([str(faces)])
    assert len(table) == 60
    assert set(table["set"].to_pylist()) == {faces.resolve().name}
    plain = read_rows([str(faces / "real")])
    assert set(plain["label"].to_pylist()) == {-1}
    table = read_rows(["data/folder.yaml"], str(faces))
    assert {s: table["split"].to_pylist().count(s) for s in ("train", "val", "test")} == {
        "train": 42,
        "val": 6,
        "test": 12,
    }
    with pytest.raises(UserError, match=r"no config 'data/foldr.yaml'.*data/folder.yaml"):
        read_rows(["data/foldr.yaml"])


def test_split_keeps_identities_whole(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{faces}/{'fake' if i % 2 else 'real'}/{i // 2:02d}.png,{i % 2},p{i // 6}" for i in range(60)]
    Path("list.csv").write_text("path,label,identity\n" + "\n".join(lines))
    split(["list.csv"], "out.parquet", train=0.5, val=0.0, test=0.5)
    table = pq.read_table("out.parquet")
    sides: dict[str, set[str]] = {}
    for who, side in zip(table["identity"].to_pylist(), table["split"].to_pylist(), strict=True):
        sides.setdefault(who, set()).add(side)
    assert all(len(side) == 1 for side in sides.values())
    assert table["split"].to_pylist().count("train") == 30
    assert "10 sets of tied rows, the largest of 6" in capsys.readouterr().out
    with pytest.raises(UserError, match="add up to 1"):
        split(["list.csv"], "other.parquet", train=0.5)
    assert not Path("other.parquet").exists()


@pytest.mark.parametrize("verb", [partial(scan, workers=1), split], ids=["scan", "split"])
def test_a_table_in_another_folder_finds_its_images(verb: Callable[..., Path], faces: Path) -> None:
    """Though the source was named relative to the working directory."""
    shutil.copytree(faces, "set")
    file = verb(["set"], "out/t.parquet")
    assert all(Path(path).is_file() for path in Table(str(file)).load("test")["path"].to_pylist())
    assert pq.read_table(verb(["set"], "t.parquet"))["path"][0].as_py() == "set/fake/00.png"  # beside it, as named
