"""The kin of Stable Diffusion as makers, by what their folders say that they are: XL, 3 and Flux Fill."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dfl.errors import UserError
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models import diffusion
from dfl.tools.forge.scenes import batched
from tests.families import family

pytest.importorskip("diffusers")


@pytest.fixture(scope="module", params=["xl", "3", "fill"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return family(tmp_path_factory.mktemp("families") / request.param, request.param)


def scenes() -> list[Scene]:
    made = []
    for seed in range(2):
        image = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), np.uint8)
        region = np.zeros((30, 40), bool)
        region[5:20, 8:20] = True
        made.append(Scene(image, region, image, (0.02, 0.3), 0))
    return made


@pytest.mark.parametrize("kind", ["TextToImage", "Edit", "Inpaint"])
def test_each_family_makes_pictures_alone_as_in_a_batch(folder: Path, kind: str) -> None:
    if folder.name == "fill" and kind != "Inpaint":
        with pytest.raises(UserError, match="which this maker has none of"):
            getattr(diffusion, kind)(str(folder), prompt="a face", steps=2)
        return
    more: dict[str, Any] = {} if kind == "TextToImage" else {"strength": 1.0}
    model = getattr(diffusion, kind)(str(folder), prompt="a face", steps=2, **more)
    model.open("cpu", torch.float32)
    photos, prompts = scenes(), ["a face", "an old face"]
    made = batched(model, photos, prompts, [3, 4])
    assert [image.shape for image in made] == [(30, 40, 3)] * 2
    assert np.array_equal(batched(model, photos[1:], prompts[1:], [4])[0], made[1])
    assert not np.array_equal(batched(model, photos[1:], prompts[1:], [5])[0], made[1])
    assert (made[0][photos[0].region] != photos[0].image[photos[0].region]).mean() > 0.9
