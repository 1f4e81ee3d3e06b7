"""What the processes of a run decide together."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import nn
from torch.distributed.tensor import DTensor

#: Ranks on GPUs ask each other at every tenth chance, since asking makes them wait.
EVERY = 10


def largest(trainer: pl.Trainer, value: int) -> int:
    """Return the largest value of all ranks; costs nothing in a single process."""
    if trainer.world_size == 1:
        return value
    mine = torch.tensor(value, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(mine, reduce_op="max"))


@rank_zero_only
def say(line: str) -> None:
    """Print a line of our own among Lightning's, once for all ranks."""
    print(f"dfl: {line}", flush=True)


def is_sharded(module: nn.Module) -> bool:
    """Return whether weights are sharded (`FullyShardStrategy`), so that one rank alone cannot run the network."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def may_ask(trainer: pl.Trainer, count: int) -> bool:
    """Return whether all ranks ask now; a single process, or ranks on CPUs, ask each time.

    Args:
        trainer: Tells how many ranks there are, and where.
        count: How often this could have been asked, the same on all ranks; it goes on over epochs.
    """
    return trainer.world_size == 1 or trainer.strategy.root_device.type == "cpu" or count % EVERY == 0
