"""Averages of weights are what their formula says, what is validated and saved, and what a resumed run goes on with."""

import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "runs"))
from test_resume import At, Run, assert_goes_on, data, kind, resnet, send, signal, vit

from dfl.errors import UserError
from dfl.training import EMA, SWA
from dfl.training.averaged import Averaged


class Small(nn.Module):
    """Two trained numbers under three names, a frozen one, statistics, and an integer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.twin, self.frozen = self.weight, nn.Parameter(torch.ones(1), requires_grad=False)
        self.norm = nn.BatchNorm1d(1, affine=False)


class Trainer:
    """What a callback asks a trainer."""

    def __init__(self) -> None:
        self.global_step = self.current_epoch = 0
        self.state = self.fit_loop = self.epoch_loop = self.batch_progress = self
        self.fn, self.is_last_batch = "fit", True


def steps(callback: Averaged, values: list[float]) -> tuple[Small, Trainer]:
    network, trainer = Small(), Trainer()
    callback.setup(trainer, network, "fit")  # type: ignore[arg-type]
    callback.on_fit_start(trainer, network)  # type: ignore[arg-type]
    for value in values:
        callback.on_train_batch_start(trainer, network, None, 0)  # type: ignore[arg-type]
        assert float(network.weight) == (values[values.index(value) - 1] if value != values[0] else 0)
        network.weight.data.fill_(value)
        network.norm.running_mean.fill_(10 * value)  # type: ignore[operator, union-attr]
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, network, None, None, 0)  # type: ignore[arg-type]
        trainer.current_epoch += 1
        callback.on_validation_start(trainer, network)  # type: ignore[arg-type]
    return network, trainer


@pytest.mark.parametrize(
    ("callback", "average"),
    [(EMA(0.75), 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 6), (EMA(0.75, start=1), 3.0), (SWA(), 3.0), (SWA(start=1), 4.0)],
)
def test_the_average_is_that_of_the_formula_and_is_shown_when_validation_begins(
    callback: Averaged, average: float
) -> None:
    network, trainer = steps(callback, [1.0, 2.0, 6.0])
    assert (float(network.weight), float(network.norm.running_mean)) == (average, 10 * average)  # type: ignore[arg-type]
    for shown in (True, False):  # within a validation and after it
        saved = {"state_dict": network.state_dict()}
        callback.on_save_checkpoint(trainer, network, saved)  # type: ignore[arg-type]
        assert float(saved["state_dict"]["weight"]) == float(saved["state_dict"]["twin"]) == average
        assert float(saved["averaged"]["weights"]["weight"]) == 6
        assert saved["averaged"]["weights"].keys() == {"weight", "norm.running_mean", "norm.running_var"}
        callback.on_train_epoch_start(trainer, network)  # type: ignore[arg-type]
        assert float(network.weight) == 6, shown


def test_what_cannot_be_averaged_is_refused() -> None:
    for wrong in (lambda: EMA(1.0), lambda: SWA(-1)):
        with pytest.raises(UserError, match="decay is 1.0|start is -1"):
            wrong()
    network = Small()
    network.one_pass = True  # type: ignore[assignment]
    with pytest.raises(UserError, match="EMA averages over steps, and Small takes none"):
        EMA().on_fit_start(Trainer(), network)  # type: ignore[arg-type]
    half = EMA()
    half.setup(Trainer(), Small().half(), "fit")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"weight is torch.float16, too coarse"):
        half.on_fit_start(Trainer(), Small().half())  # type: ignore[arg-type]


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "EMA": (lambda: EMA(0.8), resnet, {"val_check_interval": 3}),
    "SWA": (lambda: SWA(), vit, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_on_exactly(faces: Path, tmp_path: Path, case: str) -> None:
    average, make, words = CASES[case]
    whole = Run(tmp_path / "whole", make, words, average()).fit(data(faces, 28))
    saved = sorted((tmp_path / "whole").glob("[0-9]*.ckpt"))
    for checkpoint in {saved[0], *{kind(path): path for path in saved}.values()}:
        rest = Run(tmp_path / f"rest {checkpoint.stem}", make, words, average())
        rest.last.every_n_steps = 0
        assert_goes_on(whole, rest.fit(data(faces, 28), checkpoint))
    best = torch.load(tmp_path / "whole" / "best.ckpt", weights_only=True)
    assert 0 <= float(best["state_dict"]["threshold"]) <= 1
    again = Run(tmp_path / "again", make, {})
    again.trainer.validate(again.detector, datamodule=data(faces, 28), ckpt_path=tmp_path / "whole" / "best.ckpt")
    assert again.seen.found[0][1:] in [found[1:] for found in whole.seen.found]  # what was measured is what was saved


def test_a_signal_within_a_validation_exchanges_nothing(faces: Path, tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", vit, {}, EMA(0.8)).fit(data(faces, 28, eval_batch_size=5))
    stop = At(send(signal.SIGTERM), validation_batch=1)
    part = Run(tmp_path / "part", vit, {}, EMA(0.8), stop)
    part.last.every_n_steps = 0
    with pytest.raises(SystemExit):
        part.fit(data(faces, 28, eval_batch_size=5))
    rest = Run(tmp_path / "part", vit, {}, EMA(0.8))
    assert_goes_on(whole, rest.fit(data(faces, 28, eval_batch_size=5), tmp_path / "part" / "last.ckpt"), part)
