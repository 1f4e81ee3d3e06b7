"""Averages of weights are what their formula says, and what is validated and saved."""

import pytest
import torch
from torch import nn

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
        assert network.weight.item() == (values[values.index(value) - 1] if value != values[0] else 0)
        network.weight.data.fill_(value)
        network.norm.running_mean.fill_(10 * value)  # type: ignore[operator, union-attr]
        trainer.global_step += 1
        callback.on_train_batch_end(trainer, network, None, None, 0)  # type: ignore[arg-type]
        trainer.current_epoch += 1
        callback.on_validation_start(trainer, network)  # type: ignore[arg-type]
    return network, trainer


@pytest.mark.parametrize(
    ("callback", "average"),
    [
        (EMA(0.75), 0.75 * (0.75 * 1 + 0.25 * 2) + 0.25 * 6),
        (EMA(0.75, start=1), 3.0),
        (SWA(), 3.0),
        (SWA(start=1), 4.0),
    ],
)
def test_the_average_is_that_of_the_formula_and_is_shown_when_validation_begins(
    callback: Averaged, average: float
) -> None:
    network, trainer = steps(callback, [1.0, 2.0, 6.0])
    assert (network.weight.item(), float(network.norm.running_mean)) == (average, 10 * average)  # type: ignore[arg-type]
    for shown in (True, False):  # within a validation and after it
        saved = {"state_dict": network.state_dict()}
        callback.on_save_checkpoint(trainer, network, saved)  # type: ignore[arg-type]
        assert float(saved["state_dict"]["weight"]) == float(saved["state_dict"]["twin"]) == average
        assert float(saved["averaged"]["weights"]["weight"]) == 6
        assert saved["averaged"]["weights"].keys() == {"weight", "norm.running_mean", "norm.running_var"}
        callback.on_train_epoch_start(trainer, network)  # type: ignore[arg-type]
        assert network.weight.item() == 6, shown


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
