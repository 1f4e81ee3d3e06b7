"""Write tests/golden/checkpoints: a training run of each detector class, as the code of that day saves it.

    python tests/keep_checkpoints.py

Made once, before a change that files of users must outlive, and read by tests/test_old_checkpoints.py. Of each class:
``Name.ckpt``, saved after three of six steps, and in ``scores.npz`` its scores then and after the last step. ``run`` is
what the command line leaves of a run, with its settings.
"""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from conftest import save_image
from pytorch_lightning.callbacks import ModelCheckpoint
from test_old_checkpoints import FOLDER, MICRO, RUN, build, data, score, trainer

from dfl.__main__ import main
from dfl.training import KeyedRandomness


def keep(name: str, faces: Path, folder: Path) -> dict[str, np.ndarray]:
    """Train a detector, keep its checkpoint, and return its scores."""
    saved = ModelCheckpoint(folder, filename=f"{name}-{{step}}", every_n_train_steps=3, save_top_k=-1)
    detector = build(name)
    trainer(folder, callbacks=[KeyedRandomness(), saved], enable_checkpointing=True).fit(detector, data(faces))
    file = FOLDER / f"{name}.ckpt"
    (folder / f"{name}-step=3.ckpt").rename(file)
    middle = build(name)
    middle.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    return {f"{name}_step3": score(middle), f"{name}_step6": score(detector)}


def keep_run(folder: Path) -> None:
    """Train by the command line, and keep the folder of the run's checkpoints."""
    os.chdir(folder)
    words = ["--data=data/folder.yaml", "--data.train.root=faces", "--data.train.limit=24", "--data.batch_size=4"]
    main(["fit", "--config=vit_scl.yaml", *words, *RUN, "--name=run", "--trainer.max_epochs=1"])
    shutil.copytree("checkpoints/run", FOLDER / "run", dirs_exist_ok=True)


if __name__ == "__main__":
    pl.seed_everything(0)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        faces = Path(temporary, "faces")
        for i in range(30):
            save_image(faces / "real" / f"{i:02d}.png", i, dark=False)
            save_image(faces / "fake" / f"{i:02d}.png", 100 + i, dark=True)
        scores = {}
        for name in MICRO:
            scores |= keep(name, faces, Path(temporary))
        keep_run(Path(temporary))
    np.savez(FOLDER / "scores.npz", **scores)
