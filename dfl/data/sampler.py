"""Which sample comes when: the same answer whether or not a run was cut off.

`TrainSampler` asks the trainer where it is each time an epoch's iterator is made. The order of an epoch is a
function of (seed, epoch) alone, so a resumed run starts at the right offset of the same order, and needs no state
in the checkpoint, whatever the number of workers. `EvalSampler` gives every rank the same number of rows, and marks
the ones that fill up as padding, so that collective calls stay in step and every sample counts exactly once.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch.utils.data import Sampler

from dfl.errors import UserError

#: Gives the order of an epoch: int64 rows of the data set.
Order = Callable[[int], np.ndarray]


def shuffled(n: int, seed: int) -> Order:
    """Every row once, in an order drawn for each epoch."""
    return lambda epoch: np.random.default_rng([seed, epoch]).permutation(n)


def balanced(label: np.ndarray, seed: int) -> Order:
    """As many rows as there are, half of them real and half fake: the rarer class repeats, the other is thinned.

    Within an epoch a row of a class comes again only when all of that class were there.
    """
    classes = [np.flatnonzero(label == c) for c in (0, 1)]
    n = len(label)
    if not all(map(len, classes)):
        raise UserError(f"balance=sampling needs both classes; all {n} training images are of one")

    def order(epoch: int) -> np.ndarray:
        rng = np.random.default_rng([seed, epoch])
        drawn = []
        for rows, count in zip(classes, (n - n // 2, n // 2), strict=True):
            rounds = [rng.permutation(rows) for _ in range(-(-count // len(rows)))]
            drawn.append(np.concatenate(rounds)[:count])
        return rng.permutation(np.concatenate(drawn))

    return order


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
    """

    def __init__(self, n: int, rank: int = 0, world: int = 1) -> None:
        self.n, self.rank, self.world = n, rank, world

    def __len__(self) -> int:
        return -(-self.n // self.world)

    def __iter__(self) -> Iterator[int]:
        for row in range(self.rank, len(self) * self.world, self.world):
            yield row if row < self.n else -1 - row % self.n
