"""Sets by models: folders of tiny ones, entries of ``--models``, and what a command that is refused says."""

import contextlib
import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from dfl.__main__ import main
from dfl.data.decoding import read_image
from dfl.tools.forge import forge
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models import diffusion
from dfl.tools.forge.models.base import Model
from dfl.tools.forge.models.vae import Vae
from tests.generators import lora, stable_diffusion

Rows = list[dict[str, str]]


def folders_of_models(root: Path) -> Path:
    """Fill a folder: sd (text), sd9 (inpainting), sd8 (InstructPix2Pix); a LoRA of sd; photos."""
    stable_diffusion(root / "sd")
    stable_diffusion(root / "sd9", "StableDiffusionInpaintPipeline", 9)
    stable_diffusion(root / "sd8", "StableDiffusionInstructPix2PixPipeline", 8)
    lora(root / "lora", root / "sd", scale=10)
    for i in range(5):
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 256, (30 + 4 * (i % 2), 34, 3), dtype=np.uint8)
        folder = root / "photos" / ("train" if i < 3 else "val")
        folder.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(folder / f"p{i}.png")
    return root


def entry(kind: str, model: Path | str, **words: Any) -> dict[str, Any]:
    steps = {} if kind == "Vae" else {"steps": 2, "prompt": "a smiling face"}
    return {"class_path": kind, "init_args": {"model": str(model), **steps, **words}}


def file(**entries: Any) -> str:
    Path("models.yaml").write_text(yaml.safe_dump(entries))
    return "models.yaml"


def quick(source: Path, output: str, **words: Any) -> tuple[Path, Rows]:
    given = {"device": "cpu", "dtype": "float32", "batch": 2, "models": "models.yaml"}
    table = forge([str(source)], output, progress=False, workers=1, **{**given, **words})
    return table.parent, list(csv.DictReader(table.open()))


def made(kind: str, folder: Path | str, **words: Any) -> Model:
    """Return an open model of two steps."""
    cls = Vae if kind == "Vae" else getattr(diffusion, kind)
    model: Model = cls(**entry(kind, folder, **words)["init_args"])
    model.open("cpu", torch.float32)
    return model


def scenes_of(models: Path) -> list[Scene]:
    scenes = []
    for path in sorted((models / "photos").rglob("*.png")):
        image = read_image(path)
        region = np.zeros(image.shape[:2], bool)
        region[5:20, 8:20] = True
        scenes.append(Scene(image, region, image, (0.02, 0.3), 0))
    return scenes


def refused(*words: str) -> str:
    """Return the one line that a command ends with."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit, match="2"):
        main([*words, "--progress=false", "--workers=1"])
    assert len(said.getvalue().splitlines()) == 1, said.getvalue()
    return said.getvalue()
