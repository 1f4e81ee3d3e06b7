"""Averages of the weights along a run: validation, ``best.ckpt`` and the end have them; training goes on without.

    EMA    after each step:   average <- decay * average + (1 - decay) * weights      (Polyak and Juditsky 1992)
    SWA    after each epoch:  the plain mean of the weights so far                      (Izmailov et al., UAI 2018)

What is averaged: the trainable parameters, and the statistics of batch normalisation, which SWA's authors compute anew
in one more pass. Frozen weights are no part of it, so the average holds nothing twice.

Lightning's callbacks of the same purpose are refused (LOG, 2026-11-29): what EMA's saves has no threshold, since it
averages that too, from NaN; a run with SWA's, resumed, has other losses.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from dfl.distributed import is_sharded
from dfl.errors import UserError

#: Key of a checkpoint, whose ``state_dict`` has the averages: the weights that training goes on with.
KEY = "averaged"
STATISTICS = ("running_mean", "running_var")


class Averaged(pl.Callback, ABC):
    """Keep an average of the weights, and show it wherever the network is not trained.

    Args:
        start: First epoch that counts, from 0; before it there is no average.

    Raises:
        UserError: In ``fit``, where there are no steps to average over, or weights that cannot be averaged here.
    """

    def __init__(self, start: int = 0) -> None:
        if start < 0:
            raise UserError(f"{type(self).__name__}: start is {start} and must be 0 or more, an epoch")
        self.start = start
        #: How many states of the weights the average is of.
        self.count = 0
        #: By name what the network does not hold now: the average, or the weights while it shows the average.
        self._other: dict[str, Tensor] = {}
        self._shows_average = False
        self._step = 0
        self._names: set[str] = set()

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether the weights after this step count: by default they do."""
        return True

    @abstractmethod
    def share(self) -> float:
        """Return what of the next average is of the newest weights, in [0, 1]."""

    # while training

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        """Note what is trained when the run begins."""
        trained = {name for name, one in module.named_parameters() if one.requires_grad}
        self._names = trained | {name for name, _ in module.named_buffers() if name.endswith(STATISTICS)}

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Refuse what cannot be averaged; take what a checkpoint gave to where the network is."""
        name = type(self).__name__
        if getattr(module, "one_pass", False):
            raise UserError(f"{name} averages over steps, and {type(module).__name__} takes none: leave it out")
        if is_sharded(module):
            raise UserError(f"{name} does not go with FullyShardStrategy, which cuts all weights: leave one out")
        for key, weight in self._averaged(module):
            if weight.dtype not in (torch.float32, torch.float64):
                raise UserError(f"{name}: {key} is {weight.dtype}, too coarse for an average: take mixed precision")
            if key in self._other:
                self._other[key] = self._other[key].to(weight.device)

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Begin to count steps."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the weights into the average, if the optimizer has stepped and they count."""
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not stepped or trainer.current_epoch < self.start or not self.due(trainer):
            return
        for key, weight in self._averaged(module):
            if self.count:
                self._other[key].lerp_(weight, self.share())
            else:
                self._other[key] = weight.clone()
        self.count += 1

    # what the network shows

    def on_validation_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Validate the average; what is drawn after a validation is of it too."""
        if trainer.state.fn == "fit":
            self._show(module, average=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Go on with the weights."""
        self._show(module, average=False)

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Go on with the weights."""
        self._show(module, average=False)

    def on_fit_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Leave the average in the network, of a run too that was over when it was resumed."""
        self._show(module, average=True)

    def _show(self, module: Any, average: bool) -> None:
        if not self.count or average == self._shows_average:
            return
        for key, weight in self._averaged(module):
            held = weight.clone()
            weight.copy_(self._other[key])
            self._other[key].copy_(held)
        self._shows_average = average

    def _averaged(self, module: Any) -> Iterator[tuple[str, Tensor]]:
        """Yield what is averaged, without its gradient."""
        for values in (module.named_parameters(), module.named_buffers()):
            yield from ((name, value.data) for name, value in values if name in self._names)

    # checkpoints

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Put the average in place of the weights, and the weights beside it."""
        if not self.count:
            return
        own = dict(self._averaged(module))
        weights, state = self._other, checkpoint["state_dict"]
        if not self._shows_average:
            weights, names = own, {value.data_ptr(): name for name, value in own.items() if value.numel()}
            for key, value in state.items():  # tied weights have several names
                if name := names.get(value.data_ptr()):
                    state[key] = self._other[name]
        checkpoint[KEY] = {"count": self.count, "weights": dict(weights)}

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Take up both; the network holds the average by now."""
        if KEY not in checkpoint:
            return
        self.count = checkpoint[KEY]["count"]
        for key, value in self._averaged(module):
            self._other[key] = value.clone()
            value.copy_(checkpoint[KEY]["weights"][key])


class EMA(Averaged):
    """The exponential moving average of the weights, with every step.

    Args:
        decay: What stays of the average at each step; about 1 / (1 - decay) steps count.
        start: First epoch that counts, from 0; before it there is no average.

    Raises:
        UserError: For a decay with which there is no average.
    """

    def __init__(self, decay: float = 0.999, start: int = 0) -> None:
        super().__init__(start)
        if not 0 < decay < 1:
            raise UserError(f"EMA: decay is {decay} and must lie between 0 and 1")
        self.decay = decay

    def share(self) -> float:
        """Return what of the next average is of the newest weights."""
        return 1 - self.decay


class SWA(Averaged):
    """The mean of the weights at the ends of epochs; with a learning rate that stays high, as its paper has it.

    Args:
        start: First epoch that counts, from 0; before it there is no average.
    """

    def due(self, trainer: pl.Trainer) -> bool:
        """Whether the weights after this step count: those of an epoch's last one, before its validation."""
        return trainer.fit_loop.epoch_loop.batch_progress.is_last_batch

    def share(self) -> float:
        """Return what of the next average is of the newest weights."""
        return 1 / (self.count + 1)
