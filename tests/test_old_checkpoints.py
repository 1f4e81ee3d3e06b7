"""Checkpoints of earlier versions open, score and go on as they did; no class, argument or tensor is lost to a move."""

import shutil
from pathlib import Path
from typing import Any

import micro  # noqa: F401 - registers the backbones of the kept checkpoints
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from test_contract import TINY_LLAVA

from dfl import detectors
from dfl.__main__ import main
from dfl.data import DataModule, Folder
from dfl.detectors import Detector
from dfl.training import KeyedRandomness

FOLDER = Path(__file__).parent / "golden" / "checkpoints"
TINIEST: dict[str, Any] = {
    **TINY_LLAVA,
    "vision_config": TINY_LLAVA["vision_config"] | {"hidden_size": 16, "intermediate_size": 16},
    "text_config": TINY_LLAVA["text_config"] | {"hidden_size": 16, "intermediate_size": 16},
}
_RESNET: dict[str, Any] = {"backbone": "micro_resnet", "pretrained": False, "input_size": 32}
#: The arguments with which each was trained, none at its default where that can be.
MICRO: dict[str, dict[str, Any]] = {
    "AttentionXception": _RESNET | {"layer": "layer2", "map_weight": 0.5},
    "Baseline": _RESNET
    | {
        "criterion": {  # the files say scl_weight, fair and so on
            "class_path": "SingleCenter",
            "init_args": {
                "weight": 0.1,
                "feature": "logits",
                "beside": {"class_path": "DagFdd", "init_args": {"alpha": 0.7}},
            },
        }
    },
    "FairDisentangle": _RESNET | {"input_size": 64, "dim": 8, "fusion": "adain_block"},
    "GradCam": _RESNET | {"head": "fcn", "supervision": "label", "layer": "layer3"},
    "PatchForensics": {"cut": "relu2", "input_size": 32, "pooling": "pooled_avg"},
    "Sida": {"language_config": TINIEST, "dim": 16, "longest_answer": 16},
    "Ucf": _RESNET | {"input_size": 64, "dim": 8, "shuffle": 0.5},
    "VitScl": {
        "backbone": "micro_vit",
        "pretrained": False,
        "input_size": 32,
        "rank": 2,
        "train_also": ["norm*"],
        "criterion": {"class_path": "SingleCenter", "init_args": {"weight": 0.2}},
    },
}
#: What makes the run of ``vit_scl.yaml`` small.
RUN = ["--model.backbone=micro_vit", "--model.pretrained=false", "--model.input_size=32", "--data.num_workers=0"]


def build(name: str) -> Detector:
    """Return a detector at random, with an optimizer whose steps are smooth in its gradients."""
    pl.seed_everything(0)
    momentum = 0.0 if name == "Sida" else 0.9  # its mask decoder would double a file of 0.8 MB
    return getattr(detectors, name)(**MICRO[name], optimizer=lambda p: torch.optim.SGD(p, lr=0.01, momentum=momentum))


def data(faces: Path) -> DataModule:
    """Return 24 images for training, three steps an epoch."""
    source = Folder(str(faces), fractions={"train": 0.6, "val": 0.2, "test": 0.2}, limit=24)
    return DataModule(source, batch_size=4, num_workers=0)


def trainer(folder: Path, **words: Any) -> pl.Trainer:
    """Return a trainer of two epochs, three steps each."""
    settings: dict[str, Any] = {"callbacks": [KeyedRandomness()], "enable_checkpointing": False} | words
    quiet: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(
        max_epochs=2, limit_train_batches=3, limit_val_batches=0, default_root_dir=folder, accelerator="cpu",
        use_distributed_sampler=False, **quiet, **settings,
    )  # fmt: skip


def score(detector: Detector) -> np.ndarray:
    """Return the logits of six images of noise, (6,) float32."""
    size = detector.input_size
    image = torch.randint(0, 256, (6, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        batch = detector.on_after_batch_transfer({"image": image}, 0)
        logit: np.ndarray = detector.eval()(batch["image"])["logit"].float().numpy()
    return logit


@pytest.mark.parametrize("name", MICRO)
def test_it_opens_scores_and_goes_on(name: str, tmp_path: Path, faces: Path) -> None:
    file, then = FOLDER / f"{name}.ckpt", np.load(FOLDER / "scores.npz")
    opened = detectors.load(file)
    assert type(opened) is getattr(detectors, name)
    np.testing.assert_allclose(score(opened), then[f"{name}_step3"], rtol=1e-3, atol=1e-4)
    resumed = build(name)
    trainer(tmp_path).fit(resumed, data(faces), ckpt_path=str(file), weights_only=True)
    assert resumed.trainer.global_step == 6
    moved = np.abs(then[f"{name}_step6"] - then[f"{name}_step3"]).max()
    np.testing.assert_allclose(score(resumed), then[f"{name}_step6"], rtol=0, atol=0.05 * moved)


def test_a_run_of_the_command_line_is_tested_and_goes_on(tmp_path: Path, faces: Path) -> None:
    (tmp_path / "faces").symlink_to(faces)
    shutil.copytree(FOLDER / "run", tmp_path / "checkpoints" / "run")
    cli = main(["test", "--name=run", "--ckpt_path=last", "--data=data/folder.yaml", "--data.train.root=faces"])
    assert 0 <= cli.model.results["test"]["same"]["auroc"] <= 1
    opened = detectors.load(FOLDER / "run" / "last.ckpt")
    assert opened.hparams["rank"] == 16
    words = ["--data=data/folder.yaml", "--data.train.root=faces", "--data.train.limit=24", "--data.batch_size=4"]
    cli = main(
        ["fit", "--config=vit_scl.yaml", *words, *RUN, "--name=run", "--ckpt_path=last", "--trainer.max_epochs=2"]
    )
    assert cli.trainer.current_epoch == 2
