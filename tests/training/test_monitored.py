"""What is watched and never measured is said before training, or after the first validation; a NaN is nobody's best."""

import copy
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.cli import ReduceLROnPlateau
from test_contract import PARTS, trainer

from dfl.data import DataModule, Folder
from dfl.detectors import Classifier
from dfl.errors import UserError
from dfl.runs.best import Keeper
from dfl.training import AtomicCheckpointIO, KeepLast, Monitored
from dfl.training.monitored import follow_directions


class Mine(Classifier):
    """A detector of someone else, with a metric of its own."""

    def on_validation_epoch_end(self) -> None:
        super().on_validation_epoch_end()
        self.log("val/mine", torch.tensor(float(self.current_epoch)))


def fit(
    data: DataModule,
    folder: Path,
    *callbacks: pl.Callback,
    cls: type[Classifier] = Classifier,
    mode_given: bool = False,
    scheduler: Any = None,
    **words: Any,
) -> pl.Trainer:
    pl.seed_everything(0)
    keeper = Keeper(str(folder), "best", monitor="val/mean/auroc", mode="max", enable_version_counter=False)
    given = {"max_epochs": 3, "limit_train_batches": 1, "limit_val_batches": 2, "enable_checkpointing": True} | words
    given["callbacks"] = [Monitored(mode_given), *callbacks, keeper, KeepLast(str(folder))]
    made = trainer(folder, **given, plugins=[AtomicCheckpointIO()])
    detector = cls(backbone="test_resnet", pretrained=False, input_size=32, scheduler=scheduler)
    made.fit(detector, datamodule=data)
    return made


def both(faces: Path, **words: Any) -> DataModule:
    return DataModule(Folder(str(faces), fractions=PARTS), batch_size=4, num_workers=0, **words)


@pytest.fixture
def one_class(faces: Path, tmp_path: Path) -> DataModule:
    """Training images of both classes, validation images of one."""
    for kind in ("real", "fake"):
        for file in sorted((faces / kind).iterdir())[:8]:
            (tmp_path / "train" / kind).mkdir(parents=True, exist_ok=True)
            (tmp_path / "train" / kind / file.name).symlink_to(file)
    for file in sorted((faces / "real").iterdir())[10:16]:
        (tmp_path / "val" / "real").mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / "real" / file.name).symlink_to(file)
    return DataModule(Folder(str(tmp_path)), batch_size=4, num_workers=0)


NEVER = {
    "val/auroc": "did you mean 'val/.*auroc'",
    "val/mean/aurco": "did you mean 'val/mean/auroc'",
    "val/smae/auroc": "did you mean 'val/same/auroc'",
    "val_loss": "which this run never measures; ",
    "test/mean/auroc": "did you mean 'val/mean/auroc'",
    "train/acc": "set its mode to min or max",
}


@pytest.mark.parametrize("name", NEVER)
def test_a_name_that_is_never_measured_is_refused_before_training(faces: Path, tmp_path: Path, name: str) -> None:
    for callback in (EarlyStopping(name), ModelCheckpoint(str(tmp_path / "o"), monitor=name)):
        with pytest.raises(UserError, match=NEVER[name]) as said:
            fit(both(faces), tmp_path / "k", callback)
        assert str(said.value).startswith("EarlyStop" if isinstance(callback, EarlyStopping) else "checkpoint")
    assert not (tmp_path / "k").exists()


def test_a_plateau_is_held_to_the_same(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ReduceLROnPlateau watches 'val/loss'"):
        fit(both(faces), tmp_path, scheduler=lambda o: ReduceLROnPlateau(o, monitor="val/loss"))
    with pytest.raises(UserError, match="EarlyStopping watches val/mean/auroc, and this run has no validation"):
        fit(both(faces), tmp_path, EarlyStopping("val/mean/auroc"), limit_val_batches=0)


def test_what_only_validation_can_show_is_said_after_the_first(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'val/mean/mask_iou', which the validation did not give; there are val/"):
        fit(both(faces), tmp_path, EarlyStopping("val/mean/mask_iou", mode="max"))
    with pytest.raises(UserError, match="'train/cee', which training did not give; did you mean 'train/ce'"):
        fit(both(faces), tmp_path, EarlyStopping("train/cee"), mode_given=True)


def test_others_may_log_what_they_like_if_they_say_its_direction(faces: Path, tmp_path: Path) -> None:
    stop = EarlyStopping("val/mine", mode="max", patience=1)
    assert fit(both(faces), tmp_path, stop, cls=Mine, mode_given=True).current_epoch == 3
    with pytest.raises(UserError, match="'val/mine', of which dfl does not know whether more is better"):
        fit(both(faces), tmp_path, stop, cls=Mine)
    with pytest.raises(UserError, match="'val/mien', which the validation did not give; did you mean 'val/mine'"):
        fit(both(faces), tmp_path, EarlyStopping("val/mien"), cls=Mine, mode_given=True)


def test_one_class_in_validation_is_said_before_training_and_leaves_no_best(
    one_class: DataModule, tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match=r"not defined: all 6 images of val/same are real; so there will be no best"):
        made = fit(one_class, tmp_path / "k")
    assert {p.name for p in (tmp_path / "k").iterdir()} == {"last.ckpt", "last-previous.ckpt"}
    assert torch.load(tmp_path / "k" / "last.ckpt", weights_only=True)["epoch"] == 2
    assert made.checkpoint_callback.best_model_score is None  # type: ignore[union-attr]


def test_nothing_stops_or_slows_by_what_is_not_defined(one_class: DataModule, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="EarlyStopping watches val/same/eer, which is not defined: all 6 images"):
        fit(copy.deepcopy(one_class), tmp_path / "k", EarlyStopping("val/same/eer"))
    with pytest.raises(UserError, match="ReduceLROnPlateau watches val/mean/bacc, which is not defined"):
        fit(one_class, tmp_path / "k", scheduler=lambda o: ReduceLROnPlateau(o, monitor="val/mean/bacc", mode="max"))
    assert not (tmp_path / "k").exists()


def test_log_loss_of_one_class_has_a_best(one_class: DataModule, tmp_path: Path) -> None:
    keeper = Keeper(str(tmp_path / "o"), "best", monitor="val/mean/log_loss", mode="min")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(one_class, tmp_path / "k", keeper)
    assert (tmp_path / "o" / "best.ckpt").is_file()
    assert not [w for w in said if "log_loss is not defined" in str(w.message)]


def test_a_value_that_validation_leaves_undefined_is_said_once(faces: Path, tmp_path: Path) -> None:
    """The first batch alone is of one class, which the labels of the whole set do not show."""
    with pytest.warns(UserWarning, match=r"auroc is not defined \(NaN\): no best.ckpt is written while") as said:
        fit(both(faces, eval_batch_size=2), tmp_path / "k", limit_val_batches=1)
    assert len([w for w in said if "val/mean/auroc is not defined" in str(w.message)]) == 1
    assert not (tmp_path / "k" / "best.ckpt").exists()


def test_modes_follow_the_metric_wherever_they_stand() -> None:
    said: list[str] = []
    plateau = {"class_path": "pytorch_lightning.cli.ReduceLROnPlateau"}
    plateau["init_args"] = {"monitor": "val/mean/auroc", "mode": "min"}  # type: ignore[assignment]
    stop = SimpleNamespace(class_path="EarlyStopping", init_args=SimpleNamespace(monitor="val/a/mask_iou", mode="min"))
    mine = {"class_path": "mine.Stop", "init_args": {"monitor": "val/mine", "mode": "min"}}
    run = SimpleNamespace(
        checkpoint={"monitor": "val/mean/eer", "mode": "max", "save_top_k": 1},
        trainer={"callbacks": [stop, mine]},
        model=SimpleNamespace(init_args={"scheduler": plateau}),
        data={"transform": {"resize": {"mode": "min", "monitor": None}}},
    )
    follow_directions(run, said.append)
    assert said == [
        "note: checkpoint: less val/mean/eer is better, so mode is min, not max",
        "note: EarlyStopping: more val/a/mask_iou is better, so mode is max, not min",
        "note: ReduceLROnPlateau: more val/mean/auroc is better, so mode is max, not min",
    ]
    assert [run.checkpoint["mode"], stop.init_args.mode, plateau["init_args"]["mode"]] == ["min", "max", "max"]  # type: ignore[index]
    assert mine["init_args"] == {"monitor": "val/mine", "mode": "min"}  # type: ignore[comparison-overlap]
    assert json.dumps(run.data)


def test_a_lenient_early_stopping_goes_on_without_what_it_watches() -> None:
    for strict in (False, True):
        watching = SimpleNamespace(callbacks=[EarlyStopping("train/rare", strict=strict)], callback_metrics={})
        with pytest.raises(UserError, match="training did not give") if strict else pytest.warns(match="was not given"):
            Monitored()._look(watching, [("EarlyStopping", "train/rare")], "training")
