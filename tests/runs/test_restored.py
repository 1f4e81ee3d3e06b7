"""What is typed takes effect in a run that goes on, though optimizers and schedules hold settings in their state."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from torch import optim
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from dfl.errors import UserError
from dfl.runs import restored
from dfl.training import SAM
from dfl.training.optimizers import WarmupCosine

Schedule = Callable[[Any], Any] | None
Rates = list[float]


def a_run(optimizer: Callable[[Any], Any], schedule: Schedule = None, epochs: int = 4, each: int = 5) -> Any:
    """A trainer of one weight, as it is before any state is loaded: epochs of so many steps, schedules by epoch."""
    made = optimizer([torch.ones(3, requires_grad=True)])
    configs = []
    if schedule is not None:
        one = schedule(made)
        by_step = isinstance(one, WarmupCosine | OneCycleLR)
        if isinstance(one, WarmupCosine):
            one.prepare(epochs * each)
        configs = [SimpleNamespace(scheduler=one, interval="step" if by_step else "epoch")]
    data = SimpleNamespace(train_steps=lambda: each)
    return SimpleNamespace(
        optimizers=[made], lr_scheduler_configs=configs, max_epochs=epochs, max_steps=-1, datamodule=data, each=each
    )


def train(run: Any, epochs: int) -> Rates:
    """Step, and return the learning rates that were used."""
    rates, (optimizer,) = [], run.optimizers
    for _ in range(epochs):
        for _ in range(run.each):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.param_groups[0]["params"][0].grad = torch.full((3,), 0.1)
            if isinstance(optimizer, SAM):
                optimizer.step(lambda: None)
            else:
                optimizer.step()
            _move(run, "step")
        _move(run, "epoch")
    return rates


def _move(run: Any, every: str) -> None:
    for one in run.lr_scheduler_configs:
        if one.interval == every:
            one.scheduler.step(*([1.0] if isinstance(one.scheduler, ReduceLROnPlateau) else []))


def checkpoint(run: Any, epochs: int) -> dict[str, Any]:
    done = {"ready": epochs, "processed": epochs, "completed": epochs}
    loops = {"epoch_progress": {"current": done}, "epoch_loop.batch_progress": {"current": {}, "is_last_batch": True}}
    held = {
        "optimizer_states": [one.state_dict() for one in run.optimizers],
        "lr_schedulers": [one.scheduler.state_dict() for one in run.lr_scheduler_configs],
        "loops": {"fit_loop": loops},
        "global_step": epochs * run.each,
    }
    return copy.deepcopy(held)


def go_on(first: Any, second: Any, epochs: int, noted: bool = True) -> tuple[list[str], Rates]:
    """Train the first run so long, and the second one from its checkpoint to the end; what was said, and the rates."""
    then = {"classes": restored.classes_of(first)}
    train(first, epochs)
    held = checkpoint(first, epochs)
    said = restored.renew(second, held, then if noted else {})
    for one, state in zip(second.optimizers, held["optimizer_states"], strict=True):
        one.load_state_dict(state)
    for config, state in zip(second.lr_scheduler_configs, held["lr_schedulers"], strict=True):
        config.scheduler.load_state_dict(state)
    return said, train(second, second.max_epochs - epochs)


def adam(lr: float = 0.1, **words: Any) -> Callable[[Any], Any]:
    return lambda p: optim.Adam(p, lr=lr, **words)


def steps(size: int = 1, gamma: float = 0.5) -> Schedule:
    return lambda o: StepLR(o, size, gamma)


def warm_then_cosine(o: Any) -> LRScheduler:
    return SequentialLR(o, [LinearLR(o, 0.1, total_iters=2), CosineAnnealingLR(o, 6)], [2])


SCHEDULES: dict[str, tuple[Schedule, Schedule]] = {
    "none": (None, None),
    "another gamma": (steps(), steps(gamma=0.1)),
    "another step": (steps(), steps(2)),
    "another class": (steps(), lambda o: CosineAnnealingLR(o, 4)),
    "one where there was none": (None, steps()),
    "none where there was one": (steps(), None),
    "several in a row": (warm_then_cosine, warm_then_cosine),
    "by step": (lambda o: WarmupCosine(o, 0.2), lambda o: WarmupCosine(o, 0.5, "linear")),
    "by step where there was one by epoch": (steps(), lambda o: WarmupCosine(o, 0.2)),
    "one cycle": (lambda o: OneCycleLR(o, 0.3, total_steps=20), lambda o: OneCycleLR(o, 0.7, total_steps=20)),
}


@pytest.mark.parametrize("case", SCHEDULES)
@pytest.mark.parametrize("noted", [True, False])
def test_a_typed_rate_and_schedule_are_those_of_a_run_begun_so(case: str, noted: bool) -> None:
    before, after = SCHEDULES[case]
    whole = train(a_run(adam(0.3), after), 4)
    second = a_run(adam(0.3, weight_decay=0.2), after)
    said, rates = go_on(a_run(adam(0.1), before), second, 2, noted)
    assert rates == pytest.approx(whole[10:], rel=1e-12)
    assert any("weight_decay: 0 -> 0.2" in line for line in said)
    assert second.optimizers[0].param_groups[0]["weight_decay"] == 0.2


@pytest.mark.parametrize("case", SCHEDULES)
def test_the_same_settings_touch_nothing(case: str) -> None:
    _, schedule = SCHEDULES[case]
    first, second = a_run(adam(), schedule), a_run(adam(), schedule)
    then = {"classes": restored.classes_of(first)}
    train(first, 3)
    held, before = checkpoint(first, 3), checkpoint(first, 3)
    assert restored.renew(second, held, then) == []
    assert repr(held) == repr(before)


def test_moments_stay() -> None:
    first, second = a_run(adam()), a_run(adam(0.5))
    then = {"classes": restored.classes_of(first)}
    train(first, 1)
    held = checkpoint(first, 1)
    moments = copy.deepcopy(held["optimizer_states"][0]["state"])
    restored.renew(second, held, then)
    assert repr(held["optimizer_states"][0]["state"]) == repr(moments)


def test_a_plateau_goes_on_falling_from_the_new_rate() -> None:
    def plateau(patience: int) -> Schedule:
        return lambda o: ReduceLROnPlateau(o, factor=0.1, patience=patience)

    # the value never falls: the rate does at each second epoch after the first, with the new patience at each third
    said, rates = go_on(a_run(adam(0.1), plateau(1), 3, 1), a_run(adam(0.5), plateau(2), 8, 1), 3)
    assert rates == pytest.approx([0.05, 0.05, 0.05, 0.005, 0.005])
    assert {"Adam lr: 0.1 -> 0.5", "ReduceLROnPlateau patience: 1 -> 2"} <= set(said)


def test_a_longer_run_follows_the_longer_cosine() -> None:
    whole = train(a_run(adam(), WarmupCosine, 8), 8)
    said, rates = go_on(a_run(adam(), WarmupCosine, 4), a_run(adam(), WarmupCosine, 8), 4)
    assert said == ["WarmupCosine total_steps: 20 -> 40"]
    assert rates == pytest.approx(whole[20:])


def test_larger_batches_end_the_cosine_where_the_run_ends() -> None:
    """Half as many steps an epoch: 10 were made, and 5 are to come."""
    said, rates = go_on(a_run(adam(), WarmupCosine, 4, 4), a_run(adam(), WarmupCosine, 4, 2), 2)
    assert said == ["WarmupCosine total_steps: 16 -> 12"]
    assert rates == pytest.approx(train(a_run(adam(), WarmupCosine, 6, 2), 6)[8:])


@pytest.mark.parametrize("noted", [True, False])
@pytest.mark.parametrize(
    ("then", "now"),
    [
        (adam(), lambda p: optim.SGD(p, lr=0.1, momentum=0.9)),
        (lambda p: optim.SGD(p, lr=0.1), lambda p: optim.RMSprop(p, lr=0.1)),
        (lambda p: SAM(p, lambda q: optim.SGD(q, lr=0.1)), lambda p: SAM(p, lambda q: optim.Adam(q, lr=0.1))),
    ],
)
def test_another_optimizer_is_refused_before_anything_is_loaded(then: Any, now: Any, noted: bool) -> None:
    with pytest.raises(UserError, match="cannot go on from: leave out model.optimizer"):
        go_on(a_run(then), a_run(now), 1, noted)


def test_other_weights_in_the_optimizer_are_refused() -> None:
    two = a_run(lambda p: optim.Adam([{"params": p}, {"params": [torch.zeros(2, requires_grad=True)]}], lr=0.1))
    with pytest.raises(UserError, match="trained 1 weights in 1 groups, and this run trains 2 in 2"):
        go_on(a_run(adam()), two, 1)


def test_sam_takes_the_typed_rho_and_rate() -> None:
    def sam(rho: float, lr: float) -> Callable[[Any], Any]:
        return lambda p: SAM(p, lambda q: optim.SGD(q, lr=lr, momentum=0.9), rho=rho)

    second = a_run(sam(0.5, 0.2), steps())
    said, rates = go_on(a_run(sam(0.05, 0.1), steps()), second, 2)
    assert said == ["SAM of SGD lr: 0.1 -> 0.2"]
    assert rates[0] == pytest.approx(0.05)
    assert second.optimizers[0].rho == 0.5


def test_a_cycle_that_is_over_is_one_line() -> None:
    with pytest.raises(UserError, match="OneCycleLR cannot be 10 steps on: .*; give the settings"):
        go_on(
            a_run(adam(), lambda o: OneCycleLR(o, 0.3, total_steps=20)),
            a_run(adam(), lambda o: OneCycleLR(o, 0.3, total_steps=6)),
            2,
        )


def test_a_callback_keeps_what_it_saw_and_takes_what_is_typed() -> None:
    old, new = EarlyStopping("val/loss", patience=1), EarlyStopping("val/loss", patience=7)
    old.wait_count = 1
    held = {"callbacks": {old.state_key: old.state_dict()}}
    assert restored.renew_callbacks(SimpleNamespace(callbacks=[new]), held) == ["EarlyStopping patience: 1 -> 7"]
    new.load_state_dict(held["callbacks"][old.state_key])
    assert (new.patience, new.wait_count) == (7, 1)
