"""SIDA's mask losses: the official numbers, weights, and batches without a mask."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.detectors.sida.losses import sida_bce, sida_dice

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "sida.npz")


@pytest.mark.parametrize("case", ["a", "b", "c"])
@pytest.mark.parametrize(("name", "loss"), [("bce", sida_bce), ("dice", sida_dice)])
def test_equals_the_official_code(case: str, name: str, loss) -> None:
    logit = torch.from_numpy(GOLDEN[f"{case}/logit"]).float().requires_grad_()
    value = loss(logit, torch.from_numpy(GOLDEN[f"{case}/target"]))
    assert float(value) == pytest.approx(float(GOLDEN[f"{case}/{name}"]), rel=1e-5)
    value.backward()
    step = 8 if case == "c" else 1
    wanted = torch.from_numpy(GOLDEN[f"{case}/grad_{name}"])
    torch.testing.assert_close(logit.grad[:, ::step, ::step], wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("loss", [sida_bce, sida_dice])
def test_weights_choose_masks(loss) -> None:
    logit, target = torch.randn(5, 8, 8), torch.rand(5, 8, 8)
    weight = torch.tensor([0.0, 1, 0, 1, 0])
    torch.testing.assert_close(loss(logit, target, weight=weight), loss(logit[[1, 3]], target[[1, 3]]))


@pytest.mark.parametrize("loss", [sida_bce, sida_dice])
def test_no_mask_gives_zero_and_zero_gradients(loss) -> None:
    logit = torch.randn(3, 8, 8, requires_grad=True)
    value = loss(logit, torch.zeros(3, 8, 8), weight=torch.zeros(3))
    value.backward()
    assert float(value.detach()) == 0
    assert not logit.grad.any()


@pytest.mark.parametrize("loss", [sida_bce, sida_dice])
def test_parts_of_ranks_add_up_to_the_batch(loss) -> None:
    logit, target, weight = torch.randn(6, 8, 8), torch.rand(6, 8, 8), torch.tensor([1.0, 0, 0, 1, 1, 1])
    count = weight.sum() / 2  # the mean over two ranks
    ranks = [loss(logit[s], target[s], weight=weight[s], count=count) for s in (slice(3), slice(3, 6))]
    torch.testing.assert_close(sum(ranks) / 2, loss(logit, target, weight=weight))
