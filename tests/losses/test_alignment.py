"""Alignment and uniformity: the formulas by hand, batches without pairs, and two ranks against one."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from forking import on_two_ranks

from dfl.losses import UniformAligned, alignment_and_uniformity


def test_alignment_and_uniformity_are_those_of_the_formulas() -> None:
    feature, label = torch.randn(9, 6, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 0, 1, 0, 0, 1])
    unit = F.normalize(feature, dim=1)
    pairs = [(i, j) for i in range(9) for j in range(i)]
    same = [float((unit[i] - unit[j]).norm() ** 2) for i, j in pairs if label[i] == label[j]]
    spread = np.log(np.mean([np.exp(-2 * float((unit[i] - unit[j]).norm() ** 2)) for i, j in pairs]))
    alignment, uniformity = alignment_and_uniformity(feature * 3, label)
    assert float(alignment) == pytest.approx(np.mean(same), abs=1e-6)
    assert float(uniformity) == pytest.approx(spread, abs=1e-6)


def test_batches_without_pairs_have_finite_gradients() -> None:
    for label in ([0], [0, 1], [1, 1]):
        feature = torch.ones(len(label), 4, requires_grad=True)
        alignment, uniformity = alignment_and_uniformity(feature, torch.tensor(label))
        (alignment + uniformity).backward()
        assert float(alignment) == float(uniformity) == 0
        assert feature.grad is not None
        assert bool(feature.grad.isfinite().all())


def _problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    return torch.randn(9, 4, generator=g), torch.arange(9) % 2, torch.randn(4, 5, generator=g).requires_grad_()


def _loss(x: torch.Tensor, label: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Alignment and uniformity alone, since the mean of ranks of a cross-entropy is not that of uneven ranks."""
    parts = UniformAligned()({"feature": x @ w, "logit": torch.zeros(len(x))}, {"label": label})
    return 0.1 * parts["alignment"] + 0.5 * parts["uniformity"]


def _rank(rank: int, path: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    x, label, w = _problem()
    mine = slice(0, 4) if rank == 0 else slice(4, 9)  # uneven on purpose
    value = _loss(x[mine], label[mine], w)
    (value / 2).backward()  # DDP divides by the number of ranks
    dist.all_reduce(w.grad)
    if rank == 0:
        torch.save([value.detach(), w.grad], f"{path}.told")
    dist.destroy_process_group()


def test_pairs_of_two_ranks_give_loss_and_gradient_of_one(tmp_path: Path) -> None:
    on_two_ranks(_rank, str(tmp_path / "store"))
    value, grad = torch.load(tmp_path / "store.told", weights_only=True)
    x, label, w = _problem()
    whole = _loss(x, label, w)
    whole.backward()
    torch.testing.assert_close(value, whole.detach())
    torch.testing.assert_close(grad, w.grad)
