"""Progress in a log file: plain lines, where no terminal can show a bar (nohup, SLURM, ``> log``).

    step 120 of 560, epoch 3 of 14, loss 0.4123, val/mean/auroc 0.9510, 310 images/s, 2 min left
    validation: batch 40 of 120, 520 images/s, 12 s left

A line is due after 10 s, later after a twentieth of the time so far, and after 5 minutes at most. Nothing is read from
the device in between: the loss of a step is fetched when a line is printed.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ProgressBar

#: Seconds between two lines: at least, at most, and as a share of the time so far.
LEAST, MOST, SHARE = 10.0, 300.0, 0.05


class Pace:
    """Time and images of one pass over data.

    Args:
        now: Seconds.
        done: Share of the pass that was done before, by a run that is resumed.
    """

    def __init__(self, now: float, done: float = 0.0) -> None:
        self.start = self.printed = now
        self.done_before = done
        #: Since the last line: images, and seconds that something else took.
        self.images, self.elsewhere = 0, 0.0

    def due(self, now: float) -> bool:
        """Return whether it is time for a line."""
        return now - self.printed >= min(max(LEAST, SHARE * (now - self.start)), MOST)

    def line(self, now: float, done: float) -> str:
        """Return speed and time left, and begin to count for the next line.

        Args:
            now: Seconds.
            done: Share of the pass that is done; NaN where the pass has no end.
        """
        words = [f"{self.images / max(now - self.printed - self.elsewhere, 1e-9):.0f} images/s"]
        if done > self.done_before:
            words.append(f"{duration((now - self.start) * (1 - done) / (done - self.done_before))} left")
        self.printed, self.images, self.elsewhere = now, 0, 0.0
        return ", ".join(words)


class ProgressLines(ProgressBar):
    """Print a line now and then, on rank zero.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._enabled = clock, True
        self._training: Pace | None = None
        self._evaluation, self._batches = Pace(0.0), 0

    def disable(self) -> None:
        """Print nothing, as on ranks other than zero."""
        self._enabled = False

    def _count(self, pace: Pace, batch: Any, trainer: pl.Trainer, done: float, words: Callable[[], str]) -> None:
        """Count the images of a batch; print a line if one is due."""
        pace.images += trainer.world_size * (len(batch["image"]) if isinstance(batch, dict) and "image" in batch else 0)
        now = self._clock()
        if self._enabled and pace.due(now):
            print(f"{words()}, {pace.line(now, done)}", flush=True)

    # training

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock at the first batch, of which a resumed run may have had others before."""
        if self._training is None:
            self._training = Pace(self._clock(), _trained(trainer, batch_idx))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the step, the epoch, the loss and what is watched."""
        assert self._training is not None
        done = _trained(trainer, batch_idx + 1)
        self._count(self._training, batch, trainer, done, lambda: ", ".join(_step(trainer, pl_module, outputs)))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is evaluated from here on is no part of training."""
        self._training = None

    # validation, test, prediction

    def _begin(self, *_: Any) -> None:
        self._evaluation, self._batches = Pace(self._clock()), 0

    def _batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self._batches += 1
        name = "validation" if trainer.validating or trainer.training else trainer.state.stage.value
        counts = {"test": trainer.num_test_batches, "predict": trainer.num_predict_batches}
        total = sum(counts.get(name, trainer.num_val_batches))
        share = self._batches / total if total else math.nan
        of = f" of {total}" if math.isfinite(total) else ""
        self._count(self._evaluation, batch, trainer, share, lambda: f"{name}: batch {self._batches}{of}")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the time of a validation from that of training."""
        if (training := self._training) is None:
            return
        if self._evaluation.printed > self._evaluation.start:  # the next line is as far from that one
            training.printed, training.images, training.elsewhere = self._evaluation.printed, 0, 0.0
        training.elsewhere += self._clock() - max(self._evaluation.start, training.printed)

    on_validation_start = on_test_start = on_predict_start = _begin  # type: ignore[assignment]
    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _batch_end  # type: ignore[assignment]


def _trained(trainer: pl.Trainer, batches: int) -> float:
    """Return the share of the run that is done, after some batches of this epoch; NaN for a run without an end."""
    epochs = trainer.max_epochs or -1
    shares = [(trainer.current_epoch + batches / trainer.num_training_batches) / epochs] if epochs > 0 else []
    shares += [trainer.global_step / trainer.max_steps] if trainer.max_steps > 0 else []
    return min(1.0, max(shares, default=math.nan))


def _step(trainer: Any, module: pl.LightningModule, outputs: Any) -> Iterator[str]:
    epochs, steps = trainer.max_epochs or -1, trainer.estimated_stepping_batches
    yield f"step {trainer.global_step}" + (f" of {steps}" if math.isfinite(steps) else "")
    yield f"epoch {trainer.current_epoch + 1}" + (f" of {epochs}" if epochs > 0 else "")
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    if loss is None:  # of a detector that steps its optimizer by itself
        loss = getattr(module, "losses", {}).get("loss")
    if loss is not None:
        yield f"loss {float(loss):.4f}"
    for callback in trainer.callbacks:
        name = getattr(callback, "monitor", None) if isinstance(callback, Checkpoint) else None
        if name in trainer.callback_metrics:
            yield f"{name} {float(trainer.callback_metrics[name]):.4f}"


def duration(seconds: float) -> str:
    """Return a time in its two largest units: ``40 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
