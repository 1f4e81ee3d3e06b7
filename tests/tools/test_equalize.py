"""Writing both classes anew: what the files then have in common, and what is left out."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dfl.data import Folder, Table, Transform
from dfl.data.decoding import read_image
from dfl.data.masks import load_mask
from dfl.errors import UserError
from dfl.tools.equalize import equalize
from dfl.tools.file_facts import measure
from dfl.tools.sources import read_rows


def picture(path: Path, width: int, height: int, seed: int = 0, **words: object) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **words)
    return pixels


def biased(root: Path, n: int = 6) -> None:
    """Reals are JPEG of quality 75 with EXIF, fakes PNG of another size; the fakes have masks, marked dark."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    lines = ["path,label,split,mask,mask_rule,generator"]
    for i in range(n):
        part = "train" if i < n - 2 else "test"
        picture(root / f"in/r{i}.jpg", 80, 70, i, quality=75, exif=exif)
        picture(root / f"in/f{i}.png", 100, 64, 100 + i)
        mask = np.full((64, 100), 255, np.uint8)
        mask[:32, :50] = 0
        Image.fromarray(mask).save(root / f"in/m{i}.png")
        lines += [f"in/r{i}.jpg,0,{part},,,", f"in/f{i}.png,1,{part},in/m{i}.png,mean<128,sd"]
    (root / "set.csv").write_text("\n".join(lines))


def test_both_classes_are_written_the_same_way(tmp_path: Path) -> None:
    biased(tmp_path)
    table = equalize(["set.csv"], "out", size=64, quality=90, subsampling="4:2:0", workers=1, progress=False)
    rows = [row for part in ("train", "test") for row in Table(str(table)).load(part).to_pylist()]
    assert len(rows) == 12
    facts = [measure(row["path"], row["mask"], row["mask_rule"]) for row in rows]
    for name, value in {"format": "JPEG", "width": 64, "height": 64, "quality": 90, "subsampling": "4:2:0"}.items():
        assert {fact[name] for fact in facts} == {value}
    assert len({fact["qtables"] for fact in facts}) == 1
    assert not any(fact["error"] or fact["mask_error"] for fact in facts)
    with Image.open(rows[0]["path"]) as image:
        assert not image.getexif()
        assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert [row["generator"] for row in rows if row["label"]] == ["sd"] * 6
    # masks went through the same crop, and are 255 = manipulated now
    fake = next(row for row in rows if row["label"])
    assert (fake["mask_rule"], Path(fake["mask"]).parent.parent) == ("max", table.parent / "masks/train")
    area = load_mask(fake["mask"], "", (64, 64))
    assert area is not None
    left = (100 - 64) // 2 // 16 * 16
    assert area[:32, : 50 - left].min() == 255
    assert area.sum() == 255 * 32 * (50 - left)
    assert len(Folder(str(table.parent)).load("train")) == 8, "readable without its table too"
    record = json.loads((table.parent / "equalize.json").read_text())
    assert record["counts"] == {"train": {"real": 4, "fake": 4}, "test": {"real": 2, "fake": 2}}
    assert record["left_out"] == []
    assert {"settings", "versions"} <= record.keys()
    assert pq.read_table(table)["origin"][0].as_py() == "in/r0.jpg"
    again = read_rows([str(table.parent)])  # the folder, named to another verb, is read by its table
    assert again["generator"].to_pylist().count("sd") == 6


def test_geometry_bit_for_bit(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "in/real/a.png", 100, 70)
    other = picture(tmp_path / "in/fake/b.png", 60, 60, 1)
    for fit, size in (("crop", 48), ("resize", 32)):
        table = equalize(["in"], fit, size=size, fit=fit, format="png", workers=1, progress=False)
        images = {row["label"]: read_image(row["path"]) for row in Table(str(table)).load("test").to_pylist()}
        if fit == "crop":  # from the middle, back to a multiple of 16
            assert (images[0] == pixels[0:48, 16:64]).all()
            assert (images[1] == other[0:48, 0:48]).all()
        else:
            view = Transform().eval(32)
            assert (images[1] == view(other, None, ())[0].permute(1, 2, 0).numpy()).all()
            assert images[0].shape == (32, 32, 3)


def test_what_cannot_be_taken_is_named_and_capped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    biased(tmp_path)
    picture(tmp_path / "in/r0.jpg", 40, 80)
    (tmp_path / "in/r1.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"1 of 12 images must be left out, more than max_bad=0.01.*r0.jpg: 40x80 is"):
        equalize(["set.csv"], "out", size=64, workers=1, progress=False)
    assert not Path("out").exists()
    table = equalize(["set.csv"], "out", size=64, workers=1, progress=False, max_bad=0.2)  # goes on
    assert "2 left out, such as" in capsys.readouterr().out
    record = json.loads((table.parent / "equalize.json").read_text())
    assert [Path(path).name for path, _ in record["left_out"]] == ["r0.jpg", "r1.jpg"]
    assert "smaller than 64" in record["left_out"][0][1]
    assert len(pq.read_table(table)) == 10
    with pytest.raises(UserError, match="labels, and 1 images have none"):
        equalize([_unlabelled()], "other", progress=False)


def _unlabelled() -> str:
    picture(Path("plain/x.png"), 80, 80)
    return "plain"


def test_other_images_or_facts_are_another_set(tmp_path: Path) -> None:
    biased(tmp_path)
    equalize(["set.csv"], "out", size=64, workers=1, progress=False)
    text = Path("set.csv").read_text()
    Path("set.csv").write_text(text.replace(",sd", ",sdxl"))
    with pytest.raises(UserError, match="other images or other facts"):
        equalize(["set.csv"], "out", size=64, progress=False)
