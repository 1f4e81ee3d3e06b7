"""Orders that say what each batch holds: counts, ranks, resuming, and what cannot be sampled."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dfl.data import DataModule
from dfl.data.aligned import Aligned
from dfl.data.sampler import (
    Order,
    TrainSampler,
    balanced,
    by_generators,
    grouped,
    own_pairs,
    pairs,
    shuffled,
)
from dfl.data.sources import to_table
from dfl.data.sources.base import TIES, Source
from dfl.data.sources.faceforensics import who
from dfl.data.splits import components
from dfl.errors import UserError
from tests.data.test_datamodule import trainer

RNG = np.random.default_rng(0)
N = 500
LABEL = (RNG.random(N) < 0.8).astype(np.int8)
GROUP = RNG.integers(-1, 3, N).astype(np.int8)
GENERATOR = np.where(LABEL == 1, RNG.integers(-1, 7, N), -1).astype(np.int8)
SOURCE = RNG.integers(-1, 20, N)
FRAME = RNG.integers(-1, 4, N).astype(np.int32)
PLACE = np.where(SOURCE < 0, -1, 10 * SOURCE + FRAME)
LENGTH, BATCH = 480, 24
MAKE: dict[str, Callable[[], Order]] = {
    "shuffled": lambda: shuffled(N, 3, LENGTH),
    "pairs": lambda: pairs(LABEL, 3, LENGTH),
    "own pairs": lambda: own_pairs(LABEL, SOURCE, FRAME, 3, LENGTH),
    "groups": lambda: grouped(LABEL, GROUP, ["a", "b", "c"], 3, LENGTH),
    "generators": lambda: by_generators(LABEL, GENERATOR, 3, 3, LENGTH, BATCH),
    "aligned": lambda: Aligned.of(LABEL, GENERATOR // 3, PLACE, 3).order(3, LENGTH),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*leaves out")


def batches(order: Order, epoch: int = 0, size: int = BATCH) -> list[np.ndarray]:
    return list(order(epoch).reshape(-1, size))


@pytest.mark.parametrize("name", MAKE)
def test_orders_are_cut_alike_by_ranks_and_go_on_after_any_batch(name: str) -> None:
    order = MAKE[name]()
    rows = order(2)
    assert len(rows) == LENGTH
    assert np.array_equal(rows, MAKE[name]()(2))
    assert not np.array_equal(rows, order(1))
    whole = [row for row, _ in TrainSampler(order, LENGTH, BATCH, trainer(epoch=2))]
    assert whole == rows.tolist()
    parts = [[r for r, _ in TrainSampler(order, LENGTH, 8, trainer(epoch=2, rank=i, world=3))] for i in range(3)]
    for step in range(LENGTH // BATCH):
        assert [row for part in parts for row in part[8 * step : 8 * step + 8]] == whole[
            step * BATCH : (step + 1) * BATCH
        ]
        rest = TrainSampler(order, LENGTH, 8, trainer(epoch=2, done=step, rank=1, world=3))
        assert [row for row, _ in rest] == parts[1][8 * step :]


def test_pairs_fill_every_batch_half_and_half() -> None:
    for rows in batches(MAKE["pairs"](), size=6):
        assert LABEL[rows].tolist() == [1, 0] * 3
    fake = MAKE["pairs"]()(0)[::2]
    assert len(set(fake)) == len(fake), "no fake twice before all were there"
    real = Counter(MAKE["pairs"]()(0)[1::2].tolist())
    assert max(real.values()) - min(real.values()) <= 1
    assert len(real) == (LABEL == 0).sum()


def test_own_pairs_are_a_fake_and_its_original() -> None:
    fake, real = MAKE["own pairs"]()(0).reshape(-1, 2).T
    assert (LABEL[fake] == 1).all()
    assert (LABEL[real] == 0).all()
    assert np.array_equal(SOURCE[fake], SOURCE[real])
    assert (SOURCE[fake] >= 0).all()
    for f, r in zip(fake, real, strict=True):
        same = np.flatnonzero((LABEL == 0) & (SOURCE[f] == SOURCE) & (FRAME[f] == FRAME))
        assert FRAME[f] < 0 or not len(same) or r in same
    with pytest.warns(UserWarning, match=r"leaves out \d+ fakes whose original is not"):
        MAKE["own pairs"]()


def test_originals_are_followed_by_their_forgeries() -> None:
    made = GENERATOR // 3  # three generators
    for rows in batches(MAKE["aligned"](), size=4):
        assert LABEL[rows].tolist() == [0, 1, 1, 1]
        assert made[rows][1:].tolist() == [0, 1, 2]
        assert len(set(PLACE[rows])) == 1
        assert PLACE[rows[0]] >= 0
    originals = Counter(MAKE["aligned"]()(0)[::4].tolist())
    whole = [
        row
        for row in np.flatnonzero((LABEL == 0) & (PLACE >= 0))
        if {0, 1, 2} <= set(made[(LABEL == 1) & (PLACE[row] == PLACE)])
    ]
    assert set(originals) == set(whole), "every original that has all three, and no other"
    assert max(originals.values()) - min(originals.values()) <= 1
    with pytest.warns(UserWarning, match=r"leaves out \d+ images"):
        MAKE["aligned"]()


def test_groups_and_classes_come_equally_often() -> None:
    order = MAKE["groups"]()
    for size in (6, 16, LENGTH):
        for rows in batches(order, size=size):
            cells = Counter(zip(GROUP[rows].tolist(), LABEL[rows].tolist(), strict=True))
            counts = [cells[g, c] for g in range(3) for c in (0, 1)]
            assert max(counts) - min(counts) <= 1
            assert sum(counts) == size, "rows without a group are left out"


def test_each_batch_has_k_generators_and_as_many_reals() -> None:
    order, seen = MAKE["generators"](), Counter[int]()
    for rows in batches(order):
        assert (LABEL[rows] == 0).sum() == BATCH // 2
        made = Counter(GENERATOR[rows][LABEL[rows] == 1].tolist())
        assert len(made) == 3
        assert set(made.values()) == {BATCH // 6}
        assert min(made) >= 0
        for rank in rows.reshape(-1, 6):
            assert Counter(GENERATOR[rank].tolist()) == {-1: 3} | dict.fromkeys(made, 1)
        seen.update(made)
    assert set(seen) == set(range(7))


ONE, NONE, BOTH = np.ones(6, np.int8), np.full(6, -1), np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: balanced(ONE, 0), "balance=sampling needs both classes"),
        (lambda: pairs(ONE, 0, 6), "balance=pairs needs both classes"),
        (lambda: own_pairs(BOTH, NONE, NONE, 0, 6), "needs the column 'source'"),
        (lambda: own_pairs(BOTH, np.arange(6), NONE, 0, 6), "no fake training image has its original"),
        (lambda: grouped(BOTH, NONE, [], 0, 6), "needs the column 'group'"),
        (lambda: grouped(BOTH, np.array([0, 0, 0, 1, 0, 1]), ["a", "b"], 0, 6), "'b' has no real image"),
        (lambda: by_generators(BOTH, NONE, 2, 0, 8, 8), "needs the column 'generator'"),
        (lambda: by_generators(BOTH, np.arange(6), 4, 0, 8, 8), "=4: the fake training images are of 3 generators"),
        (lambda: by_generators(BOTH, np.arange(6), 2, 0, 6, 6), "a multiple of 4, not 6"),
        (lambda: DataModule(balance="pairs", batch_size=5), "even batch_size, not 5"),
        (lambda: DataModule(balance="groups", originals=True), "is for balance=pairs or generators, not groups"),
        (lambda: DataModule(balance="generators", originals=True, batch_size=32), "take a multiple of 5"),
        (lambda: Aligned.of(BOTH, BOTH, NONE, 1), "needs the column 'source'"),
        (lambda: Aligned.of(BOTH, NONE, BOTH, 1), "is 1, and the fake training images with a source are of 0"),
        (lambda: Aligned.of(BOTH, BOTH, np.arange(6), 1), "no original has a forgery by each of the 1 generators"),
    ],
)
def test_what_cannot_be_sampled_is_named(make: Callable[[], object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make()


class Known(Source):
    """Rows that are told."""

    n = 40

    def items(self, split: str) -> Any:
        first = 0 if split == "train" else 1000
        return to_table(
            {
                "path": f"/x/{first + i}.png",
                "label": int(i % 4 > 0),
                "group": "ab"[i // 4 % 2],
                "generator": "" if i % 4 == 0 else f"g{i % 4}",
                "source": str(i // 4),
            }
            for i in range(self.n)
        )


class Fewer(Known):
    """The same without the last forgery."""

    n = 39


@pytest.mark.parametrize(
    ("words", "length"),
    [({"balance": "pairs"}, 64), ({"balance": "pairs", "originals": True}, 64), ({"balance": "groups"}, 40)],
)
def test_the_data_module_samples_as_it_is_told(words: dict[str, Any], length: int) -> None:
    data = DataModule(Known(), size=32, num_workers=0, batch_size=8, **words)
    data.trainer = trainer()
    data.setup("fit")
    rows = [row for row, _ in data.train_dataloader().sampler]
    assert len(rows) == length
    assert data.sets["train"]["train"].label[rows].sum() == length // 2
    if words.get("originals"):
        assert [row // 4 for row in rows[::2]] == [row // 4 for row in rows[1::2]]


@pytest.mark.parametrize(("source", "left"), [(Known, 0), (Fewer, 3)])
def test_a_batch_of_each_rank_is_whole_groups(
    source: type[Source], left: int, recwarn: pytest.WarningsRecorder
) -> None:
    data = DataModule(
        source(),
        **{"size": 32, "num_workers": 0, "batch_size": 8, "balance": "generators"},
        **{"originals": True, "generators_per_batch": 3},
    )
    seen = []
    for rank in range(2):
        data.trainer = trainer(rank=rank, world=2)
        data.setup("fit")
        rows = np.array([row for row, _ in data.train_dataloader().sampler]).reshape(-1, 4)
        assert (rows == rows[:, :1] + np.arange(4)).all()
        assert (rows[:, 0] % 4 == 0).all()
        assert len(rows) == 2 * data.train_steps() == 6, "every original once, to whole batches"
        seen += rows[:, 0].tolist()
    assert len(set(seen)) == 10 - bool(left)
    assert any(f"leaves out {left} images" in str(one.message) for one in recwarn) == bool(left)


class Pair(Source):
    """A pair of FaceForensics++: two originals, and two videos by each of two methods, three frames of each."""

    def items(self, split: str) -> Any:
        videos = [("", "000"), ("", "003"), *((m, v) for m in ("b", "a") for v in ("003_000", "000_003"))]
        return to_table(
            {"path": f"/{m}/{v}/{frame}.png", "label": int(bool(m)), "generator": m, "frame": frame} | who(v)
            for m, v in videos
            for frame in (0, 5, 10)
        )


def test_forgeries_of_faceforensics_lie_over_the_same_frame_of_their_target() -> None:
    words: dict[str, Any] = {"balance": "generators", "originals": True, "generators_per_batch": 2}
    data = DataModule(Pair(), size=32, num_workers=0, batch_size=3, allow_overlap=True, **words)
    data.trainer = trainer()
    data.setup("fit")
    table = Pair().load("train")
    assert set(components([table[name] for name in TIES])) == {0}, "and no split tears the pair apart"
    paths = [data.sets["train"]["train"].path(row) for row, _ in data.train_dataloader().sampler]
    groups = {tuple(paths[i : i + 3]) for i in range(0, 18, 3)}
    swapped = {"000": "000_003", "003": "003_000"}
    assert groups == {
        (f"//{v}/{frame}.png", f"/a/{fake}/{frame}.png", f"/b/{fake}/{frame}.png")
        for v, fake in swapped.items()
        for frame in (0, 5, 10)
    }


@pytest.mark.parametrize("originals", [False, True])
@pytest.mark.parametrize(("batch", "world"), [(4, 1), (4, 2), (22, 1), (64, 1)])
def test_an_epoch_of_pairs_is_every_fake_once(originals: bool, batch: int, world: int) -> None:
    fakes = 30  # of 40 rows; the codes of UCF and PG-FDD count as many pairs, the last batch with the rest
    seen: list[int] = []
    for rank in range(world):
        data = DataModule(Known(), size=32, num_workers=0, batch_size=batch, balance="pairs", originals=originals)
        data.trainer = trainer(rank=rank, world=world)
        data.setup("fit")
        assert data.train_steps() == -(-fakes // (batch // 2 * world))
        seen += [row for row, _ in data.train_dataloader().sampler]
    of_fakes = Counter(row for row in seen if row % 4)
    assert len(of_fakes) == fakes
    assert sum(of_fakes.values()) - fakes < batch // 2 * world, "what fills up the last batch, and no more"
    assert sum(of_fakes.values()) == len(seen) // 2


@pytest.mark.parametrize("balance", ["none", "weights", "sampling", "pairs", "groups", "generators"])
def test_an_epoch_has_as_many_batches_as_it_is_told(balance: Any) -> None:
    data = DataModule(
        Known(), size=32, num_workers=0, batch_size=6, balance=balance, generators_per_batch=3, epoch_batches=17
    )
    data.trainer = trainer()
    data.setup("fit")
    assert data.train_steps() == 17
    sampler = data.train_dataloader().sampler
    rows = [row for row, _ in sampler]
    assert len(rows) == 102
    if balance == "none":
        counts = Counter(rows)
        assert sorted(counts.values()) == [2] * 18 + [3] * 22, "none again before all were there"
        assert rows[:40] == shuffled(40, 0)(0).tolist(), "and first in the order of an epoch of its own length"
    data.trainer = trainer(done=11)
    assert [row for row, _ in data.train_dataloader().sampler] == rows[66:]
    data.trainer = trainer(epoch=1)
    assert [row for row, _ in data.train_dataloader().sampler] != rows


def test_an_epoch_that_is_shorter_than_the_set_is_its_beginning() -> None:
    data = DataModule(Known(), size=32, num_workers=0, batch_size=6, epoch_batches=2)
    data.trainer = trainer()
    data.setup("fit")
    assert [row for row, _ in data.train_dataloader().sampler] == shuffled(40, 0)(0)[:12].tolist()
    with pytest.raises(UserError, match="epoch_batches=0"):
        DataModule(epoch_batches=0)


def test_a_small_set_fills_a_batch_of_generators() -> None:
    data = DataModule(
        Known(limit=20), size=32, num_workers=0, batch_size=18, balance="generators", generators_per_batch=3
    )
    for rank in range(2):
        data.trainer = trainer(rank=rank, world=2)
        data.setup("fit")
        train = data.sets["train"]["train"]
        rows = [row for row, _ in data.train_dataloader().sampler]
        assert len(rows) == 18 * data.train_steps() == 18
        assert Counter(train.id("generator", row) for row in rows) == {0: 9, 1: 3, 2: 3, 3: 3}


def test_orders_of_before_are_the_same() -> None:
    """Runs of earlier versions go on in their order."""
    assert np.array_equal(shuffled(1000, 7)(3), np.random.default_rng([7, 3]).permutation(1000))
    assert balanced(LABEL, 5)(1).tolist()[:8] == [391, 289, 19, 491, 75, 107, 267, 271]
