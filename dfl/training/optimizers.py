"""Schedules and optimizers that torch does not have."""

import math
from typing import Any, Literal

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from dfl.errors import UserError


class WarmupCosine(LRScheduler):
    """A linear warm-up from zero, then a cosine (or a line) back to zero, step by step over the whole run.

    The number of steps is unknown where the schedule is configured; the detector sets it by ``prepare``.

    Args:
        optimizer: The optimizer.
        warmup: Share of all steps in which the learning rate rises.
        shape: Of the fall.
    """

    def __init__(
        self, optimizer: Optimizer, warmup: float = 0.1, shape: Literal["cosine", "linear"] = "cosine"
    ) -> None:
        self.warmup, self.shape, self.total_steps = warmup, shape, 1
        super().__init__(optimizer)

    def prepare(self, total_steps: int) -> None:
        """Set the number of optimizer steps of the run, before the first one."""
        self.total_steps = total_steps
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the schedule of a run; its length stays what it was; a warning says so if the run is longer now."""
        planned = self.total_steps
        super().load_state_dict(state_dict)
        if planned != self.total_steps:
            rank_zero_warn(
                f"the learning rate follows the {self.total_steps} steps that the run began with, not {planned}: "
                "after them it is 0; start a new run to train longer"
            )

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Return the learning rate of each group for the step that comes next."""
        rise = max(1, round(self.warmup * self.total_steps))
        step = self.last_epoch + 1
        if step <= rise:
            factor = step / rise
        else:
            share = min(1.0, (step - rise) / max(1, self.total_steps - rise + 1))
            factor = 1 - share if self.shape == "linear" else 0.5 * (1 + math.cos(math.pi * share))
        return [float(base) * factor for base in self.base_lrs]


def total_steps(trainer: pl.Trainer) -> int:
    """Return the optimizer steps of the whole run.

    Lightning's own estimate would make the loader's iterator before it knows where a resumed run is.

    Raises:
        UserError: If the run has no end.
    """
    data = getattr(trainer, "datamodule", None)
    if data is None or not hasattr(data, "train_steps"):
        return int(trainer.estimated_stepping_batches)
    epochs, most = trainer.max_epochs, trainer.max_steps
    if epochs is None or epochs < 0:
        if most <= 0:
            raise UserError("WarmupCosine needs the length of the run: set trainer.max_epochs or trainer.max_steps")
        return most
    steps = math.ceil(data.train_steps() / trainer.accumulate_grad_batches) * epochs
    return min(steps, most) if most > 0 else steps
