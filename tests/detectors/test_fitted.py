"""What fitted detectors promise beyond the contract."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import timm
import torch
from test_contract import data, trainer
from torch import Tensor

from dfl import detectors
from dfl.data import DataModule, Folder, Transform
from dfl.detectors import Dct, FittedDetector, LinearProbe
from dfl.errors import UserError


def test_a_probe_keeps_its_pretrained_backbone_out_of_the_checkpoint(tmp_path: Path, faces: Path) -> None:
    weights = str(tmp_path / "w.pth")
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), weights)
    detector = LinearProbe("test_resnet", weights=weights, input_size=32)
    run = trainer(tmp_path)
    run.fit(detector, data(faces))
    run.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert not [name for name, _ in detector.network.named_parameters() if f"network.{name}" in state]
    opened = detectors.load(tmp_path / "a.ckpt", weights=weights)
    image = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(opened(image)["logit"], detector(image)["logit"])


def test_a_pass_that_was_cut_off_starts_again(tmp_path: Path, faces: Path) -> None:
    whole, cut = Dct(32), Dct(32)
    trainer(tmp_path).fit(whole, data(faces))
    trainer(tmp_path, limit_train_batches=3, limit_val_batches=0).fit(cut, data(faces))
    assert not torch.equal(cut.head.weight, whole.head.weight)
    trainer(tmp_path).fit(cut, data(faces))
    assert torch.equal(cut.head.weight, whole.head.weight)


def test_without_augmentation_it_is_fitted_to_the_centre(tmp_path: Path, faces: Path) -> None:
    weights = []
    for seed in (0, 1):
        for augment in ("none", []):  # a list draws crops still
            pl.seed_everything(seed)
            fitted, transform = Dct(16), Transform(resize="none", augment=augment)
            source = Folder(str(faces), fractions={"train": 0.6, "val": 0.2, "test": 0.2})
            trainer(tmp_path).fit(fitted, DataModule(source, batch_size=4, num_workers=0, transform=transform))
            weights.append(fitted.head.weight)
    assert torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[1], weights[3])


def test_one_class_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faces: Path) -> None:
    plain = Dct.training_step

    def all_real(detector: Dct, batch: dict[str, Any], batch_idx: int) -> None:
        plain(detector, batch | {"label": torch.zeros_like(batch["label"])}, batch_idx)

    monkeypatch.setattr(Dct, "training_step", all_real)
    with pytest.raises(UserError, match="one class"):
        trainer(tmp_path).fit(Dct(32), data(faces))


def test_without_a_head_it_says_so_before_features_are_collected() -> None:
    class Headless(FittedDetector):
        def features(self, image: Tensor) -> Tensor:
            return image.flatten(1)

    with pytest.raises(UserError, match="Headless has no head to fit: make one, or write both fit and score"):
        Headless(input_size=8).on_train_epoch_start()
