"""What the check finds: copies, leaks, bad masks, both labels, ties; each planted here."""

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dfl.__main__ import main
from dfl.data.sources.base import to_table
from dfl.errors import UserError
from dfl.tools import copies
from dfl.tools.check import check
from dfl.tools.leak import bits_per_pixel, leak


def picture(seed: int, side: int = 48) -> Image.Image:
    """Return smooth noise, whose perceptual hash survives JPEG and resizing."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    """Return a set of 60 images with one of each thing that can be wrong; real at quality 75 and fake at 95."""
    root = tmp_path / "spoilt"
    for i in range(60):
        split, kind = ("train", "test")[i % 3 == 0], ("real", "fake")[i % 2]
        (root / split / kind).mkdir(parents=True, exist_ok=True)
        picture(i).save(root / split / kind / f"{i:02d}.jpg", quality=(75, 95)[i % 2])
    one = root / "train" / "fake" / "01.jpg"
    (root / "test" / "fake" / "copy.jpg").write_bytes(one.read_bytes())
    picture(5, 40).save(root / "test" / "fake" / "small.jpg", quality=95)
    (root / "train" / "real" / "both.jpg").write_bytes((root / "train" / "fake" / "07.jpg").read_bytes())
    (root / "test" / "real" / "bad.jpg").write_bytes(one.read_bytes()[:100])
    return root


def test_what_is_planted_is_found(spoilt: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="4 things wrong, the first: 1 of 64 images cannot be read"):
        check([str(spoilt)], str(tmp_path / "out"), strict=True, progress=False, workers=1)
    page, printed = tmp_path / "out" / "check.html", capsys.readouterr().out
    for line in (
        "✗ 1 of 64 images cannot be read, such as",
        "✗ 2 rows are of files that are both real and fake",
        "✗ 1 image of spoilt/test has the same file in spoilt/train",
        "! 1 image of spoilt/test has a near copy in spoilt/train",
        "✗ the files give the label away by compression",
    ):
        assert line in printed
    findings = json.loads((page.parent / "check.json").read_text())
    assert findings["images"] == 64
    assert findings["copies"]["places"] == ["spoilt/train", "spoilt/test"]
    assert findings["copies"]["exact"] == [[2, 1], [1, 0]]  # both.jpg and 07.jpg; 01.jpg and copy.jpg
    assert findings["counts"]["quality"]["95"]["fake"] > 25
    assert findings["leak"]["all"]["compression"]["low"] > 0.9
    assert findings["leak"]["all"]["format"]["auroc"] == 0.5
    copies = (page.parent / "copies.csv").read_text()
    assert copies.count("copy.jpg") == 1
    assert "small.jpg" in copies
    text = page.read_text()
    assert text.count("data:image/jpeg") > 20
    assert "src=" + '"http' not in text


def test_what_was_not_looked_at_is_not_said_to_be_fine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(12):
        file = tmp_path / "few" / ("real" if i < 9 else "fake") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(i).save(file)
        file = tmp_path / "none" / ("real" if i % 2 else "fake") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(i))
    check([str(tmp_path / "few")], str(tmp_path / "a"), progress=False, workers=1)
    printed = capsys.readouterr().out
    assert "· the files: the leak score is undefined: it needs 5 of each class" in printed
    assert "there are 9 real and 3 fake images" in printed
    assert "✓ no image has a near copy in this set" in printed
    check([str(tmp_path / "none")], str(tmp_path / "b"), progress=False, workers=1)
    printed = capsys.readouterr().out
    assert "· no image could be looked at for a near copy: none can be read" in printed
    assert "✓ no image has the same file in this set" in printed  # their bytes were read
    assert "has a near copy" not in printed


def test_a_clean_set_has_nothing_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        folder = tmp_path / "clean" / ("train", "test")[i % 4 == 0] / ("real", "fake")[i % 3 == 0]
        folder.mkdir(parents=True, exist_ok=True)
        picture(i).save(folder / f"{i}.png")
    words = ["--strict", "true", "--progress", "false", "--workers", "1", "-o", f"{tmp_path}/out"]
    main(["data", "check", str(tmp_path / "clean"), *words])
    printed = capsys.readouterr().out
    assert "✗" not in printed
    assert "✓ no image has the same file on the other side of a split" in printed
    assert "✓ the files do not give the label away: AUROC 0.500" in printed


def test_one_class_is_undefined_and_never_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(8):
        picture(i).save(tmp_path / f"{i}.png")
    page = check([str(tmp_path)], str(tmp_path / "out"), progress=False, workers=1)
    assert "undefined: it needs 5 of each class" in capsys.readouterr().out
    assert json.loads((page.parent / "check.json").read_text())["leak"]["all"]["metadata"]["auroc"] is None


def test_masks_are_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["path,label,mask"]
    for i in range(8):
        picture(i).save(tmp_path / f"{i}.png")
        area = np.zeros((48, 48), np.uint8)
        area[: (24, 0, 48, 24)[i % 4]] = 255
        Image.fromarray(area[:, : 24 if i == 4 else 48]).save(tmp_path / f"m{i}.png")
        lines.append(f"{i}.png,{int(i != 7)},m{i}.png")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    page = check([str(tmp_path / "t.csv")], str(tmp_path / "out"), progress=False, workers=1)
    masks = json.loads((page.parent / "check.json").read_text())["masks"]
    named = {name: [Path(p).name for p in paths] for name, paths in masks.items() if name != "with"}
    assert named == {
        "unusable": ["4.png"],
        "empty on fakes": ["1.png", "5.png"],
        "full": ["2.png", "6.png"],
        "not empty on real images": ["7.png"],
    }
    assert "! 2 masks are empty on fakes" in capsys.readouterr().out


@pytest.mark.parametrize("copies", [1, 3])
def test_equal_files_that_cannot_be_read_are_near_to_none(
    copies: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "test"):
        for i in range(copies):
            (tmp_path / f"set/{split}/real").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"set/{split}/real/bad{i}.png").write_text("not found")
    picture(1).save(tmp_path / "set/train/real/a.png")
    picture(1, 40).save(tmp_path / "set/test/real/b.png")
    page = check([str(tmp_path / "set")], str(tmp_path / "out"), progress=False, workers=1)
    printed = capsys.readouterr().out
    assert "! 1 image of set/test has a near copy in set/train" in printed
    assert "-" not in printed.partition("near copy")[0].rpartition("\n")[2]
    findings = json.loads((page.parent / "check.json").read_text())["copies"]
    assert findings["near, not the same file"] == [[0, 1], [1, 0]]
    assert findings["exact"] == [[copies * (copies > 1), copies], [copies, copies * (copies > 1)]]


def test_names_on_both_sides_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["path,label,split,identity"]
    for i in range(6):
        picture(i).save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{i % 2},{'test' if i > 3 else 'train'},{'anna' if i in (0, 5) else i}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    check([str(tmp_path / "t.csv")], str(tmp_path / "out"), progress=False, workers=1)
    assert "✗ 1 identity name in more than one split of a set, such as t: anna" in capsys.readouterr().out


@pytest.mark.parametrize("distance", [1, 4, 9])
def test_near_pairs_are_those_of_brute_force(distance: int) -> None:
    rng = np.random.default_rng(distance)
    base = rng.integers(0, 2**64, 60, dtype=np.uint64)
    flips = [sum(1 << int(b) for b in rng.choice(64, n, replace=False)) for n in range(1, 12) for _ in range(20)]
    hashes = np.unique(np.concatenate([base, rng.choice(base, len(flips)) ^ np.array(flips, np.uint64)]))
    pairs, cut = copies.near_pairs(hashes, distance)
    slow = [
        (i, j) for i, j in combinations(range(len(hashes)), 2) if int(hashes[i] ^ hashes[j]).bit_count() <= distance
    ]
    assert len(slow) > 10
    assert [tuple(p) for p in pairs.tolist()] == slow
    assert not cut


def test_copies_are_counted_by_place() -> None:
    place = np.array([0, 0, 1, 1, 1, 0])
    result = copies.find_copies(pa.chunked_array([["a", "b", "a", "c", "c", ""]]), place, 2)
    assert result.among.tolist() == [[0, 1], [1, 2]]
    assert (result.cluster >= 0).tolist() == [True, False, True, True, True, False]
    assert result.cluster[0] == result.cluster[2] != result.cluster[3]
    assert result.pairs[0].tolist() == [0, 2]  # of two places first
    near = copies.find_copies(
        pa.chunked_array([["0" * 16, "f" * 16, "0" * 15 + "3", "", "f" * 15 + "e", "0" * 16]]), place, 2, 4
    )
    assert near.among.tolist() == [[2, 3], [2, 0]]


def test_leak_of_noise_is_chance_and_pooling_does_not_bend_it() -> None:
    rng = np.random.default_rng(0)
    rows = to_table({"path": str(i), "label": int(i % 4 == 0)} for i in range(400))
    facts = {
        "format": pa.array(["JPEG"] * 400),
        "mode": pa.array(["RGB"] * 400),
        "width": pa.array(rng.integers(100, 110, 400)),
        "height": pa.array([100] * 400),
        "quality": pa.array([-1] * 400),
        "qtables": pa.array([""] * 400),
        "subsampling": pa.array([""] * 400),
        "bytes": pa.array(rng.integers(1000, 2000, 400)),
        "error": pa.array([""] * 400),
    }
    table = rows
    for name, column in facts.items():
        table = table.append_column(name, column)
    scores = leak(table)
    assert scores["format"].auroc == 0.5
    assert scores["size"].low < 0.5 < scores["size"].high
    assert bits_per_pixel(table)[0] == pytest.approx(8 * facts["bytes"][0].as_py() / (facts["width"][0].as_py() * 100))
    assert all(math.isnan(s.auroc) for s in leak(table.slice(0, 1)).values())
