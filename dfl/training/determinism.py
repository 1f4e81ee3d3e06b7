"""Randomness that needs no saving: every training step seeds itself from where it is.

Lightning saves no random state, so dropout after a resume would differ. Here the state before each step is a function
of (seed, rank, epoch, batch): a resumed run draws what the uncut one would have drawn, whatever validation, another
number of workers, or a restart did in between.
"""

import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch


class KeyedRandomness(pl.Callback):
    """Seed torch (all devices), NumPy and Python before each training step.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Seed for this step."""
        key = np.random.SeedSequence([self.seed, trainer.global_rank, trainer.current_epoch, batch_idx])
        a, b = key.generate_state(2, np.uint64)
        # torch.manual_seed formats a stack trace each time on a CPU, which costs more than all else here
        seed = torch.default_generator.manual_seed if module.device.type == "cpu" else torch.manual_seed
        seed(int(a) >> 1)
        np.random.seed(int(b) & 0xFFFFFFFF)  # noqa: NPY002  (libraries that draw from the global state)
        random.seed(int(b))
