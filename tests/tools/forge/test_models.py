"""Models as makers: tiny Stable Diffusions at random make whole and partial fakes, batch by batch."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dfl.data import Table
from dfl.data.decoding import read_image
from dfl.errors import UserError
from dfl.tools.forge.models import diffusion
from dfl.tools.forge.models.base import Check, Words, whole_cells
from dfl.tools.forge.models.diffusion import Diffusion
from dfl.tools.forge.models.pipeline import called
from dfl.tools.forge.models.vae import Vae
from dfl.tools.forge.scenes import batched
from tests.forged import Rows, entry, file, folders_of_models, made, quick, refused, scenes_of


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders_of_models(tmp_path_factory.mktemp("models"))


def content(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


ALL = {
    "text": ("TextToImage", "sd"),
    "edit": ("Edit", "sd"),
    "told": ("Instruct", "sd8"),
    "filled": ("Inpaint", "sd9"),
    "vae": ("Vae", "sd"),
}


@pytest.fixture(scope="module")
def whole(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """A set of all makers of this kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        file(**{name: entry(kind, models / folder) for name, (kind, folder) in ALL.items()})
        return quick(models / "photos", "set", per_image=len(ALL))


def test_tables_say_what_was_made_of_what(whole: tuple[Path, Rows]) -> None:
    root, rows = whole
    assert len(rows) == 5 * (1 + len(ALL))
    fakes = [row for row in rows if row["label"] == "1"]
    split_of = {row["source"]: row["split"] for row in rows if row["label"] == "0"}
    assert sorted(split_of.values()) == ["train"] * 3 + ["val"] * 2
    assert len({row["seed"] for row in fakes}) == len(fakes)
    about = json.loads((root / "forge.json").read_text())["settings"]
    for row in fakes:
        partial = row["generator"] == "filled"
        assert (row["class_label"], row["mask_rule"]) == (("2", "max") if partial else ("1", "all"))
        assert bool(row["mask"]) == partial
        assert row["split"] == split_of[row["source"]]
        assert row["model"] == f"{row['generator']}@{about[row['generator'] + '.sha256'][:12]}"
        assert 0 <= int(row["seed"]) < 1 << 63
        assert (row["steps"], row["caption"]) == (("", "") if row["generator"] == "vae" else ("2", "a smiling face"))
        assert (row["family"], row["tries"], row["gram"]) == ("diffusion", "1", "")
    table = Table(str(root / "table.csv")).load("val")
    assert set(table["class_label"].to_pylist()) == {0, 1, 2}


def test_pixels_outside_of_the_mask_are_the_photos(whole: tuple[Path, Rows], models: Path) -> None:
    root, rows = whole
    for row in (row for row in rows if row["label"] == "1"):
        fake, photo = read_image(root / row["path"]), read_image(models / "photos" / row["source"])
        assert fake.shape == photo.shape
        changed = (fake != photo).any(2)
        mask = read_image(root / row["mask"])[..., 0] > 0 if row["mask"] else np.ones(changed.shape, bool)
        assert not changed[~mask].any()
        assert changed[mask].mean() > 0.5


@pytest.mark.parametrize(("kind", "folder"), [ALL["text"], ALL["told"], ("Inpaint", "sd")])
def test_alone_an_image_is_what_it_is_in_any_batch(kind: str, folder: str, models: Path) -> None:
    model = made(kind, models / folder)
    scenes, prompts, seeds = (
        scenes_of(models),
        ["a face", "a man, with a hat", "", "an old photo", "a face"],
        [7, 1, 2, 3, 4],
    )
    together = batched(model, scenes, prompts, seeds)
    for i in (0, 3):
        alone = batched(model, scenes[i : i + 1], prompts[i : i + 1], seeds[i : i + 1])[0]
        assert np.array_equal(alone, together[i])
    other = batched(model, scenes[:1], prompts[:1], [8])[0]
    assert not np.array_equal(other, together[0])


def test_a_set_that_was_cut_off_is_the_one_that_was_not(
    whole: tuple[Path, Rows], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(whole[0].parent / "models.yaml", ".")
    real, calls = Diffusion.__call__, []

    def dies(self: Diffusion, *args: Any) -> Any:
        calls.append(type(self).__name__)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(Diffusion, "__call__", dies)
    with pytest.raises(KeyboardInterrupt):
        quick(models / "photos", "set", per_image=len(ALL))
    assert not Path("set").exists()
    quick(models / "photos", "set", per_image=len(ALL))
    assert len(calls) == 21  # four makers, each three batches, two of them of two sizes; one began twice
    assert content(Path("set")) == content(whole[0])
    calls.clear()
    quick(models / "photos", "set", per_image=len(ALL))  # it is there
    assert not calls
    with pytest.raises(UserError, match="made with other settings"):
        quick(models / "photos", "set", per_image=len(ALL), batch=3)


def test_a_lora_customises_and_its_weight_counts(models: Path) -> None:
    adapter = str(models / "lora" / "pytorch_lora_weights.safetensors")
    loras: list[dict[str, float] | None] = [None, {adapter: 0.0}, {adapter: 0.5}]
    scenes = scenes_of(models)[:1]
    base, zero, half = (batched(made("Edit", models / "sd", lora=one), scenes, ["a face"], [7])[0] for one in loras)
    assert np.array_equal(base, zero)
    assert (half != base).mean() > 0.2
    hashes = {diffusion.Edit(str(models / "sd"), lora=one).about()["sha256"] for one in loras}
    assert len(hashes) == 3
    twin = Path(shutil.copytree(models / "lora", "twin")) / "pytorch_lora_weights.safetensors"
    record = diffusion.Edit(str(models / "sd"), lora={adapter: 0.5, str(twin): 0.25}).about()["lora"]
    assert record == {adapter: 0.5, str(twin): 0.25}  # two files of one name


def test_models_ask_for_what_they_need(models: Path) -> None:
    photos = str(models / "photos")
    assert "--dtype is for generators that are models: give --models" in refused("forge", photos, "--dtype=float32")
    file(mine=entry("Edit", models / "sd"))
    line = ("forge", photos, "--models=models.yaml")
    assert "no model 'mein'; did you mean 'mine'?" in refused(*line, "--device=cpu", "--roundtrip=mein")
    assert "--dtype float16 is for a GPU" in refused(*line, "--device=cpu", "--dtype=float16")
    assert "--device warp:" in refused(*line, "--device=warp")
    assert "--device meta:" in refused(*line, "--device=meta")  # torch has it, and it holds no numbers
    assert "splice is none: make two sets" in refused(
        *line, "--device=cpu", "--roundtrip=mine", "--makers=[splice,mine]"
    )
    file(size={"class_path": f"{__name__}.Named"})
    assert "--models models.yaml has no model, which makes fakes: add one, or" in refused(*line, "--device=cpu")
    file(mine=entry("Edit", models / "sd"))
    Path("prompts.csv").write_text("path,prompt\np1.png,one\n")
    assert "has no prompt for 4 of 5 pictures: train/p0.png" in refused(*line, "--device=cpu", "--prompts=prompts.csv")
    Path("models.yaml").write_text("splice: {class_path: Vae}")
    assert "there is a maker splice already" in refused(*line)


def test_real_photos_can_carry_the_trace_too(models: Path) -> None:
    file(vae=entry("Vae", models / "sd"), filled=entry("Inpaint", models / "sd9"))
    root, rows = quick(models / "photos" / "train", "set", roundtrip="vae", square=24, train=1.0, val=0.0, test=0.0)
    vae = made("Vae", models / "sd")
    assert {row["generator"] for row in rows} == {"", "filled"}
    for real, fake in zip(rows[::2], rows[1::2], strict=True):
        photo = Image.open(models / "photos" / "train" / real["source"])
        photo = photo.crop((0, 0, 30, 30)) if photo.size[1] == 30 else photo
        image, made_of = read_image(root / real["path"]), read_image(root / fake["path"])
        assert image.shape == made_of.shape == (24, 24, 3)
        mask = read_image(root / fake["mask"])[..., 0] > 0
        assert np.array_equal(image[~mask], made_of[~mask])
        assert not np.array_equal(image[mask], made_of[mask])
    assert sorted(path.name for path in root.iterdir()) == ["forge.json", "images", "masks", "sheet.jpg", "table.csv"]
    plain, _ = quick(models / "photos" / "train", "plain", makers=["vae"], square=24, train=1.0, val=0.0, test=0.0)
    for row in rows[::2]:  # as a maker it does what the round trip does
        name = Path(row["path"])
        assert np.array_equal(read_image(root / name), read_image(plain / f"images/{name.stem}_vae.png"))
    assert vae.about()["sha256"]


class Named(Words):
    """Says the size of a photo."""

    fields = ("size",)
    asked = 0

    def open(self, device: str, dtype: torch.dtype) -> None:
        self.network = True

    def __call__(self, pictures: list[Any], images: list[np.ndarray]) -> list[dict[str, str]]:
        assert self.network
        Named.asked += len(images)
        return [{"size": f"{image.shape[1]} wide"} for image in images]

    def about(self) -> dict[str, Any]:
        return {"sha256": "0"}


class Coin(Check):
    """Finds about half of all fakes too far."""

    def open(self, device: str, dtype: torch.dtype) -> None:
        self.network = True

    def calibrate(self, photos: Any, people: Any, seed: int) -> dict[str, Any]:
        return {"threshold": 99.0, "n": len(photos), "size": photos[0]().shape[1]}

    def __call__(self, photos: list[np.ndarray], made: list[np.ndarray]) -> list[float]:
        assert self.network
        return [float(int(image.sum()) % 256) for image in made]

    def about(self) -> dict[str, Any]:
        return {"sha256": "0"}


def test_prompts_are_filled_and_what_is_too_far_is_made_again(models: Path) -> None:
    words = {"prompt": "a face, {size}", "again": "once more", "retries": 2}
    file(
        text=entry("TextToImage", models / "sd", **words),
        size={"class_path": f"{__name__}.Named"},
        near={"class_path": f"{__name__}.Coin"},
    )
    root, rows = quick(models / "photos", "set")
    check = json.loads((root / "forge.json").read_text())["check"]
    assert check == {"threshold": 99, "n": 3, "size": 34}
    assert Named.asked == 5
    fakes = [row for row in rows if row["label"] == "1"]
    for row in fakes:
        image, tries, gram = read_image(root / row["path"]), int(row["tries"]), float(row["gram"])
        assert gram == int(image.sum()) % 256
        assert 1 <= tries <= 3
        assert tries == 3 or gram <= 99
        assert row["caption"] in ("a face, 34 wide", "a face, 34 wide once more")
    assert len({row["tries"] for row in fakes}) > 1


def test_a_photo_that_cannot_be_read_is_left_out(models: Path) -> None:
    shutil.copytree(models / "photos", "photos")
    Path("photos/train/p1.png").write_bytes(b"nothing")
    file(vae=entry("Vae", models / "sd"))
    root, rows = quick(Path("photos"), "set", max_missing=0.5)
    assert [row["source"] for row in rows if row["label"] == "1"] == [
        *("train/p0.png", "train/p2.png", "val/p3.png", "val/p4.png")
    ]
    assert all((root / row["path"]).is_file() for row in rows)


def test_what_is_no_picture_and_no_memory_are_one_line(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __call__(self, **words: Any) -> Any:
            return type("Output", (), {"images": np.full((1, 8, 8, 3), np.nan)})

    with pytest.raises(UserError, match="give --dtype float32 or bfloat16"):
        called(Broken(), {}, (8, 8))

    def full(self: Vae, *args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Vae, "__call__", full)
    file(vae=entry("Vae", models / "sd"))
    with pytest.raises(UserError, match="no memory left on cpu for --batch 2: give a smaller one"):
        quick(models / "photos", "set")


def test_a_long_prompt_is_said_to_be_cut(models: Path) -> None:
    model = made("TextToImage", models / "sd", prompt="x")
    with pytest.warns(UserWarning, match="a prompt has 102 tokens, and the model reads 77"):
        batched(model, scenes_of(models)[:1], ["x" * 100], [1])


def test_a_region_grows_to_whole_cells() -> None:
    region = np.zeros((16, 24), bool)
    region[9, 17] = True
    grown = whole_cells(region, 8)
    assert grown[8:, 16:].all()
    assert grown.sum() == 64
