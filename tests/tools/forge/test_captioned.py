"""The user's pipeline from photos to checked fakes, by its packaged config, with tiny networks at random."""

import json
from pathlib import Path
from typing import Any

import captioners
import numpy as np
import pytest
import torch
import yaml

from dfl.cli import configs
from dfl.data import csv_files
from dfl.data.locators import load_image
from dfl.errors import UserError
from dfl.networks import without_weights
from dfl.networks.captioner import Captioner
from dfl.networks.vgg import Vgg
from dfl.tools.forge import Scene, forge
from dfl.tools.forge.gram import GramCheck
from dfl.tools.forge.models.base import Model
from dfl.tools.forge.models.entries import read
from dfl.tools.forge.prompts import AGAIN, SENTENCE

pytest.importorskip("diffusers")
WORDS: dict[str, Any] = {"square": 32, "batch": 2, "device": "cpu", "progress": False, "train": 1, "val": 0, "test": 0}
#: What the packaged config leaves to the user, small.
SMALL = {
    "captions": {"beams": 1, "shortest": 2, "longest": 4},
    "stable_diffusion": {"steps": 2},
    "gram": {"size": 32},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the config wants to find: a captioner, a Stable Diffusion and a VGG19."""
    import generators

    folder = tmp_path_factory.mktemp("models")
    captioners.captioner(folder).rename(folder / "captioner")
    generators.stable_diffusion(folder / "stable-diffusion")
    torch.manual_seed(0)
    with without_weights():
        torch.save(Vgg(None).state_dict(), folder / "vgg19-dcbb9e9d.pth")
    return folder


@pytest.fixture(autouse=True)
def _place(models: Path, faces: Path) -> None:
    """The working directory: models, six photos, what is known of them, and the config with small numbers."""
    Path("models").symlink_to(models)
    Path("photos").mkdir()
    lines = ["path,gender,age,race,emotion"]
    for i in range(6):
        Path(f"photos/{i}.png").write_bytes((faces / "real" / f"{i:02d}.png").read_bytes())
        lines.append(f"{i}.png,{'man' if i % 2 else 'woman'},{20 + i},white,happy")
    Path("attributes.csv").write_text("\n".join(lines))
    small()


def small(**more: dict[str, Any]) -> None:
    """Write the packaged config with small numbers, and others."""
    config = configs.read(configs.find("forge/captioned"))
    for values in (SMALL, more):
        for name, arguments in values.items():
            config[name]["init_args"] |= arguments
    Path("small.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def fakes(table: Path) -> list[dict[str, Any]]:
    return [row for row in csv_files.read(table).to_pylist() if row["label"] == "1"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_photos_become_words_pictures_and_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    table = forge(["photos"], "set", models="small.yaml", **WORDS)
    record, rows = json.loads(Path("set/forge.json").read_text())["check"], fakes(table)
    check, captioner = read("small.yaml").checks["gram"], Captioner("models/captioner", 1, 2, 4, device="cpu")
    assert isinstance(check, GramCheck)
    check.open("cpu", torch.float32)
    for i, row in enumerate(rows):
        photo, made = load_image(f"set/images/{i:06d}.png"), load_image(f"set/{row['path']}")
        words = {"caption": captioner([photo])[0], "gender": "man" if i % 2 else "woman", "age": f"{20 + i}"}
        prompt = SENTENCE.format(**words, race="white", emotion="happy")
        assert row["caption"] in (prompt, f"{prompt} {AGAIN}")
        distance = check([photo], [made])[0]
        assert float(row["gram"]) == pytest.approx(distance, rel=1e-5)
        assert row["tries"] == "2" or distance <= record["threshold"]
        assert (row["class_label"], row["mask"], row["source"]) == ("1", "", f"{i}.png")
    assert record["n"] == 15

    made, calls = content(Path("set")), []
    distances = GramCheck.__call__

    def cut_off(self: GramCheck, *pictures: Any) -> list[float]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return distances(self, *pictures)

    monkeypatch.setattr(GramCheck, "__call__", cut_off)
    with pytest.raises(KeyboardInterrupt):
        forge(["photos"], "again", models="small.yaml", **WORDS)
    monkeypatch.setattr(GramCheck, "calibrate", None)
    monkeypatch.setattr(Captioner, "__init__", None)  # both are done
    forge(["photos"], "again", models="small.yaml", **WORDS)
    assert content(Path("again")) == made


def test_a_set_with_captions_needs_no_captioner_and_what_is_near_enough_is_made_once() -> None:
    lines = ["path,label,caption", *(f"photos/{i}.png,0,number {i}." for i in range(6))]
    Path("set.csv").write_text("\n".join(lines))
    small(gram={"threshold": 1e9})
    rows = fakes(forge(["set.csv"], models="small.yaml", **WORDS))
    assert [(row["tries"], row["caption"][:25]) for row in rows] == [
        ("1", f"A face image of number {i}.") for i in range(6)
    ]
    settings = json.loads(Path("forged/forge.json").read_text())["settings"]
    assert "attributes.sha256" in settings
    assert "captions.sha256" not in settings


class Echo(Model):
    """Makes of any prompt the photo itself."""

    kind, method, prompted = "edit", "nothing", True

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Do nothing."""

    def about(self) -> dict[str, Any]:
        return {"sha256": "0"}

    def __call__(self, scenes: list[Scene], prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        return [scene.image for scene in scenes]


def test_prompts_of_a_file_have_fields_too_and_photos_can_be_told_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each photo needs the words of its own prompt alone; its table's caption leaves other fields to the captioner."""
    Path("set.csv").write_text("\n".join(["path,label,caption", *(f"photos/{i}.png,0,number {i}." for i in range(6))]))
    Path("attributes.csv").write_text("path,gender\n2.png,woman")
    config = yaml.safe_load(Path("small.yaml").read_text())
    config["captions"]["init_args"]["field"] = "told"
    config = {name: config[name] for name in ("captions", "attributes")}
    Path("small.yaml").write_text(yaml.safe_dump(config | {"words": {"class_path": f"{__name__}.Echo"}}))
    seen: list[int] = []
    tell = Captioner.__call__

    def telling(self: Captioner, images: Any) -> list[str]:
        seen.append(len(images))
        return tell(self, images)

    def prompted(*prompts: str) -> Path:
        Path("p.csv").write_text("\n".join(["path,prompt", *(f'{i}.png,"{p}"' for i, p in enumerate(prompts))]))
        return forge(["set.csv"], models="small.yaml", prompts="p.csv", **WORDS)

    monkeypatch.setattr(Captioner, "__call__", telling)
    for prompt, line in [("a {smile}", "--prompts: .* field {smile}"), ("a {gender}", "5.png has no gender")]:
        with pytest.raises(UserError, match=line):
            prompted("zero", "one", "two", "three", "four", prompt)
    table = prompted("{{a}} {caption}", "{told}", "a {gender}", "{told}, {caption}", "four", "five")
    assert seen == [1] * 6  # alone, as models on a CPU
    captioner = Captioner("models/captioner", 1, 2, 4, device="cpu")
    one, three = (captioner([load_image(f"forged/images/00000{i}.png")])[0] for i in (1, 3))
    made = [row["caption"] for row in fakes(table)]
    assert made == ["{a} number 0", one, "a woman", f"{three}, number 3", "four", "five"]


def test_words_that_nothing_says_are_one_line() -> None:
    small(stable_diffusion={"prompt": "a {smile} of {gender}"})
    with pytest.raises(UserError, match=r"field {smile}, and nothing says it"):
        forge(["photos"], models="small.yaml", **WORDS)
    Path("attributes.csv").write_text(Path("attributes.csv").read_text().replace("4.png", "5").replace("man", "", 1))
    small(stable_diffusion={"prompt": "a {gender}"})
    with pytest.raises(UserError, match=r"4.png has no gender, which the prompt asks for"):
        forge(["photos"], models="small.yaml", **WORDS)
    assert not Path("forged").exists()


@pytest.mark.parametrize(
    ("cell", "splits", "line"),
    [
        ("", {}, r"3.png has no age, which the prompt asks for"),
        (
            "23",
            {"train": 0, "test": 1},
            r"gram: the threshold .* of its 0 no two .*; give a threshold",
        ),
    ],
)
def test_what_photos_lack_is_said_before_anything_is_made(cell: str, splits: dict[str, float], line: str) -> None:
    table = Path("attributes.csv").read_text()
    Path("attributes.csv").write_text(table.replace(",23,", f",{cell},"))
    with pytest.raises(UserError, match=line):
        forge(["photos"], models="small.yaml", **WORDS | splits)
    assert not Path(".forged.partial").exists()


def test_photos_that_cannot_be_read_need_no_words_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/3.png").write_bytes(b"nothing")
    table = Path("attributes.csv").read_text().splitlines()
    Path("attributes.csv").write_text("\n".join(line for line in table if not line.startswith("3.png")))
    Path("p.csv").write_text("\n".join(["path,prompt", *(f"{i}.png,a {{gender}}" for i in (0, 1, 2, 4, 5))]))
    small(gram={"threshold": 1e9})
    with pytest.raises(UserError, match=r"1 of 6 images must be left out, more than max_missing=0.05.* 3.png: "):
        forge(["photos"], models="small.yaml", **WORDS)
    for words in ({}, {"prompts": "p.csv"}):
        rows = fakes(forge(["photos"], f"set{len(words)}", models="small.yaml", max_missing=0.2, **WORDS, **words))
        assert [row["source"] for row in rows] == [f"{i}.png" for i in (0, 1, 2, 4, 5)]
    assert capsys.readouterr().out.count("1 left out, such as 3.png: ") == 2


def test_a_check_of_one_photo_that_can_be_read_is_said_before_anything_is_made() -> None:
    for i in range(1, 5):
        Path(f"photos/{i}.png").unlink()
    Path("photos/5.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"gram: the threshold .* of its 2 no two can be compared; one cannot be read"):
        forge(["photos"], models="small.yaml", max_missing=0.5, **WORDS)
    assert not Path(".forged.partial").exists()
