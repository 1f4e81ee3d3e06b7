"""What the processes of a run must decide together."""

import pytorch_lightning as pl
import torch

#: In a run of several processes they ask each other only at every so manieth batch, since asking costs time.
EVERY = 10


def largest(trainer: pl.Trainer, value: int) -> int:
    """Return the largest value of all ranks; costs nothing in a single process."""
    if trainer.world_size == 1:
        return value
    mine = torch.tensor(value, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(mine, reduce_op="max"))


def may_ask(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether all ranks ask at this batch; a single process, or one on the CPU, asks at each."""
    return trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu" or batch_idx % EVERY == EVERY - 1
