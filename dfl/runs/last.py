"""Keep ``last.ckpt`` at points from which a resumed run goes on exactly.

A run can go on exactly from where an optimizer step was just taken: no gradient is half summed up. `KeepLast` writes
there, after each validation, after each epoch, every few minutes, and when it is asked to (`save_soon`).

One such point needs care: the step after which validation runs. Lightning, resumed from there, leaves that validation
out, and so chooses another threshold and another best checkpoint. Here the checkpoint says instead that validation has
just begun. Weights do not change while it runs, so the same checkpoint is right at any time until it ends.
"""

import copy
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from dfl.distributed import largest, may_ask
from dfl.runs.checkpoint import refused


class KeepLast(Checkpoint):
    """Write ``last.ckpt`` after each validation and each epoch, every few minutes, and every few steps.

    All ranks write at the same step; rank zero's clock counts. On an exception, such as an unreadable image, a full GPU
    or an error in a detector, a single process writes what was there before the step of the exception.

    Args:
        dirpath: Folder of the file.
        filename: Its name, without ``.ckpt``.
        every_n_minutes: Time between two saves; 0 turns it off.
        every_n_steps: Optimizer steps between two saves; 0 turns it off.
    """

    def __init__(
        self,
        dirpath: str | None = None,
        filename: str = "last",
        every_n_minutes: float = 10.0,
        every_n_steps: int = 0,
    ) -> None:
        self.dirpath, self.filename = dirpath, filename
        self.every_n_minutes, self.every_n_steps = every_n_minutes, every_n_steps
        #: Step from which the same command would go on, and the newest one that was to be saved: a full disk may
        #: have refused it.
        self.saved_step = self.tried_step = 0
        self._due = False
        #: Whether the newest batch ended with an optimizer step, and which step that was.
        self._stepped, self._step = True, 0
        self._clock = 0.0
        #: Buffers as they were before the running step, and whether its optimizer has begun to change weights.
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._stepping = False
        #: The loops' state to be written instead of the current one.
        self._before_validation: dict[str, Any] | None = None

    @property
    def path(self) -> Path:
        """Where the checkpoint lies."""
        return Path(self.dirpath or ".") / f"{self.filename}.ckpt"

    def save_soon(self) -> None:
        """Ask for a checkpoint at the next point from which a run goes on exactly; all ranks must ask."""
        self._due = True

    def save_in_validation(self, trainer: pl.Trainer) -> None:
        """Write a checkpoint while validation runs: the resumed run begins that validation again."""
        if self._stepped:
            self._save(trainer)

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        """Agree on the folder."""
        folder = self.dirpath or str(Path(trainer.default_root_dir) / "checkpoints")
        self.dirpath = trainer.strategy.broadcast(folder)

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Start the clock; a run begins, or goes on, at a point that needs no saving."""
        self._clock, self._stepped = time.monotonic(), True
        self._step = self.saved_step = self.tried_step = trainer.global_step

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Keep the buffers: after an exception in this step they may hold statistics of its images."""
        if trainer.world_size == 1:
            self._buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        """From here on weights change, and the step cannot be undone."""
        self._stepping = True

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save if it is time to and the optimizer has just stepped."""
        self._buffers, self._stepping = [], False
        self._stepped = trainer.global_step != self._step
        self._step = trainer.global_step
        if self._stepped and self.every_n_steps and self._step % self.every_n_steps == 0:
            self._due = True
        if self.every_n_minutes and may_ask(trainer, trainer.fit_loop.epoch_loop.total_batch_idx):
            late = time.monotonic() - self._clock >= self.every_n_minutes * 60
            self._due |= bool(largest(trainer, int(late and trainer.is_global_zero)))
        loop: Any = trainer.fit_loop.epoch_loop
        self._before_validation = None
        if loop._should_check_val_fx(trainer.fit_loop._data_fetcher):
            self._before_validation = about_to_validate(trainer.fit_loop.state_dict())
        elif loop.batch_progress.is_last_batch:
            return  # the end of the epoch, which comes next, is exact
        if self._due and self._stepped:
            self._save(trainer)

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Validation is over: a checkpoint that is written from here on, the best one too, shall not repeat it."""
        self._before_validation = None
        # `about_to_validate` counted one batch more as begun
        forget_begun(trainer.fit_loop.epoch_loop.val_loop.batch_progress.total)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Save with what validation found; the end of the epoch comes right after the last one and saves itself."""
        if (
            trainer.state.fn == "fit"
            and not trainer.sanity_checking
            and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        ):
            self._due = True
            if self._stepped:
                self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Save; Lightning steps with whatever gradient there is at the end of an epoch, so nothing is half done."""
        self._save(trainer)

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        """Save the point before the step of the exception, unless its optimizer has begun to change weights."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.world_size > 1:
            return
        if self.saved_step == self._step or not self._stepped:
            return
        with deaf_to_children():
            self._save_before_exception(trainer)

    def _save_before_exception(self, trainer: pl.Trainer) -> None:
        if trainer.validating:
            self.save_in_validation(trainer)
        elif trainer.training:
            at: Any = trainer.fit_loop.epoch_loop.batch_progress.current
            within = at.ready > at.completed
            if not at.processed == at.completed > 0 or (within and self._stepping):
                return
            if within:
                for buffer, before in self._buffers:
                    buffer.data.copy_(before)
                forget_unfinished(trainer.fit_loop.epoch_loop)
            self._save(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Write that validation is about to run, where it is."""
        if self._before_validation is not None:
            checkpoint["loops"]["fit_loop"] = self._before_validation

    def _save(self, trainer: pl.Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:  # what was logged before this step is not logged again after a resume
            flush = getattr(getattr(logger, "experiment", None), "flush", None)
            if trainer.is_global_zero and (flush is not None or isinstance(logger, CSVLogger)):
                (flush or logger.save)()
        trainer.save_checkpoint(self.path, weights_only=False)
        self._due, self.tried_step, self._clock = False, trainer.global_step, time.monotonic()
        if not refused(trainer):
            self.saved_step = self.tried_step


@contextmanager
def deaf_to_children() -> Iterator[None]:
    """Let no death of another process break off what runs here.

    The pipe to a killed loader process breaks before its end is known. The broken pipe is the exception, and torch,
    told of the end a moment later, would raise another one in the middle of the save.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        yield
        return
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, handler)


def forget_unfinished(loop: Any) -> None:
    """Set the counters of a training loop to what was completed, as if the running batch had not begun."""
    steps = loop.automatic_optimization.optim_progress.optimizer
    for which in ("total", "current"):
        getattr(steps.zero_grad, which).completed = getattr(steps.step, which).completed
        for progress in (
            loop.batch_progress,
            steps.step,
            steps.zero_grad,
            loop.manual_optimization.optim_step_progress,
        ):
            forget_begun(getattr(progress, which))


def forget_begun(count: Any) -> None:
    """Set a counter to what was completed, as if nothing more had begun."""
    for begun in {"ready", "started", "processed"} & vars(count).keys():
        setattr(count, begun, count.completed)


def about_to_validate(loops: dict[str, Any]) -> dict[str, Any]:
    """Return the state of the fit loop as if its batch were over and its validation had just begun.

    Lightning, resumed from it, runs that validation from its start and goes on with what follows.
    """
    state = copy.deepcopy(loops)
    batches = state["epoch_loop.batch_progress"]
    validation = state["epoch_loop.val_loop.batch_progress"]
    before = {"total": validation["total"]["completed"], "current": 0}  # earlier validations of this epoch
    for count, done in before.items():
        batches[count]["completed"] = batches[count]["processed"]
        validation[count].update(ready=done + 1, started=done + 1, processed=done, completed=done)
    validation["is_last_batch"] = False
    return state
