"""Fixtures: every test writes in a folder of its own, from a fixed seed, without any network."""

import gc
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants as hub_constants
from PIL import Image

from dfl.evaluation import plots
from dfl.training.tensorboard import TensorBoardInspect

torch.set_num_threads(1)  # many small tensors: threads cost more than they bring


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported stays to the end, so the garbage collector need not go through it again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Which runs are this user's own is noted for the tests alone; processes that they start know it too."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> None:
    """No name is looked up, which takes five seconds where nothing answers; processes that they start know it too."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    hub_constants.HF_HUB_OFFLINE = True  # the library has read its environment already


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="module")
def _figures(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw figures, half of the time of a small run, only for the files of tests that look at them."""
    with pytest.MonkeyPatch.context() as patch:
        if not getattr(request.module, "LOOKS_AT_FIGURES", False):
            patch.setattr(TensorBoardInspect, "_draw", lambda *_: None)
            patch.setattr(plots, "to_png", lambda _: b"")
        yield


def save_image(path: Path, seed: int, dark: bool, size: int = 40) -> None:
    """Write noise, dark if fake, so that a few steps tell them apart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels // 2 if dark else pixels).save(path)


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 30 real and 30 fake images of 40 px."""
    root = tmp_path_factory.mktemp("faces")
    for i in range(30):
        save_image(root / "real" / f"{i:02d}.png", i, dark=False)
        save_image(root / "fake" / f"{i:02d}.png", 100 + i, dark=True)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """A folder with ``tiny.yaml`` and the run ``tiny``, trained for one epoch."""
    from commands import train

    return train(tmp_path_factory.mktemp("trained"), faces)


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder, as the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path
