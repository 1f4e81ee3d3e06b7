"""The promise of every metric: order, batches, repeated rows, padding and ranks change nothing."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forking import on_two_ranks
from torch import Tensor

from dfl import metrics as m
from dfl.metrics.gathered import Gathered, ImageLoss

N = 41
NAMES = ("real", "synthetic", "tampered")
G = torch.Generator().manual_seed(0)
#: Ties, three groups, and frames of videos, each of one label.
SCORE = torch.rand(N, generator=G).mul(10).round() / 10
LABEL = (torch.arange(N) // 4 % 3 == 0).long()
LOGIT, KIND = torch.randn(N, 3, generator=G), torch.randint(0, 3, (N,), generator=G)
MASK = torch.zeros(N, 12, 12)
for i in range(N):
    MASK[i, i % 5 : 3 + i % 7, i % 3 : 5 + i % 6] = 1
MAP = (torch.rand(N, 12, 12, generator=G) * 0.6 + 0.3 * MASK).mul(50).round() / 50
WORDS = [" ".join("abcdefg"[: 1 + i % 7]) for i in range(N)]

METRICS: dict[str, tuple[Callable[[], Gathered], Callable[[Gathered, Tensor, Tensor], None]]] = {
    "scores": (
        lambda: m.Detection(threshold=0.4),
        lambda metric, at, index: metric.update(SCORE[at], LABEL[at], index, at // 4, at % 3),
    ),
    "classes": (lambda: m.Classes(NAMES), lambda metric, at, index: metric.update(LOGIT[at], KIND[at], index)),
    "maps": (m.Localization, lambda metric, at, index: metric.update(MAP[at], MASK[at], LABEL[at], index)),
    "texts": (m.Texts, lambda metric, at, index: metric.update([WORDS[i] for i in at], ["a b d"] * len(at), index)),
    "losses": (ImageLoss, lambda metric, at, index: metric.update(SCORE[at] ** 2, index)),
}
#: Pooled counts are of all rows that came, so only maps must not repeat one; sums of pixels are exact to 1e-12.
REPEATED = {"scores", "classes", "texts", "losses"}


def measured(name: str, *parts: Tensor, ended: bool = False) -> tuple[Gathered, dict[str, float]]:
    make, update = METRICS[name]
    metric = make()
    for at in parts or (torch.arange(N),):
        update(metric, at, at)
    if ended:  # padding, and a row once more
        update(metric, torch.tensor([5, 3]), torch.tensor([-1, -1]))
        if name in REPEATED:
            update(metric, torch.tensor([2]), torch.tensor([2]))
    return metric, {key: float(value) for key, value in metric.compute().items()}


def equal(name: str, one: dict[str, float], other: dict[str, float]) -> None:
    assert one == (pytest.approx(other, rel=1e-12, abs=0) if name == "maps" else other)


@pytest.mark.filterwarnings("ignore:text_css")
@pytest.mark.parametrize("name", METRICS)
def test_order_batches_repeated_rows_and_padding_change_nothing(name: str) -> None:
    _, whole = measured(name)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    metric, mixed = measured(name, *order.split(7), ended=True)
    equal(name, mixed, whole)
    index, numbers = metric.gathered()
    assert index.tolist() == list(range(N))
    assert len(numbers) == N
    metric.reset()
    assert len(metric.gathered()[0]) == 0


def test_of_two_scores_of_one_image_the_lower_counts() -> None:
    for scores in ([0.5, 0.25], [0.25, 0.5]):
        metric = m.Detection()
        for score in scores:
            metric.update(torch.tensor([score]), torch.tensor([1]), torch.tensor([7]))
        assert metric.rows()["score"].tolist() == [0.25]


def on_rank(rank: int, store: str, results: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    warnings.simplefilter("ignore")
    computed = {}
    for name, (make, update) in METRICS.items():
        uneven, one_sided = make(), make()
        last = N + 1 if name in REPEATED else N
        for at in torch.arange(last).remainder(N)[rank::2].split(8):  # uneven, and row 0 twice
            update(uneven, at, at)
        if rank == 1:  # rank 0 saw nothing of this domain
            update(one_sided, torch.arange(N), torch.arange(N))
        both = (uneven, one_sided)
        computed[name] = [({k: float(v) for k, v in one.compute().items()}, one.gathered()[1]) for one in both]
        if rank == 0:
            assert len(uneven.gathered()[0]) == N  # local after compute: rank 1 does not take part
    torch.save(computed, f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:text_css")
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    on_two_ranks(on_rank, str(tmp_path / "store"), str(tmp_path))
    for rank in (0, 1):
        for name, both in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            metric, alone = measured(name)
            for computed, numbers in both:
                equal(name, computed, alone)
                assert torch.equal(numbers.nan_to_num(-1), metric.gathered()[1].nan_to_num(-1))
