"""The base: pixels, optimizers, warnings."""

import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import ReduceLROnPlateau

from dfl import detectors
from dfl.detectors import Classifier
from dfl.errors import UserError
from dfl.losses import SingleCenter
from dfl.metrics.measures import Measurements
from dfl.training.optimizers import WarmupCosine, total_steps


def test_images_are_floats_and_the_network_normalises_them() -> None:
    detector = Classifier("test_resnet", pretrained=False, mean=(0.5, 0.25, 0.0), std=(0.5, 0.5, 1.0))
    pixels = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    image = detector.on_after_batch_transfer({"image": pixels}, 0)["image"]
    torch.testing.assert_close(image, pixels / 255)
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert detector.on_after_batch_transfer({"image": image}, 0)["image"] is image
    out = detector.normalize(image)
    expected = (pixels.double() / 255 - torch.tensor([0.5, 0.25, 0.0]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.5, 1]
    ).view(3, 1, 1)
    torch.testing.assert_close(out, expected.float(), rtol=1e-5, atol=1e-6)


def test_optimizer_is_fused_and_holds_only_what_is_trained() -> None:
    detector = Classifier("test_resnet", pretrained=False, criterion=SingleCenter())
    detector.network.fc.weight.requires_grad_(False)
    optimizer = detector.configure_optimizers()
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert id(detector.network.fc.weight) not in held
    assert id(detector.criterion.center) in held
    assert all(group["fused"] for group in optimizer.param_groups)


def test_fixed_size_backbones_are_built_for_the_size() -> None:
    detector = Classifier("test_vit", pretrained=False, input_size=64)
    assert detector(torch.randn(2, 3, 64, 64))["logit"].shape == (2,)


def test_an_upside_down_detector_is_named() -> None:
    detector = Classifier("test_vit", pretrained=False)
    detector._trainer = pl.Trainer(logger=False, accelerator="cpu")
    detector.log_dict = lambda *a, **k: None
    detector.metrics["val"] = Measurements(detector, ["a"])
    label = torch.tensor([0, 0, 1, 1])
    detector.metrics["val"]["a"]["logit"].update(1 - label.float(), label, torch.arange(4))
    with pytest.warns(UserWarning, match="inverted labels"):
        detector.on_validation_epoch_end()
    detector.metrics["val"] = Measurements(detector, ["a"])
    detector.metrics["val"]["a"]["logit"].update(label.float(), label, torch.arange(4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detector.on_validation_epoch_end()
    assert 0 < detector.threshold <= 1


def test_loading_a_stranger_is_one_line(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "hyper_parameters": {}, "dfl": {"class_path": "os.system"}}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="'os.system', which is not imported"):
        detectors.load(tmp_path / "a.ckpt")
    for path in ("https://example.org/a.ckpt", tmp_path / "none.ckpt"):
        with pytest.raises(UserError):
            detectors.load(path)
    (tmp_path / "torn.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:100])
    with pytest.raises(UserError, match="torn"):
        detectors.load(tmp_path / "torn.ckpt")


def test_schedules_know_the_length_of_the_run_and_what_they_watch() -> None:
    detector = Classifier("test_vit", pretrained=False, scheduler=WarmupCosine)
    detector._trainer = pl.Trainer(logger=False, accelerator="cpu", max_steps=50, max_epochs=-1)
    detector._trainer.datamodule = SimpleNamespace(train_steps=lambda: 10)
    assert total_steps(detector.trainer) == 50
    detector._trainer = pl.Trainer(logger=False, accelerator="cpu", max_epochs=-1)
    detector._trainer.datamodule = SimpleNamespace(train_steps=lambda: 10)
    with pytest.raises(UserError, match="set trainer.max_epochs"):
        total_steps(detector.trainer)
    plateau = Classifier(
        "test_vit", pretrained=False, scheduler=lambda o: ReduceLROnPlateau(o, monitor="val/mean/auroc")
    )
    assert plateau.configure_optimizers()["lr_scheduler"]["monitor"] == "val/mean/auroc"
