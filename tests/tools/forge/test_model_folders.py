"""Folders and LoRA files that diffusion models are read from: what each says it is, and how each can be wrong."""

import json
import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from dfl.errors import UserError
from dfl.tools.forge.models import diffusion, folders
from dfl.tools.forge.scenes import batched
from tests.forged import entry, file, folders_of_models, made, refused, scenes_of
from tests.generators import stable_diffusion


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders_of_models(tmp_path_factory.mktemp("models"))


class Bomb:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("ran",))


def folders_gone_wrong(models: Path) -> None:
    """Make folders that each lack something, or say what they must not."""
    changes: dict[str, dict[str, Any]] = {
        "foreign": {"unet": ["os", "system"]},
        "timed": {"scheduler": ["os", "system"]},
        "own": {"vae": ["dfl", "AutoencoderKL"]},
        "other": {"_class_name": "PaintPipeline"},
    }
    for name in ("empty", "pickled", "wordless", "typed", *changes):
        shutil.copytree(models / "sd", name)
    shutil.rmtree("wordless/tokenizer")
    Path("typed/vae/config.json").write_text('{"block_out_channels": 8}')
    for name in ("empty", "pickled"):
        Path(name, "unet/diffusion_pytorch_model.safetensors").unlink()
    Path("pickled/unet/diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    for name, change in changes.items():
        index = json.loads(Path(name, "model_index.json").read_text())
        Path(name, "model_index.json").write_text(json.dumps(index | change))
    Path("b.safetensors").write_bytes(pickle.dumps(Bomb()))


def test_what_cannot_be_is_one_line(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every error of a folder, a LoRA or a number, before any weight is read."""
    wrong: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "no folder 'nowhere' in": ("Edit", "nowhere", {}),
        "no folder of diffusers: it has no model_index.json": ("Edit", models / "photos", {}),
        "it has no weights: download them": ("Edit", "empty", {}),
        "wordless/tokenizer is not there or empty": ("Edit", "wordless", {}),
        "typed/vae/config.json says block_out_channels '8'": ("Edit", "typed", {}),
        "its weights are pickled (diffusion_pytorch_model.bin)": ("Edit", "pickled", {}),
        "the unet of": ("TextToImage", models / "sd9", {}),
        "Instruct 8": ("Instruct", models / "sd", {}),
        "its unet is ['os', 'system']; it must be UNet2DConditionModel": ("Edit", "foreign", {}),
        "its scheduler is ['os', 'system']": ("Edit", "timed", {}),
        "its vae is ['dfl', 'AutoencoderKL']": ("Edit", "own", {}),
        "is of 'PaintPipeline', and this maker takes": ("Edit", "other", {}),
        "lora.bin must end in .safetensors": ("Edit", models / "sd", {"lora": {"lora.bin": 1.0}}),
        "lora: no file 'a.safetensors'": ("Edit", models / "sd", {"lora": {"a.safetensors": 1.0}}),
        "b.safetensors is damaged or no safetensors": ("Edit", models / "sd", {"lora": {"b.safetensors": 1.0}}),
        "strength 0.0 must be above 0": ("Edit", models / "sd", {"strength": 0.0}),
        "steps 0 must be at least 1": ("Edit", models / "sd", {"steps": 0}),
        "guidance nan must be a number": ("Edit", models / "sd", {"guidance": float("nan")}),
        "image_guidance -1.0 must be a number": ("Instruct", models / "sd8", {"image_guidance": -1.0}),
        "lora": ("Edit", models / "sd", {"lora": {"a.safetensors": "much"}}),
        "no class 'Edti'; did you mean 'Edit'?": ("Edti", models / "sd", {}),
        "stepz": ("Edit", models / "sd", {"stepz": 3}),
        "has no prompt: write one, or give --prompts FILE": ("Edit", models / "sd", {"prompt": None}),
        "has the field {caption}, and nothing says it": ("Edit", models / "sd", {"prompt": "{caption}"}),
        "{x.y} is no field": ("Edit", models / "sd", {"prompt": "{x.y}"}),
    }
    folders_gone_wrong(models)
    for message, (kind, folder, words) in wrong.items():
        file(mine=entry(kind, folder, **words))
        said = refused("forge", str(models / "photos"), "--models=models.yaml", "--device=cpu")
        assert message in said, said
        assert "Union" not in said, said  # the parser's words for what it tried
        assert not Path("forged").exists()
        assert not Path(".forged.partial").exists()
    for spec in ({"class_path": "pathlib.Path"}, {**entry("Edit", models / "sd"), "lora": {}}):
        file(mine=spec)
        said = refused("forge", str(models / "photos"), "--models=models.yaml", "--device=cpu")
        assert "of Part" in said or "written as class_path and init_args, not" in said, said
        assert "Union" not in said, said


def test_what_only_weights_tell_is_one_line_too_before_anything_is_made(
    models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = stable_diffusion(Path("other"), hidden=48)
    wrong: dict[str, tuple[str, dict[str, Any]]] = {
        "broken cannot be opened": ("broken", {}),
        "pointer cannot be opened": ("pointer", {}),
        "was it made of another base?": (
            str(other),
            {"lora": {str(models / "lora" / "pytorch_lora_weights.safetensors"): 1.0}},
        ),
        "changes nothing of StableDiffusionImg2ImgPipeline": (str(models / "sd"), {"lora": {"idle.safetensors": 1.0}}),
        "strength 0.1 of 2 steps leaves none": (str(models / "sd"), {"strength": 0.1}),
        "steps 2000 are more than the 1000 levels of noise": (str(models / "sd"), {"steps": 2000}),
    }
    save_file({"transformer.to_q.lora_A.weight": torch.ones(2, 2)}, "idle.safetensors")
    shutil.copytree(models / "sd", "broken")
    weights = Path("broken/unet/diffusion_pytorch_model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1000])
    shutil.copytree(models / "sd", "pointer")
    Path("pointer/text_encoder/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    logging.getLogger("diffusers").addHandler(caplog.handler)
    try:
        for message, (folder, words) in wrong.items():
            file(first=entry("Vae", models / "sd"), mine=entry("Edit", folder, **words))
            said = refused("forge", str(models / "photos"), "--models=models.yaml", "--device=cpu")
            assert said.startswith("dfl: --models models.yaml: mine: "), said
            assert message in said, said
            assert not Path(".forged.partial").exists()
    finally:
        logging.getLogger("diffusers").removeHandler(caplog.handler)
    assert not caplog.records  # what diffusers says of a LoRA that does not fit is some 30 lines


def test_a_package_that_is_missing_is_named_before_anything_is_made(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "_HAS_DIFFUSERS", False)
    file(mine=entry("Edit", models / "sd"))
    said = refused("forge", str(models / "photos"), "--models=models.yaml", "--device=cpu")
    assert "mine: models of diffusion need the package diffusers: pip install 'dfl[generate]'" in said
    assert not Path(".forged.partial").exists()


def test_parts_that_do_not_belong_together_are_one_line(models: Path) -> None:
    shutil.copytree(models / "sd", "mixed")
    shutil.rmtree("mixed/text_encoder")
    shutil.copytree(stable_diffusion(Path("other"), hidden=48) / "text_encoder", "mixed/text_encoder")
    with pytest.raises(UserError, match=r"fails on pictures of 40x32: .*belong together") as error:
        batched(made("TextToImage", "mixed"), scenes_of(models)[:1], ["a face"], [1])
    assert len(str(error.value).splitlines()) == 1


def test_a_planted_pickle_does_not_run(models: Path) -> None:
    Path("planted").mkdir()
    shutil.copytree(models / "sd", "trap")
    bomb = pickle.dumps(Bomb())
    for place in ("unet/diffusion_pytorch_model.bin", "text_encoder/pytorch_model.bin", "vae/model.pkl"):
        Path("trap", place).write_bytes(bomb)
    Path("trap/unet/unet.py").write_text("raise SystemExit('ran')")
    made("Edit", "trap")  # reads safetensors beside them
    for name in ("lora.bin", "lora.safetensors", "lora.pt"):
        Path(name).write_bytes(bomb)
        with pytest.raises(UserError, match="lora"):
            made("Edit", models / "sd", lora={name: 1.0})
    Path("trap/unet/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(UserError, match="pickled"):
        made("Edit", "trap")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("kind", "names", "channels", "pipeline", "multiple"),
    [
        (
            "Inpaint",
            ("StableDiffusionXLPipeline", "unet", "UNet2DConditionModel"),
            4,
            "StableDiffusionXLInpaintPipeline",
            8,
        ),
        (
            "Inpaint",
            ("StableDiffusion3Pipeline", "transformer", "SD3Transformer2DModel"),
            33,
            "StableDiffusion3InpaintPipeline",
            16,
        ),
        ("Inpaint", ("FluxFillPipeline", "transformer", "FluxTransformer2DModel"), 384, "FluxFillPipeline", 16),
        ("Edit", ("FluxPipeline", "transformer", "FluxTransformer2DModel"), 64, "FluxImg2ImgPipeline", 16),
        (
            "TextToImage",
            ("StableDiffusionInpaintPipeline", "unet", "UNet2DConditionModel"),
            4,
            "StableDiffusionPipeline",
            8,
        ),
    ],
)
def test_a_folder_is_what_it_says(
    kind: str, names: tuple[str, str, str], channels: int, pipeline: str, multiple: int
) -> None:
    own, part, network = names
    index = {"_class_name": own, part: ["diffusers", network], "vae": ["diffusers", "AutoencoderKL"]}
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    latent = 16 if part == "transformer" else 4
    for name, config in {
        ".": index,
        part: {"_class_name": network, "in_channels": channels},
        "vae": {"block_out_channels": [8] * 4, "latent_channels": latent},
    }.items():
        place = Path("folder", name)
        place.mkdir(parents=True, exist_ok=True)
        (place / ("model_index.json" if name == "." else "config.json")).write_text(json.dumps(config))
        (place / "weights.fp16.safetensors").touch()
    folder = getattr(diffusion, kind)("folder", prompt="x").folder
    assert (folder.pipeline, folder.multiple, folder.variant) == (pipeline, multiple, "fp16")
