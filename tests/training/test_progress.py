"""Lines of progress: when one is due, what it says, and what is left of the run; by a clock of the test's own."""

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dfl.training import progress
from dfl.training.progress import Pace, ProgressLines, duration

STEPS, IMAGES = 40, 8


class Small(LightningModule):
    """A layer whose training and evaluation take what the clock of the test says."""

    def __init__(self, seconds: Iterator[float]) -> None:
        super().__init__()
        self.layer, self.seconds, self.now, self.read = nn.Linear(3, 1), seconds, 0.0, 0

    def clock(self) -> float:
        return self.now

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.now += next(self.seconds)
        return self.layer(batch["image"]).mean()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.now += next(self.seconds)

    test_step = predict_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def lines(
    verb: str, seconds: Iterator[float], capsys: pytest.CaptureFixture[str], batches: int = STEPS, **words: object
) -> list[str]:
    module = Small(seconds)
    loader = DataLoader([{"image": torch.ones(3)}] * IMAGES * batches, batch_size=IMAGES)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(callbacks=[ProgressLines(module.clock)], num_sanity_val_steps=0, **quiet, **words)
    if verb == "fit":
        trainer.fit(module, loader, DataLoader([{"image": torch.ones(3)}] * IMAGES, batch_size=1))
    else:
        getattr(trainer, verb)(module, loader, **({"verbose": False} if verb in ("test", "validate") else {}))
    return [line for line in capsys.readouterr().out.splitlines() if "images/s" in line]


def constant(value: float) -> Iterator[float]:
    while True:
        yield value


def test_a_line_comes_every_ten_seconds_and_says_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    said = lines("fit", constant(2.5), capsys, max_epochs=2, limit_val_batches=0)
    assert len(said) == 20  # of 200 s
    assert re.fullmatch(r"step 4 of 80, epoch 1 of 2, loss -?\d\.\d{4}, 3 images/s, 3 min left", said[0])
    assert re.fullmatch(r"step 76 of 80, epoch 2 of 2, loss -?\d\.\d{4}, 3 images/s, 10 s left", said[-2])


def test_a_long_run_says_less(capsys: pytest.CaptureFixture[str]) -> None:
    said = lines("fit", constant(400.0), capsys, max_epochs=1, limit_val_batches=0)
    assert len(said) == STEPS
    pace, times = Pace(0.0), []
    for now in range(86_400):
        if pace.due(now):
            pace.line(now, 0.5)
            times.append(now)
    gaps = [b - a for a, b in pairwise(times)]
    assert (gaps[0], max(gaps)) == (10, 300)
    assert len(times) < 400


def test_a_fast_run_says_nothing_and_reads_no_loss(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(progress, "_step")
    assert lines("fit", constant(0.01), capsys, max_epochs=1) == []


def test_the_time_of_a_validation_is_not_that_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = iter([1.0] * STEPS + [0.9] * 8 + [1.0] * STEPS + [5.0] * 8)
    said = lines("fit", seconds, capsys, max_epochs=2)
    training = [line for line in said if line.startswith("step")]
    assert len(training) == 8
    assert all("8 images/s" in line for line in training)
    assert [line.split(",")[0] for line in said if line not in training] == [
        f"validation: batch {i} of 8" for i in (2, 4, 6, 8)
    ]


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_long_evaluations_have_lines_too(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = lines(verb, constant(10.0), capsys, batches=3)
    name = {"validate": "validation"}.get(verb, verb)
    assert said[0] == f"{name}: batch 1 of 3, 1 images/s, 20 s left"
    assert len(said) == 3


@pytest.mark.parametrize(
    ("seconds", "said"), [(40.2, "40 s"), (700, "12 min"), (12_000, "3 h 20 min"), (187_300, "2 d 4 h")]
)
def test_a_time_is_told_in_two_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said
