"""Forged sets: masks are true, donors stay in their split, and nothing but the pixels tells."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dfl.__main__ import main
from dfl.data import Table
from dfl.data.decoding import DecodeError, read_image
from dfl.data.masks import load_mask
from dfl.errors import UserError
from dfl.tools.forge import MAKERS, Maker, Scene, forge, shapes
from dfl.tools.forge.makers import blended, recoloured

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures of waves and grain, in folders train and val, as JPEG and PNG of two sizes."""
    root = tmp_path_factory.mktemp("photos")
    for i in range(12):
        rng = np.random.default_rng(i)
        height, width = (48, 64) if i % 3 else (64, 40)
        y, x = np.mgrid[:height, :width][..., None] / 8
        waves = np.sin(x * rng.uniform(0.3, 2, 3) + y * rng.uniform(-2, 2, 3) + rng.uniform(0, 6, 3))
        pixels = np.clip(128 + 70 * waves + rng.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)
        folder = root / ("train" if i < 8 else "val")
        folder.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / (f"p{i:02d}.jpg" if i % 2 else f"p{i:02d}.png"))
    return root


def quick(source: Path, output: str, **words: object) -> tuple[Path, Rows]:
    table = forge([str(source)], output, progress=False, **{"workers": 1, **words})
    return table.parent, list(csv.DictReader(table.open()))


def digest(root: Path) -> str:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return hashlib.sha256(b"".join(p.name.encode() + p.read_bytes() for p in files)).hexdigest()


def pixels(root: Path, row: dict[str, str]) -> np.ndarray:
    return read_image(root / row["path"]).astype(int)


def region(root: Path, row: dict[str, str]) -> np.ndarray:
    height, width = read_image(root / row["path"]).shape[:2]
    mask = load_mask(str(root / row["mask"]), "max", (width, height))
    assert set(np.unique(mask)) == {0, 255}
    return mask > 0


def test_pixels_outside_the_mask_are_those_of_the_counterpart(photos: Path) -> None:
    root, rows = quick(photos, "set", makers=["all"], per_image=len(MAKERS))
    real = {row["source"]: pixels(root, row) for row in rows if row["label"] == "0"}
    fakes = [row for row in rows if row["label"] == "1"]
    assert len(real) == 12
    assert len(fakes) == 12 * len(MAKERS)
    assert all(sum(row["generator"] == name for row in fakes) == 12 for name in MAKERS)
    for row in fakes:
        difference, mask = np.abs(pixels(root, row) - real[row["source"]]).max(2), region(root, row)
        assert not difference[~mask].any(), row
        assert difference[mask].mean() > 2, row
        assert mask.mean() == pytest.approx(float(row["mask_share"]), abs=1e-5)
    for source, image in real.items():  # a JPEG's and a PNG's pixels, untouched
        assert np.array_equal(image, read_image(photos / source))


def test_in_a_jpeg_only_blocks_of_the_mask_change(photos: Path) -> None:
    root, rows = quick(photos, "set", makers=["splice", "telea"], quality=90)
    real = {row["source"]: row for row in rows if row["label"] == "0"}
    tables = {str(Image.open(root / row["path"]).quantization) for row in rows}
    assert len(tables) == 1
    for row in (row for row in rows if row["label"] == "1"):
        mask = region(root, row)
        padded = np.pad(mask, [(0, -n % 8) for n in mask.shape])
        blocks = padded.reshape(padded.shape[0] // 8, 8, -1, 8).any((1, 3)).repeat(8, 0).repeat(8, 1)
        outside = ~blocks[: mask.shape[0], : mask.shape[1]]
        assert outside.any()
        assert np.array_equal(pixels(root, row)[outside], pixels(root, real[row["source"]])[outside])


def test_sources_and_donors_stay_in_their_split(photos: Path, tmp_path: Path) -> None:
    root, rows = quick(photos, "set", makers=["splice", "swap"], per_image=3)
    split_of = {row["source"]: row["split"] for row in rows if row["label"] == "0"}
    assert sorted(split_of.values()) == ["train"] * 8 + ["val"] * 4  # by the folders
    for row in rows:
        assert row["split"] == split_of[row["source"]]
        if row["label"] == "1":
            assert row["donor"] != row["source"]
            assert split_of[row["donor"]] == row["split"]
    table = Table(str(root / "table.csv")).load("val")
    assert len(table) == 16
    assert set(table["class_label"].to_pylist()) == {0, 2}
    lines = [f"{photos}/train/p00.png,0,{split}" for split in ("train", "val")]
    Path("twice.csv").write_text("path,label,split\n" + "\n".join(lines))
    with pytest.raises(UserError, match=r"p00.png is in train and in val"):
        quick(Path("twice.csv"), "other", makers=["telea"])
    Path("one.csv").write_text("path,label,split\n" + lines[0])
    with pytest.raises(UserError, match="splice takes from another picture of the split, and train has one"):
        quick(Path("one.csv"), "other")
    assert not Path("other").exists()


def test_another_seed_gives_other_pictures_and_sides_are_bounded(photos: Path) -> None:
    words = {"makers": ["splice", "noise"], "max_side": 40}
    one, other = (quick(photos, str(seed), **words, seed=seed)[0] for seed in (0, 1))
    assert digest(one / "images") != digest(other / "images")
    assert max(Image.open(file).size[0] for file in (one / "images").iterdir()) == 40


def test_refuses_what_it_should(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    wrong = {
        "mine holds something else": ["-o", "mine"],
        "no maker 'splise'; did you mean 'splice'": ["--makers", "[splise]"],
        "no option --maker of `dfl forge`; did you mean --makers?": ["--maker", "splice"],
        "is no Maker": ["--makers", "[os.path.join]"],
        "--min_area 0.5 and --max_area 0.3 must rise": ["--min_area", "0.5"],
        "needs --masks FOLDER": ["--shapes", "segments"],
        "no such folder": ["--shapes", "given", "--masks", "nowhere"],
        "1 of 12 images must be left out, more than max_missing=0.05 allows; the last one is train/p00.png: the mask": [
            *("--shapes", "given", "-o", "none")
        ],
    }
    for message, words in wrong.items():
        with pytest.raises(SystemExit, match="2"):
            main(["forge", str(photos), "--progress", "false", "--workers", "1", *words])
        printed = capsys.readouterr().err
        assert message in printed, printed
        assert len(printed.splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".none.partial", "mine"]


def test_unreadable_pictures_are_skipped_and_said(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/real").mkdir(parents=True)
    for file in sorted((photos / "train").iterdir()):
        (Path("in/real") / file.name).write_bytes(file.read_bytes())
    Path("in/real/p00.png").write_bytes(b"nothing")
    root, rows = quick(Path("in"), "set", train=1.0, val=0.0, test=0.0, max_missing=0.2)
    assert "p00.png" not in {row["source"] for row in rows} | {row["donor"] for row in rows}
    assert len(rows) == 14
    assert [one["name"] for one in json.loads((root / "forge.json").read_text())["skipped"]] == ["p00.png"]
    assert "1 left out, such as p00.png" in capsys.readouterr().out


@pytest.mark.parametrize("ragged", [False, True])
def test_outlines_have_the_share_they_should(ragged: bool) -> None:
    rng = np.random.default_rng(0)
    share = [shapes.outline((90, 60), (0.05, 0.2), rng, ragged).mean() for _ in range(50)]
    assert 0.045 < min(share) < 0.08
    assert 0.15 < max(share) < 0.22


def test_segments_of_every_kind_of_file(tmp_path: Path) -> None:
    labels = np.ones((40, 60), np.uint16)
    labels[10:20, 10:30] = 2  # with a hole, which a thing has not
    labels[14:16, 15:20] = 3
    labels[30:, :20] = 4  # ends at the picture's edge
    people = np.empty((1, 1), object)
    people[0, 0] = {"Segmentation": labels}
    savemat("a.mat", {"groundTruth": people})
    np.save("a.npy", labels)
    Image.fromarray(labels.astype(np.uint8)).save("a.png")
    whole = np.zeros((40, 60), bool)
    whole[10:20, 10:30] = True
    for file in ("a.mat", "a.npy", "a.png"):
        drawn, kind = shapes.draw("segments", (60, 40), (0.05, 0.3), np.random.default_rng(0), file)
        assert kind == "segments"
        assert np.array_equal(drawn, whole)
    assert shapes.draw("segments", (60, 40), (0.4, 0.5), np.random.default_rng(0), "a.png")[1] == "blobs"
    with pytest.raises(DecodeError, match="but the picture is 50x40"):
        shapes.draw("segments", (50, 40), (0.05, 0.3), np.random.default_rng(0), "a.png")
    Path("b.npy").write_bytes(b"nothing")
    with pytest.raises(DecodeError, match="no segments can be read"):
        shapes.draw("segments", (60, 40), (0.05, 0.3), np.random.default_rng(0), "b.npy")


def test_given_masks_are_taken_as_they_are(photos: Path) -> None:
    Path("masks").mkdir()
    for file in photos.rglob("p*"):
        width, height = Image.open(file).size
        mask = np.zeros((height, width), np.uint8)
        mask[:9, 5:20] = 255
        Image.fromarray(mask).save(f"masks/{file.stem}_mask.png")
    root, rows = quick(photos, "set", makers=["swap", "blur"], shapes="given", masks="masks", feather=0.0)
    for row in (row for row in rows if row["label"] == "1"):
        assert region(root, row)[:9, 5:20].all()
        assert region(root, row).sum() == 9 * 15


def test_a_blend_rises_inwards_and_ends_at_the_region() -> None:
    image, changed = np.zeros((1, 9, 3), np.uint8), np.full((1, 9, 3), 120, np.uint8)
    area = np.array([[0, 0, 1, 1, 1, 1, 1, 1, 1]], bool)  # goes on beyond the picture's right edge
    assert blended(image, changed, area, 2)[0, :, 0].tolist() == [0, 0, 40, 80, 120, 120, 120, 120, 120]
    assert blended(image, changed, area, 0)[0, :, 0].tolist() == [0, 0, *[120] * 7]


def test_colours_move_to_those_of_the_other_picture() -> None:
    rng = np.random.default_rng(0)
    dark, light = (rng.normal(m, 12, (30, 30, 3)).clip(0, 255).astype(np.uint8) for m in (70, 170))
    flat = [x.reshape(-1, 3) for x in (dark, light)]
    for strength, goal in ((0.0, 70), (0.5, 120), (1.0, 170)):
        assert recoloured(dark, *flat, strength).mean() == pytest.approx(goal, abs=3)


def test_a_copied_piece_is_found_again_in_its_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    area = np.zeros((60, 60), bool)
    area[5:20, 8:22] = True
    for seed in range(5):
        changed, where = MAKERS["copymove"].make(Scene(image, area, image, (0.02, 0.3), 0), np.random.default_rng(seed))
        piece = changed[where].reshape(15, 14, 3)
        original = image[5:20, 8:22]
        assert np.array_equal(piece, original) or np.array_equal(piece, original[:, ::-1])
        assert (where & area).sum() < 0.1 * area.sum()


def _grey(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return np.full_like(scene.image, 128), scene.region


grey = Maker(_grey, "inpainting", family="model")


def test_a_maker_of_ones_own_is_named_by_its_path(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, rows = quick(photos, "set", makers=[f"{__name__}.grey"], feather=0.0, shapes="ellipses")
    fakes = [row for row in rows if row["label"] == "1"]
    assert {(row["generator"], row["family"], row["method"]) for row in fakes} == {("grey", "model", "inpainting")}
    assert (pixels(root, fakes[0])[region(root, fakes[0])] == 128).all()
