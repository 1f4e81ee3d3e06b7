"""Which sample comes when: the same answer whether or not a run was cut off.

`TrainSampler` asks the trainer where it is each time an epoch's iterator is made. The order of an epoch is a
function of (seed, epoch) alone, so a resumed run starts at the right offset of the same order, and needs no state
in the checkpoint, whatever the number of workers. `EvalSampler` gives every rank the same number of rows, and marks
the ones that fill up as padding, so that collective calls stay in step and every sample counts exactly once.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import Sampler

from dfl.errors import UserError

#: Gives the order of an epoch: int64 rows of the data set.
Order = Callable[[int], np.ndarray]


def shuffled(n: int, seed: int, length: int | None = None) -> Order:
    """Every row once, in an order drawn for each epoch; ``length`` rows: none comes again before all were there."""
    count = n if length is None else length
    return lambda epoch: drawn(np.random.default_rng([seed, epoch]), np.arange(n), count)


def drawn(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` of the rows in random order; none comes again before all were there."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // max(1, len(rows))))]
    return rounds[0][:count] if len(rounds) == 1 else np.concatenate([rows[:0], *rounds])[:count]


def balanced(label: np.ndarray, seed: int, length: int | None = None) -> Order:
    """As many rows as there are, or ``length``, half of them real and half fake.

    The rarer class repeats, the other is thinned. Within an epoch a row of a class comes again only when all of that
    class were there.
    """
    n = len(label) if length is None else length
    classes = _both_classes(label, "sampling")

    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch])
        parts = [drawn(rng, rows, count) for rows, count in zip(classes, (n - n // 2, n // 2), strict=True)]
        return rng.permutation(np.concatenate(parts))

    return order


def _both_classes(label: np.ndarray, balance: str) -> list[np.ndarray]:
    classes = [np.flatnonzero(label == c) for c in (0, 1)]
    if not all(map(len, classes)):
        raise UserError(f"balance={balance} needs both classes; all {len(label)} training images are of one")
    return classes


def pairs(label: np.ndarray, seed: int, length: int) -> Order:
    """Fake, real, fake, real, ...: any run of an even number of rows holds as many fakes as reals.

    Args:
        label: Integers (n,), 0 real, 1 fake.
        seed: Seed of the order.
        length: Rows of an epoch, even: twice the fakes for every fake once, as UCF and PG-FDD count. Within it a row
            comes again only when all of its class were there.

    Raises:
        UserError: If a class is missing.
    """
    real, fake = _both_classes(label, "pairs")

    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch])
        return np.stack([drawn(rng, rows, length // 2) for rows in (fake, real)], axis=1).reshape(-1)

    return order


def paired_fakes(label: np.ndarray, source: np.ndarray | None = None) -> np.ndarray:
    """Return the rows of the fakes that can be in a pair: all, or those whose original is there where it is asked for.

    Args:
        label: Integers (n,), 0 real, 1 fake.
        source: Integers (n,), equal for a fake and its original, -1 where it is not known; None if any real will do.
    """
    if source is None:
        return np.flatnonzero(label == 1)
    fake = np.flatnonzero((label == 1) & (source >= 0))
    return fake[np.isin(source[fake], source[label == 0])]


def own_pairs(label: np.ndarray, source: np.ndarray, frame: np.ndarray, seed: int, length: int) -> Order:
    """Like :func:`pairs`, and each fake is followed by its own original.

    That is a real row with the same source and frame; where none has the frame, or it is not known, any real row with
    the same source. If several are left, one is drawn.

    Args:
        label: Integers (n,), 0 real, 1 fake.
        source: Integers (n,), equal for a fake and its original; -1 where it is not known.
        frame: Integers (n,), -1 where it is not known.
        seed: Seed of the order.
        length: Rows of an epoch, even.

    Raises:
        UserError: If no source is known, or no fake has its original among the rows.
    """
    _both_classes(label, "pairs")
    if (source < 0).all():
        raise UserError("originals=true needs the column 'source' (a fake's original), and it is empty")
    real = np.flatnonzero((label == 0) & (source >= 0))
    real = real[np.lexsort((frame[real], source[real]))]
    fake = paired_fakes(label, source)
    if not len(fake):
        raise UserError("originals=true: no fake training image has its original ('source') among the real ones")
    if left := int((label == 1).sum()) - len(fake):
        warnings.warn(
            f"originals=true leaves out {left} fakes whose original is not among the real images", stacklevel=2
        )
    # one number for source and frame, in the order of `real`
    width = int(frame.max()) + 2
    key = source[real].astype(np.int64) * width + frame[real] + 1

    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch])
        chosen = drawn(rng, fake, length // 2)
        first = source[chosen].astype(np.int64) * width
        exact = first + frame[chosen] + 1
        low, high = np.searchsorted(key, exact), np.searchsorted(key, exact, side="right")
        far = (low == high) | (frame[chosen] < 0)
        low = np.where(far, np.searchsorted(key, first), low)
        high = np.where(far, np.searchsorted(key, first + width), high)
        return np.stack([chosen, real[rng.integers(low, high)]], axis=1).reshape(-1)

    return order


def grouped(label: np.ndarray, group: np.ndarray, names: list[str], seed: int, length: int) -> Order:
    """Every group and class equally often: in any run of rows the counts of two of them differ by one at most.

    Args:
        label: Integers (n,), 0 real, 1 fake.
        group: Integers (n,), -1 where it is not known; such rows are left out.
        names: Name of each group, for the errors.
        seed: Seed of the order.
        length: Rows of an epoch. Within it a row comes again only when all of its group and class were there.

    Raises:
        UserError: If no group is known, or a group lacks a class.
    """
    groups = np.unique(group[group >= 0])
    if not len(groups):
        raise UserError("balance=groups needs the column 'group', and it is empty")
    cells = []
    for g in groups:
        for c, word in enumerate(("real", "fake")):
            cells.append(np.flatnonzero((group == g) & (label == c)))
            if not len(cells[-1]):
                raise UserError(f"balance=groups needs both classes in every group; {names[g]!r} has no {word} image")
    _warn_left_out("groups", "group", int((group < 0).sum()))

    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch])
        turn = rng.permutation(len(cells))  # the same turn all through the epoch, so that no run favours a cell
        rows = np.empty(length, cells[0].dtype)
        for place, cell in enumerate(turn):
            rows[place :: len(cells)] = drawn(rng, cells[cell], len(rows[place :: len(cells)]))
        return rows

    return order


def by_generators(label: np.ndarray, generator: np.ndarray, k: int, seed: int, length: int, batch: int) -> Order:
    """In each global batch half are real; the fakes are of ``k`` generators, equally many of each.

    They alternate, real, fake of the first, real, fake of the second, ..., so that the part of each rank is balanced
    too where its size is a multiple of ``2 * k``. Generators take turns: in a round of batches none comes twice.

    Args:
        label: Integers (n,), 0 real, 1 fake.
        generator: Integers (n,), -1 where it is not known; fakes of unknown generators are left out.
        k: Generators of a batch.
        seed: Seed of the order.
        length: Rows of an epoch, a multiple of ``batch``.
        batch: Rows of a global batch, a multiple of ``2 * k``.

    Raises:
        UserError: If there are no real rows, fewer than ``k`` generators, or the batch cannot be shared out.
    """
    real, _ = _both_classes(label, "generators")
    maker = np.where(label == 1, generator, -1)
    there = np.unique(maker[maker >= 0])
    if not len(there):
        raise UserError("balance=generators needs the column 'generator', and it is empty")
    if not 1 <= k <= len(there):
        raise UserError(f"generators_per_batch={k}: the fake training images are of {len(there)} generators")
    if batch % (2 * k):
        raise UserError(
            f"balance=generators with generators_per_batch={k} needs a global batch that is a multiple of {2 * k}, "
            f"not {batch}"
        )
    _warn_left_out("generators", "generator", int(((label == 1) & (generator < 0)).sum()))
    pools = [np.flatnonzero(maker == g) for g in there]
    steps, each = length // batch, batch // (2 * k)
    round_of = len(there) // k  # batches of a round

    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch])
        rounds = rng.permuted(np.tile(np.arange(len(there)), (-(-steps // round_of), 1)), axis=1)
        turn = rounds[:, : round_of * k].reshape(-1, k)[:steps]  # (steps, k) generators
        fake = np.empty((steps, k, each), real.dtype)
        for g, rows in enumerate(pools):
            here = turn == g
            fake[here] = drawn(rng, rows, int(here.sum()) * each).reshape(-1, each)
        mixed = np.empty((steps, each, k, 2), real.dtype)
        mixed[..., 0] = drawn(rng, real, length // 2).reshape(steps, each, k)
        mixed[..., 1] = fake.transpose(0, 2, 1)
        return mixed.reshape(-1)

    return order


def _warn_left_out(balance: str, column: str, count: int) -> None:
    if count:
        warnings.warn(f"balance={balance} leaves out {count} images without a {column}", stacklevel=3)


class TrainSampler(Sampler[tuple[int, int]]):
    """Yields ``(row, epoch)`` of one rank, from where the trainer is.

    Global step ``s`` holds ``order[s * B * W : (s + 1) * B * W]`` for batch size B and W ranks; rank r takes the
    r-th run of B of them. What does not fill a global batch is left out of that epoch.

    Args:
        order: Rows of an epoch.
        n: Length of ``order(epoch)``.
        batch_size: Rows of one rank's batch.
        trainer: Tells epoch, position, rank and number of ranks.
    """

    def __init__(self, order: Order, n: int, batch_size: int, trainer: pl.Trainer) -> None:
        self.order, self.n, self.batch_size, self.trainer = order, n, batch_size, trainer

    def __len__(self) -> int:
        world, whole = self.trainer.world_size, self.n // (self.batch_size * self.trainer.world_size)
        return whole * self.batch_size if whole else -(-self.n // world)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch, done = position(self.trainer, steps_of_epoch(self.n, self.batch_size, self.trainer))
        order = self.order(epoch)
        world, rank, batch = self.trainer.world_size, self.trainer.global_rank, self.batch_size
        if self.n < batch * world:  # one short batch: ranks take turns, the first rows fill up the last rank
            mine = np.resize(order, len(self) * world)[rank::world]
        else:
            mine = order[: len(self) * world].reshape(-1, world, batch)[:, rank].reshape(-1)
        for row in mine[done * batch :]:
            yield int(row), epoch


def steps_of_epoch(n: int, batch_size: int, trainer: pl.Trainer) -> int:
    """Return the batches of one rank in an epoch of ``n`` rows, ``limit_train_batches`` heeded."""
    steps = max(1, n // (batch_size * trainer.world_size))
    limit = trainer.limit_train_batches
    return min(steps, limit) if isinstance(limit, int) else int(steps * limit)


def position(trainer: pl.Trainer, steps: int) -> tuple[int, int]:
    """Return the epoch that is trained next and how many of its batches are done.

    A checkpoint may be written between the last batch and the end of its epoch, or after it: then the next epoch
    starts from its beginning.
    """
    epochs: Any = trainer.fit_loop.epoch_progress.current  # typed without ``processed`` there
    batches: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    done = batches.processed  # `ready` counts a batch that an exception cut off
    if epochs.processed == epochs.ready:  # between epochs
        return epochs.processed, 0
    return (epochs.processed, done) if done < steps else (epochs.processed + 1, 0)


class EvalSampler(Sampler[int]):
    """Yields the rows ``rank, rank + W, ...`` of one rank; beyond the end come paddings ``-1 - row``.

    Args:
        n: Rows of the data set.
        rank: This process.
        world: Number of processes W.
        order: The rows in another order.
        start: So many rows of the rank are left out at the beginning.
    """

    def __init__(self, n: int, rank: int = 0, world: int = 1, order: np.ndarray | None = None, start: int = 0) -> None:
        self.n, self.rank, self.world, self.order = n, rank, world, order
        self._rows = range(rank + start * world, -(-n // world) * world, world)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        for at in self._rows:
            row = at % self.n if self.order is None else int(self.order[at % self.n])
            yield row if at < self.n else -1 - row
