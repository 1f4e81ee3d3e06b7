"""The warm-up and cosine: up to the full rate, down to nothing, and the same after a resume."""

from itertools import pairwise

import pytest
import torch

from dfl.training.optimizers import WarmupCosine


def rates(steps: int, scheduler: WarmupCosine, optimizer: torch.optim.Optimizer) -> list[float]:
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return out


def make(total: int) -> tuple[WarmupCosine, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = WarmupCosine(optimizer, warmup=0.1)
    scheduler.prepare(total)
    return scheduler, optimizer


def test_rises_then_falls() -> None:
    rate = rates(100, *make(100))
    assert rate[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert max(rate) == pytest.approx(2.0)
    assert all(a > b for a, b in pairwise(rate[9:]))
    assert 0 < rate[-1] < 0.01


def test_goes_on_from_its_state() -> None:
    whole = rates(100, *make(100))
    scheduler, optimizer = make(100)
    rates(40, scheduler, optimizer)
    state = scheduler.state_dict()
    again, fresh = make(100)
    fresh.load_state_dict(optimizer.state_dict())
    again.load_state_dict(state)
    assert rates(60, again, fresh) == whole[40:]


def test_a_run_made_longer_is_said() -> None:
    scheduler, _ = make(100)
    state = scheduler.state_dict()
    longer, _ = make(200)
    with pytest.warns(UserWarning, match="follows the 100 steps that the run began with, not 200"):
        longer.load_state_dict(state)
