"""A detector of one weight, and three domains with what a report must not hide, for tests of reports."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from conftest import save_image
from torch import Tensor, nn

from dfl.data import DataModule, Folder
from dfl.data.sources.table import Table
from dfl.detectors import Detector

ODD = "<i>&odd.png"


class Brightness(Detector):
    """Dark is fake."""

    input_size = 16

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(-1.0))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        feature = self.normalize(image).mean(dim=(2, 3))
        return {"logit": self.weight * (feature.mean(dim=1) + 0.25), "feature": feature}

    def loss(self, out: dict[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        logit = out["logit"].float()
        return {"loss": nn.functional.binary_cross_entropy_with_logits(logit, batch["label"].float())}


def data(faces: Path, folder: Path) -> DataModule:
    """Test on `own` (12 images), on `odd` (two fakes as dark as they should be, one bright, one real listed twice,
    one broken file), and on `lone` (real only).
    """
    for name, seed, dark in ((ODD, 1, False), ("fake0.png", 2, True), ("fake1.png", 3, True), ("real.png", 4, False)):
        save_image(folder / name, seed, dark)
    (folder / "broken.png").write_bytes(b"nothing")
    rows = [(ODD, 1), ("fake0.png", 1), ("fake1.png", 1), ("real.png", 0), ("real.png", 0), ("broken.png", 1)]
    for file, lines in (("odd.csv", rows), ("lone.csv", [("real.png", 0)])):
        with (folder / file).open("w", newline="") as out:
            csv.writer(out).writerows([("path", "label"), *lines])
    own = Folder(str(faces), fractions={"train": 0.6, "val": 0.2, "test": 0.2})
    test = {"own": own, "odd": Table(str(folder / "odd.csv")), "lone": Table(str(folder / "lone.csv"))}
    val = {"own": own, "odd": test["odd"]}
    words: dict[str, Any] = {"batch_size": 4, "num_workers": 0, "on_bad": "skip", "max_bad": 0.2}
    return DataModule(own, val, test, **words)


def trainer(folder: Path, *callbacks: pl.Callback, **words: Any) -> pl.Trainer:
    """Return a quiet trainer that writes below a folder."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    settings: dict[str, Any] = quiet | {"logger": False, "accelerator": "cpu", "num_sanity_val_steps": 0} | words
    return pl.Trainer(
        default_root_dir=folder, callbacks=list(callbacks), use_distributed_sampler=False, max_epochs=2, **settings
    )
