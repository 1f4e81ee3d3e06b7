"""RePaint against diffusers' scheduler and the authors' code, and against Gaussians, of which everything is known."""

from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dfl.tools.forge.models.base import generators
from dfl.tools.forge.models.repaint import Ddim, Ddpm, Levels, calls, repaint, schedule

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "repaint.npz")
LINEAR = np.linspace(1e-4, 0.02, 1000)
BETAS = {"linear": LINEAR, "scaled_linear": np.linspace(0.0015**0.5, 0.0195**0.5, 1000) ** 2}


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


def next_of(noise: Tensor) -> Callable[[], Tensor]:
    drawn = iter(noise)
    return lambda: next(drawn)


@pytest.mark.parametrize("words", [(250, 10, 10), (50, 5, 3), (20, 4, 2), (12, 5, 4)])
def test_schedules_are_those_of_both_and_calls_are_counted(words: tuple[int, int, int]) -> None:
    name = "sched_{}_{}_{}".format(*words)
    levels = schedule(*words)
    assert levels == GOLDEN[f"{name}_official"].tolist()
    assert [level * (1000 // words[0]) for level in levels[:-1]] == GOLDEN[f"{name}_diffusers"].tolist()
    assert Ddpm(LINEAR, words[0]).timesteps.tolist() == GOLDEN[f"map_{words[0]}"].tolist()
    network_calls, undone = GOLDEN[f"{name}_calls_undos"]
    assert calls(*words) == network_calls
    for sampler in (Ddim, Ddpm):
        moves = [down for down, _ in sampler(LINEAR, words[0]).moves(levels)]
        assert (sum(moves), len(moves) - sum(moves)) == (network_calls, undone)


@pytest.mark.parametrize("i", range(4))
def test_steps_of_diffusers(i: int) -> None:
    betas, steps, t, eta = GOLDEN[f"step{i}_case"]
    sampler = Ddim(BETAS[betas], int(steps), betas == "linear", float(eta))
    level, x, eps = int(t) // sampler.stride, golden("step_x"), golden("step_eps")
    torch.testing.assert_close(sampler.clean(x, eps, sampler.kept[int(t)]), golden(f"step{i}_x0"), atol=1e-4, rtol=0)
    # a network that learnt its variance gives twice the channels; the noise is the first half
    for output in (eps, torch.cat([eps, torch.full_like(eps, 7.0)], 1)):
        below = sampler.down(x, output, level, golden("step_x0"), golden("step_keep"), golden("step_noise"))
        torch.testing.assert_close(below, golden(f"step{i}_prev"), atol=5e-6, rtol=0)
    if f"step{i}_undo" in GOLDEN:  # not of one at t = 0
        above = sampler.up(x, level, next_of(golden(f"step{i}_undo_noise")))
        torch.testing.assert_close(above, golden(f"step{i}_undo"), atol=5e-6, rtol=0)


@pytest.mark.parametrize("t", [49, 30, 0])
def test_steps_of_the_authors(t: int) -> None:
    sampler = Ddpm(LINEAR, int(GOLDEN["off_T"]))
    np.testing.assert_allclose(sampler.betas, GOLDEN["off_betas"], atol=1e-7)
    x, known, keep = golden("step_x"), golden("step_x0"), golden("step_keep")
    if t < 49:  # the first call sees pure noise
        x = sampler.before(x, t, known, keep, next_of(golden(f"off_{t}_known_noise")[None]))
    torch.testing.assert_close(x, golden(f"off_{t}_net_input"), atol=5e-6, rtol=0)
    assert [sampler.timestep(t)] * 2 == GOLDEN[f"off_{t}_net_t"].tolist()
    output = torch.cat([golden("step_eps"), golden("off_var")], 1)
    below = sampler.down(x, output, t, known, keep, golden("step_noise"))
    torch.testing.assert_close(below, golden(f"off_{t}_sample"), atol=5e-6, rtol=0)
    above = sampler.up(golden("step_x"), int(GOLDEN["off_undo_t"]), next_of(golden("off_undo_noise")[None]))
    torch.testing.assert_close(above, golden("off_undo"), atol=5e-6, rtol=0)


@pytest.mark.parametrize("words", [(20, 4, 2, 0.0), (20, 4, 2, 1.0), (50, 5, 3, 0.5)])
def test_whole_loop_of_diffusers_alone_and_in_a_batch(words: tuple[int, int, int, float]) -> None:
    steps, jump, resample, eta = words
    known, keep, seeds = golden("step_x0"), golden("step_keep"), GOLDEN["loop_seeds"].tolist()
    called = count()

    def network(x: Tensor, t: int) -> Tensor:
        next(called)
        return 0.3 * x + 0.1 * np.cos(t / 100)

    sampler = Ddim(LINEAR, steps, eta=eta)
    made = repaint(network, sampler, known, keep, generators(seeds), jump, resample)
    torch.testing.assert_close(made, golden("loop_{}_{}_{}_{}".format(*words)), atol=1e-4, rtol=0)
    assert next(called) == calls(steps, jump, resample)
    assert torch.equal(made[keep.expand_as(made) == 1], known[keep.expand_as(made) == 1])
    alone = repaint(network, sampler, known[1:], keep[1:], generators(seeds[1:]), jump, resample)
    assert torch.equal(made[1:], alone)


class Pairs:
    """The exact denoiser of pairs of pixels (N, C, H, 2), of mean 0 and variance 1/4, whose correlation is 0.9."""

    covariance = 0.25 * torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)

    def __call__(self, x: Tensor, t: int) -> Tensor:
        kept = float(np.cumprod(1 - LINEAR)[t])
        noisy = kept * self.covariance + (1 - kept) * torch.eye(2, dtype=torch.float64)
        image = x.double() @ torch.linalg.solve(noisy, kept**0.5 * self.covariance)
        return ((x - kept**0.5 * image) / (1 - kept) ** 0.5).float()


SAMPLERS = [Ddim(LINEAR, 250, False), Ddim(LINEAR, 250, False, 1.0), Ddpm(LINEAR, 250, False)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_made_of_nothing_is_distributed_as_what_was_learnt(sampler: Levels) -> None:
    nothing = torch.zeros(1, 1, 20_000, 2)
    made = repaint(Pairs(), sampler, nothing, nothing, generators([0])).flatten(0, 2)
    assert made.mean(0).abs().max() < 0.015
    np.testing.assert_allclose(made.T.cov(), Pairs.covariance, atol=0.02)


@pytest.mark.parametrize("sampler", [Ddim(LINEAR, 100, False), Ddpm(LINEAR, 100, False)])
def test_walking_back_and_forth_makes_the_region_agree_with_what_is_known(sampler: Levels) -> None:
    """The claim of the paper: where one pixel is known to be 0.5, the other is 0.45 on average."""
    known, keep = torch.full((1, 1, 1_000, 2), 0.5), torch.tensor([1.0, 0.0]).expand(1, 1, 1_000, 2)
    errors = [
        (repaint(Pairs(), sampler, known, keep, generators([0]), 10, times)[..., 1].mean() - 0.45).abs()
        for times in (1, 6)
    ]
    assert errors[1] < 0.5 * errors[0]
