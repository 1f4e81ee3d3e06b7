"""The presets of the semantic attack and of the VAE's trace, from photos to tables, with tiny models at random."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from dfl.__main__ import main
from dfl.benchmark.spec import read
from dfl.cli import configs
from tests.generators import lora, stable_diffusion

FOLDER = Path(__file__).parents[3] / "configs"
#: Of the packaged makers, one or two of each kind.
MAKERS = ("neutral", "smiling", "told_nothing", "told_smiling", "base", "lora_100", "sd")
PRESETS = {name: configs.read(str(FOLDER / "benchmark" / f"{name}.yaml")) for name in ("semantic_attack", "vae_trace")}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four photos and their fakes by the packaged makers, with tiny models in place of the user's."""
    pytest.importorskip("diffusers")
    root = tmp_path_factory.mktemp("attack")
    stable_diffusion(root / "stable-diffusion-v1-5")
    stable_diffusion(root / "instruct-pix2pix", "StableDiffusionInstructPix2PixPipeline", 8)
    lora(root / "lora", root / "stable-diffusion-v1-5", scale=10)
    next((root / "lora").glob("*.safetensors")).rename(root / "style.safetensors")
    (root / "photos").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(root / "photos" / f"{i}.png")
    entries: dict[str, Any] = {}
    for name in ("semantic", "customised", "vae"):
        entries |= yaml.safe_load((FOLDER / "forge" / f"{name}.yaml").read_text())
    for one in (entries := {name: entries[name] for name in MAKERS}).values():
        one["init_args"] |= {"steps": 2} if one["class_path"] != "Vae" else {}
    (root / "models.yaml").write_text(yaml.safe_dump(entries))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        words = ["--train=0", "--val=0", "--test=1", f"--per_image={len(MAKERS)}", "--device=cpu", "--workers=1"]
        main(["forge", "photos", "--models=models.yaml", *words, "--output=forged"])
    return root


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes the longest and is tested elsewhere."""
    monkeypatch.setattr("dfl.benchmark.report.page", lambda *_: "")
    monkeypatch.setattr("dfl.benchmark.tensorboard.log", lambda *_: None)


def run(name: str) -> dict[str, Any]:
    """Run a preset on the test's images, with files of scores for checkpoints; the surrogate lets half pass."""
    content = PRESETS[name]
    domains = {key: content["domains"][key] for key in MAKERS if key in content["domains"]}
    rows = list(csv.DictReader(Path("forged/table.csv").read_text().splitlines()))
    found = {"mobilenetv2": 3, "efficientnet_b4": 2}  # so many of the four fakes of each domain
    for method, most in found.items():
        lines = ["path,label,score,domain,source,threshold"]
        for domain in domains:
            fakes = [row["path"] for row in rows if row["generator"] == domain]
            for row in rows:
                if row["generator"] in ("", domain):
                    score = 0.9 if row["path"] in fakes[:most] else 0.1
                    lines.append(f"forged/{row['path']},{row['label']},{score},{domain},{row['source']},0.5")
        Path(f"{method}.csv").write_text("\n".join(lines))
    before = {key: value for key, value in content["before"].items() if key in domains}
    rest = {"runs": {method: {"predictions": f"{method}.csv"} for method in found}, "domains": domains}
    for one in domains.values():
        one["init_args"]["source"]["init_args"]["file"] = "forged/table.csv"
    Path(f"{name}.yaml").write_text(yaml.safe_dump(content | rest | {"before": before, "resamples": 100}))
    result: dict[str, Any] = main(["benchmark", f"{name}.yaml"])
    return result


def test_semantic_attack(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    content = run("semantic_attack")
    changes = {(one["method"], one["domain"]): one for one in content["changes"]}
    kept = "{}_past_efficientnet_b4".format
    for name, base in PRESETS["semantic_attack"]["before"].items():
        if name in MAKERS:
            row, past = changes["mobilenetv2", name], changes["mobilenetv2", kept(name)]
            assert (row["compared"], row["before"], row["after"]) == (base, 0 if base == "reals" else 0.75, 0.75)
            assert (past["before"], past["after"]) == (row["before"], 0.5)  # it lets the last two pass
            assert ("efficientnet_b4", kept(name)) not in changes
    fakes = {one["name"]: one["fake"] for one in content["domains"]}
    assert (fakes["smiling"], fakes[kept("smiling")], fakes["base"]) == (4, 2, 4)
    assert "Share called fake" in Path("lightning_logs/semantic_attack/tables.md").read_text()


def test_vae_trace(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    content = run("vae_trace")
    (row,) = (one for one in content["changes"] if one["method"] == "efficientnet_b4")
    assert (row["domain"], row["compared"], row["before"], row["after"]) == ("sd", "reals", 0.0, 0.5)
    (area,) = (c for c in content["cells"] if (c["method"], c["metric"]) == ("efficientnet_b4", "auroc"))
    assert area["value"] == 0.75


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_fit_their_makers(name: str) -> None:
    """Each domain is of a maker that is packaged, and everything that is compared is there."""
    found = read(str(FOLDER / "benchmark" / f"{name}.yaml"))
    made = {"edits": "semantic", "customised": "customised", "vae": "vae"}
    packaged = {k for one in made.values() for k in yaml.safe_load((FOLDER / "forge" / f"{one}.yaml").read_text())}
    for domain, source in found.domains.items():
        assert source["init_args"]["generators"] == [domain]
        assert domain in packaged
