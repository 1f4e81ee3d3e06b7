"""The callbacks of a command: what a config gives takes the place of ours, and nothing more."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from pytorch_lightning.callbacks import (
    Callback,
    EMAWeightAveraging,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    RichModelSummary,
    StochasticWeightAveraging,
)
from pytorch_lightning.callbacks import TQDMProgressBar as Bar

from dfl.cli.arguments import Plan
from dfl.cli.callbacks import callbacks
from dfl.errors import UserError
from dfl.runs.best import Keeper
from dfl.training import FiniteLoss, KeepLast
from dfl.training.progress import ProgressLines
from dfl.training.trainer import ParameterTable


def of_fit(own: Any, **switches: Any) -> list[Callback]:
    names = ("enable_checkpointing", "logger", "fast_dev_run", "enable_model_summary", "enable_progress_bar")
    trainer = SimpleNamespace(**dict.fromkeys([*names, "log_every_n_steps"]), callbacks=own)
    vars(trainer).update(switches)
    run = SimpleNamespace(trainer=trainer, checkpoint=Keeper(), last=KeepLast(), seed_everything=0)
    return callbacks("fit", run, Plan("fit"), lambda trainer, module: None, sys.stdout)


@pytest.mark.parametrize(
    ("own", "ours"),
    [(RichModelSummary(), ParameterTable), (Bar(), ProgressLines), (FiniteLoss(), FiniteLoss)],
)
def test_what_a_config_gives_takes_the_place_of_ours(own: Callback, ours: type) -> None:
    assert ours in map(type, of_fit(None))
    assert ours not in map(type, of_fit([own]))
    assert ours not in map(type, of_fit(own))
    assert len(of_fit([own])) == len(of_fit(None)) - 1


def test_a_mode_is_seen_wherever_it_is_given() -> None:
    mine = {"class_path": "mine.Stop", "init_args": {"monitor": "val/mine", "mode": "max"}}
    assert Plan("fit", layers=[{"trainer": {"callbacks": ["Timer", mine]}}]).gives_a("mode")
    assert Plan("fit", typed=[("--checkpoint.mode", "max")]).gives_a("mode")
    assert not Plan("fit", layers=[{"trainer": {"callbacks": ["Timer"]}, "name": "mode"}]).gives_a("mode")


def test_other_checkpoints_of_a_config_leave_ours() -> None:
    assert len(of_fit([ModelCheckpoint()])) == len(of_fit(None))


@pytest.mark.parametrize(
    ("switch", "kind"), [("enable_model_summary", ModelSummary), ("enable_progress_bar", ProgressBar)]
)
def test_a_flag_of_the_trainer_turns_one_off(switch: str, kind: type) -> None:
    assert not any(isinstance(one, kind) for one in of_fit(None, **{switch: False}))


@pytest.mark.parametrize("other", [EMAWeightAveraging(), StochasticWeightAveraging(0.1)])
def test_averages_of_lightning_are_refused(other: Callback) -> None:
    with pytest.raises(UserError, match="take dfl.training.EMA or dfl.training.SWA"):
        of_fit([other])
