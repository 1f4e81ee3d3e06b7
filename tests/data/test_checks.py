"""What is said before anything is trained: nothing to learn, and what is on both sides of a split."""

import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dfl.data import DataModule, Folder, Paths, Table, checks, overlap
from dfl.data.overlap import copies_of
from dfl.errors import UserError

PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}


def save(root: Path, *names: str) -> None:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([i, len(name)]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / name)


def plain(root: Path, n: int = 20) -> Path:
    save(root, *(f"{c}/{c[0]}{'x' * i}.png" for c in ("real", "fake") for i in range(n)))
    return root


def said(source: object, stage: str = "fit", **words: object) -> list[str]:
    """Return what is warned of when a stage is set up."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        DataModule(source, size=8, num_workers=0, **words).setup(stage)
    return [str(w.message) for w in found]


def test_a_sound_set_says_nothing(tmp_path: Path) -> None:
    assert said(Folder(str(plain(tmp_path)), fractions=PARTS)) == []


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (1, "the one image to train on is (real|fake): there is nothing to tell apart"),
        (None, "all 12 images .* are real"),
    ],
)
def test_one_class_is_nothing_to_learn(tmp_path: Path, limit: int | None, text: str) -> None:
    plain(tmp_path)
    if limit is None:
        shutil.rmtree(tmp_path / "fake")
    with pytest.raises(UserError, match=text):
        said(Folder(str(tmp_path), fractions=PARTS, limit=limit))


def test_one_class_with_masks_is_something_to_learn(tmp_path: Path) -> None:
    plain(tmp_path)
    lines = [f"fake/f{'x' * i}.png,1,{'train' if i else 'val'},real/r.png" for i in range(3)]
    (tmp_path / "t.csv").write_text("path,label,split,mask\n" + "\n".join(lines))
    assert said(Table(str(tmp_path / "t.csv"))) == []


def test_images_without_label_are_not_trained_on(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="40 of 40 images to train on have no label"):
        said(Paths([str(plain(tmp_path))]), allow_overlap=True)


def test_a_class_in_two_sources_is_enough(tmp_path: Path) -> None:
    plain(tmp_path / "a")
    plain(tmp_path / "b")
    shutil.rmtree(tmp_path / "a" / "real")
    shutil.rmtree(tmp_path / "b" / "fake")
    mixture = [Folder(str(tmp_path / name), fractions=PARTS) for name in ("a", "b")]
    assert said(mixture) == []


def test_what_was_left_out_is_said_once(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "fake" / "clip.mkv").touch()
    source = Folder(str(tmp_path), fractions=PARTS)
    (line,) = said(source, test={"same": source, "again": Folder(str(tmp_path), fractions=PARTS)})
    assert line.startswith("1 file was left out: 1 .mkv")
    (line,) = said(source, "test")
    assert line.startswith("1 file was left out: 1 .mkv")


def test_heic_without_its_package_ends_the_run_before_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(tmp_path)
    for c in ("real", "fake"):
        for i in range(20):
            shutil.copy(tmp_path / c / f"{c[0]}.png", tmp_path / c / f"{i}.HEIC")
    source = Folder(str(tmp_path), fractions=PARTS)
    assert not any("HEIC, which" in line for line in said(source))
    monkeypatch.setattr(checks, "HAS_HEIF", False)
    with pytest.raises(
        UserError, match=r"\d+ of 48 images of train/train are HEIC, which .* 'dfl\[heif\]', such as .*HEIC"
    ):
        said(source)
    said(source, on_bad="substitute")  # its images are booked as unreadable


# both sides of a split


def test_copies_under_other_names_are_said(tmp_path: Path) -> None:
    plain(tmp_path / "set")
    shutil.copytree(tmp_path / "set" / "real", tmp_path / "other" / "real")
    for i, path in enumerate(sorted((tmp_path / "other" / "real").iterdir())):
        path.rename(path.with_name(f"copy of {i}.png"))
    lines = said(Folder(str(tmp_path / "set"), fractions=PARTS), val={"other": Folder(str(tmp_path / "other"))})
    (line,) = lines
    assert re.match(r"12 images of val/other are copies of training images under other names, such as .*copy of", line)
    assert said(Folder(str(tmp_path / "set"), fractions=PARTS)) == []


def test_copies_within_a_folder_that_fall_on_both_sides_are_said_of_val_and_test(tmp_path: Path) -> None:
    plain(tmp_path)
    for path in [p for c in ("real", "fake") for p in (tmp_path / c).iterdir()]:
        shutil.copy(path, path.with_name(f"zz{path.name}"))
    val, test = said(Folder(str(tmp_path), fractions=PARTS))
    assert " of val/same are copies of training images" in val
    assert " of test/same are copies of training images" in test


def test_copies_in_folders_of_splits_are_said(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path, *(f"{split}/{c}/{split}{'x' * i}.png" for c in ("real", "fake") for i in range(3)))
    shutil.copy(tmp_path / "train" / "fake" / "train.png", tmp_path / "test" / "fake" / "new.png")
    (line,) = said(Folder(str(tmp_path)))
    assert line.startswith("1 image of test/same is a copy of training images under other names")


def test_too_many_images_are_not_compared_and_this_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "MOST_ROWS", 30)
    monkeypatch.setattr(checks, "MOST_ROWS", 30)
    (line,) = said(Folder(str(plain(tmp_path)), fractions=PARTS))
    assert "more than 30 images: no one looked" in line


def test_copies_are_exact(tmp_path: Path) -> None:
    """Of one size and with the same middle, but not the same; empty files; files that are not there; a folder."""
    content = np.random.default_rng(0).bytes(9000)
    files = {
        "a": content,
        "b": content,
        "first": b"x" + content[1:],
        "last": content[:-1] + b"x",
        "middle": content[:4500] + b"xx" + content[4502:],
        "shorter": content[:-1],
        "small": b"s",
        "small too": b"s",
        "nothing": b"",
        "nothing too": b"",
    }
    for name, held in files.items():
        (tmp_path / name).write_bytes(held)
    (tmp_path / "folder").mkdir()
    ours = [
        str(tmp_path / name)
        for name in ("first", "a", "last", "middle", "shorter", "small", "nothing", "none", "folder")
    ]
    theirs = [str(tmp_path / name) for name in ("b", "small too", "nothing too", "none", "folder")]
    found, whole = copies_of(ours, theirs)
    assert [(Path(a).name, Path(b).name) for a, b in found] == [("a", "b"), ("small", "small too")]
    assert whole


def test_reading_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(4):
        (tmp_path / str(i)).write_bytes(b"same" * 100)
    monkeypatch.setattr(overlap, "MOST_BYTES", 900)
    found, whole = copies_of([str(tmp_path / str(i)) for i in (0, 1)], [str(tmp_path / str(i)) for i in (2, 3)])
    assert (len(found), whole) == (1, False)


def test_frames_of_a_video_on_both_sides_are_said(tmp_path: Path) -> None:
    for i in range(8):
        side = ("train", "val")[i % 2]
        save(tmp_path / "a", *(f"{side}/{c}/clip{v}/{'y' * i}{i}.png" for c in ("real", "fake") for v in range(3)))
    (line,) = said(Folder(str(tmp_path / "a")))
    assert re.match(r"6 videos have frames in train and in val/same, such as fake/clip0, by folders and numbered", line)
    assert said(Folder(str(tmp_path / "a"), videos="none")) == []
    assert said(Folder(str(tmp_path / "a")), allow_overlap=True) == []
    clean = tmp_path / "b"
    for side, who in (("train", "ab"), ("val", "cd")):
        save(clean, *(f"{side}/{c}/{w}/{side}{i}.png" for c in ("real", "fake") for w in who for i in range(4)))
    assert said(Folder(str(clean))) == []


def test_videos_of_a_table_on_both_sides_are_said(tmp_path: Path) -> None:
    plain(tmp_path)
    lines = [
        f"{c}/{c[0]}{'x' * i}.png,{c},{'train' if i < 10 else 'val'},{c}{i % 5 if c == 'real' else i}"
        for c in ("real", "fake")
        for i in range(20)
    ]
    (tmp_path / "t.csv").write_text("path,label,split,video\n" + "\n".join(lines))
    pq.write_table(pacsv.read_csv(tmp_path / "t.csv"), tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        (line,) = said(Table(str(tmp_path / name)))
        assert line.startswith("5 videos have frames in train and in val/same, such as real0: ")
