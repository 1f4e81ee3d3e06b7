"""The single-center loss: the published class's numbers, hand-made cases, and two ranks against one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from forking import on_two_ranks

from dfl.losses import SingleCenter, single_center_loss

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "scl.npz")
CASES = sorted(k.removesuffix("_x") for k in GOLDEN.files if k.endswith("_x"))


def of_dim(dim: int, **words: Any) -> SingleCenter:
    """Return the criterion for features of these dimensions."""
    loss = SingleCenter(**words)
    loss.build(dim, 2)
    return loss


@pytest.mark.parametrize("case", CASES)
def test_equals_the_published_class(case: str) -> None:
    x, y = torch.tensor(GOLDEN[f"{case}_x"], requires_grad=True), torch.tensor(GOLDEN[f"{case}_y"])
    loss = of_dim(x.shape[1], margin=float(case.rpartition("_m")[2]), empty_class="public")
    loss.center.data = torch.tensor(GOLDEN[f"{case}_C"])
    value = loss.pull(x, y)
    value.backward()
    torch.testing.assert_close(value.detach().numpy(), GOLDEN[f"{case}_loss"], rtol=1e-5, atol=2e-11)
    torch.testing.assert_close(x.grad.numpy(), GOLDEN[f"{case}_gx"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss.center.grad.numpy(), GOLDEN[f"{case}_gC"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", [c for c in CASES if f"{c}_bm_loss" in GOLDEN.files])
def test_equals_the_batch_mean_variant(case: str) -> None:
    x, y = torch.tensor(GOLDEN[f"{case}_x"], requires_grad=True), torch.tensor(GOLDEN[f"{case}_y"])
    value = of_dim(x.shape[1], margin=0.01, margin_mode="absolute", center="batch_mean").pull(x, y)
    value.backward()
    torch.testing.assert_close(value.detach().numpy(), GOLDEN[f"{case}_bm_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(x.grad.numpy(), GOLDEN[f"{case}_bm_gx"], rtol=1e-4, atol=1e-6)


def test_by_hand() -> None:
    """Reals at distances 1 and 3 (mean 2), a fake at 4, margin 5: 2 + (2 - 4 + 5)."""
    x = torch.tensor([[1.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
    assert single_center_loss(x, torch.tensor([0, 0, 1]), torch.zeros(2), 5.0).item() == pytest.approx(5.0)
    assert single_center_loss(x, torch.tensor([0, 0, 1]), torch.zeros(2), 1.0).item() == pytest.approx(2.0)


def test_one_class_gives_the_terms_that_are_defined() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 3.0]], requires_grad=True)
    center = torch.zeros(2)
    assert single_center_loss(x, torch.tensor([0, 0]), center, 5.0).item() == pytest.approx(2.0)
    none = single_center_loss(x, torch.tensor([1, 1]), center, 5.0)
    none.backward()
    assert none.item() == 0
    assert x.grad.abs().sum() == 0


@pytest.mark.parametrize("center", ["learnable", "batch_mean", "ema"])
def test_gradients_are_finite_at_the_center(center: str) -> None:
    x = torch.ones(4, 8, requires_grad=True)
    loss = of_dim(8, center=center)
    if center == "learnable":
        loss.center.data.fill_(1.0)
    loss.pull(x, torch.tensor([0, 0, 1, 1])).backward()
    assert x.grad.isfinite().all()


def test_is_float32_under_autocast() -> None:
    x, loss = torch.randn(6, 512), of_dim(512)
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(loss.pull(x, y), loss.float().pull(x, y))
        assert loss.pull(x.bfloat16(), y).dtype == torch.float32


def test_ema_follows_the_real_features() -> None:
    loss = of_dim(3, center="ema", momentum=0.5)
    y = torch.tensor([0, 1])
    loss.pull(torch.tensor([[2.0, 2, 2], [9, 9, 9]]), y)
    loss.pull(torch.tensor([[4.0, 4, 4], [9, 9, 9]]), y)
    assert loss.center.tolist() == [3.0, 3.0, 3.0]
    loss.pull(torch.tensor([[8.0, 8, 8]]), torch.tensor([1]))
    assert loss.center.tolist() == [3.0, 3.0, 3.0], "a batch without reals must leave the center alone"


def _rank(rank: int, path: str, center: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    x, y, weight, loss = _problem(center)
    mine = slice(0, 3) if rank == 0 else slice(3, 8)  # uneven on purpose
    (loss.pull(x[mine] @ weight, y[mine]) / 2).backward()  # DDP divides by the number of ranks
    for p in (weight, *loss.parameters()):
        dist.all_reduce(p.grad)
    if rank == 0:
        torch.save([weight.grad, [p.grad for p in loss.parameters()]], f"{path}.told")
    dist.destroy_process_group()


def _problem(center: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, SingleCenter]:
    g = torch.Generator().manual_seed(1)
    x, weight = torch.randn(8, 4, generator=g), torch.randn(4, 4, generator=g).requires_grad_()
    torch.manual_seed(2)
    return x, torch.tensor([0, 1, 1, 0, 0, 0, 1, 0]), weight, of_dim(4, center=center)


@pytest.mark.parametrize("center", ["learnable", "batch_mean"])
def test_two_uneven_ranks_give_the_gradient_of_one(center: str, tmp_path: Path) -> None:
    on_two_ranks(_rank, str(tmp_path / "store"), center)
    weight_grad, loss_grads = torch.load(tmp_path / "store.told", weights_only=True)
    x, y, weight, loss = _problem(center)
    loss.pull(x @ weight, y).backward()
    torch.testing.assert_close(weight_grad, weight.grad)
    for got, p in zip(loss_grads, loss.parameters(), strict=True):
        torch.testing.assert_close(got, p.grad)
