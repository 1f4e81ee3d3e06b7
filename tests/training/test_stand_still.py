"""StandStill: the stopping rule of CNNDetection on scripted accuracies, and the same after a kill."""

import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, optim
from torch.utils.data import DataLoader

from dfl.errors import UserError
from dfl.runs.best import Keeper
from dfl.training import AtomicCheckpointIO, KeepLast, Monitored, SameRun, StandStill

#: Rises, stands still for 5 epochs, falls at once to a lower level, creeps by less than 0.002, stands still for good.
SCRIPT = [0.8, 0.9, 0.9005, 0.9009, 0.90, 0.89, 0.9001, 0.7, 0.75, 0.7515, 0.7, 0.752, 0.7, *[0.74] * 30]


class Scripted(pl.LightningModule):
    """One weight, and an accuracy that is written down."""

    def __init__(self, script: list[float], lr: float = 1e-4, schedule: bool = False) -> None:
        super().__init__()
        self.weight, self.script, self.lr, self.schedule = torch.nn.Parameter(torch.ones(1)), script, lr, schedule
        self.rates: dict[int, float] = {}

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.rates[self.current_epoch] = self.trainer.optimizers[0].param_groups[0]["lr"]
        return (self.weight * batch).sum()

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.log("val/mean/acc", torch.tensor(self.script[self.current_epoch], dtype=torch.float64))

    def configure_optimizers(self) -> Any:
        optimizer = optim.Adam(self.parameters(), self.lr)
        return ([optimizer], [optim.lr_scheduler.StepLR(optimizer, 1)]) if self.schedule else optimizer


def run(
    folder: Path, module: Scripted, epochs: int = 100, start: Path | None = None, **words: Any
) -> tuple[StandStill, Keeper]:
    """Train with the callbacks of a run."""
    rule, last = StandStill(**words), KeepLast(str(folder))
    best = Keeper(str(folder), "best", "val/mean/acc", mode="max", enable_version_counter=False)
    pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[Monitored(), SameRun(), rule, best, last],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    ).fit(
        module,
        DataLoader(torch.ones(2, 1)),  # type: ignore[arg-type]
        DataLoader(torch.ones(1, 1)),  # type: ignore[arg-type]
        ckpt_path=start,
        weights_only=True,
    )
    return rule, best


def official(script: list[float], lr: float = 1e-4) -> list[float]:
    """Return the rate of every epoch, as it follows from the published description."""
    rates, best, waited, rise = [], None, 0, 0.001
    for value in script:
        rates.append(lr)
        if best is None or value >= best + rise:
            best, waited = value, 0
            continue
        waited += 1
        if waited == 5:
            lr, best, waited, rise = lr / 10, None, 0, 0.002
            if lr < 1e-6:
                break
    return rates


def scripts() -> list[list[float]]:
    generator = torch.Generator().manual_seed(3)
    walks = torch.randn(8, 80, generator=generator, dtype=torch.float64).mul(0.002).cumsum(1).add(0.8)
    return [SCRIPT, [0.5] * 80, [i / 80 for i in range(80)], *walks.tolist()]


def alone(script: list[float]) -> list[float]:
    """Return the rate of every epoch, of the rule without a training around it."""
    optimizer = optim.Adam([torch.ones(1, requires_grad=True)], 1e-4)
    state = SimpleNamespace(fn="fit")
    trainer: Any = SimpleNamespace(
        optimizers=[optimizer], lr_scheduler_configs=[], state=state, sanity_checking=False, should_stop=False
    )
    rule, rates = StandStill(), []
    rule.on_fit_start(trainer, None)
    rule.on_train_start(trainer, None)
    for value in script:
        rates.append(optimizer.param_groups[0]["lr"])
        trainer.callback_metrics = {"val/mean/acc": torch.tensor(value, dtype=torch.float64)}
        rule.on_validation_end(trainer, None)
        if trainer.should_stop:
            break
    return rates


@pytest.mark.parametrize("number", range(11))
def test_rates_of_every_epoch_are_those_of_the_rule(number: int) -> None:
    assert alone(scripts()[number]) == official(scripts()[number])


def test_three_phases_from_1e_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = Scripted([0.5] * 80)
    rule, best = run(tmp_path, module)
    # the first value counts as a rise, the next five do not
    assert list(module.rates.values()) == [rate for rate in (1e-4, 1e-4 / 10, 1e-4 / 10 / 10) for _ in range(6)]
    assert rule.over
    assert "val/mean/acc stands still: the learning rate is now 1e-05" in capsys.readouterr().out
    assert best.best_model_score is not None


@pytest.mark.parametrize("epoch", [5, 7])
def test_a_run_that_goes_on_falls_where_the_whole_one_does(epoch: int, tmp_path: Path) -> None:
    whole, part = Scripted(SCRIPT), Scripted(SCRIPT)
    rule, best = run(tmp_path / "whole", whole)
    run(tmp_path / "part", Scripted(SCRIPT), epoch + 1)
    again, kept = run(tmp_path / "part", part, start=tmp_path / "part" / "last.ckpt")
    after = dict(itertools.islice(whole.rates.items(), epoch + 1, None))
    assert part.rates == after
    assert again.state_dict() == rule.state_dict()
    assert kept.best_model_score == best.best_model_score
    assert torch.equal(part.weight, whole.weight)


def test_a_run_that_is_over_trains_no_more(tmp_path: Path) -> None:
    run(tmp_path, Scripted(SCRIPT))
    module = Scripted(SCRIPT)
    run(tmp_path, module, start=tmp_path / "last.ckpt")
    assert module.rates == {}


def test_a_rate_that_is_typed_anew_falls_from_there(tmp_path: Path) -> None:
    run(tmp_path, Scripted(SCRIPT), 9)
    module = Scripted(SCRIPT, lr=5e-4)
    run(tmp_path, module, 11, start=tmp_path / "last.ckpt", patience=7)
    assert list(module.rates.values()) == [5e-4 / 10, 5e-4 / 10]


def test_less_may_be_better_and_nan_is_no_rise(tmp_path: Path) -> None:
    module = Scripted([1.0, 0.9, float("nan"), 0.9, 0.95, 0.95])
    run(tmp_path, module, 6, mode="min", patience=3)
    assert list(module.rates.values()) == [1e-4] * 5 + [1e-4 / 10]


def test_what_contradicts_itself_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="StandStill and StepLR both set the learning rate"):
        run(tmp_path, Scripted(SCRIPT, schedule=True), 1)
    with pytest.raises(UserError, match="patience is 0"):
        StandStill(patience=0)
