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


class Speed:
    """Images per second of a window of steps, by the clock of the host.

    A device may lag behind the host by a few steps; over a window this does not matter.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.stop()

    def stop(self) -> None:
        """Forget the window; the next step starts the clock at its end, since it waits for the loader to fill."""
        self._start: float | None = None
        self.steps = self._images = 0

    def start(self) -> None:
        """Begin a window now."""
        self._start, self.steps, self._images = self._clock(), 0, 0

    def add(self, images: int) -> None:
        """Count a step that has just ended."""
        if self._start is None:
            self.start()
        else:
            self.steps, self._images = self.steps + 1, self._images + images

    def take(self) -> float | None:
        """Return images per second and begin a window; None if no step was counted."""
        if self._start is None or not self.steps:
            return None
        rate = self._images / max(self._clock() - self._start, 1e-9)
        self.start()
        return rate


class Pace:
    """When lines are due in a pass over data, and how long the rest of it takes; times in seconds.

    Args:
        now: Time.
        done: Share of the pass that was done before, by a run that is resumed.
    """

    def __init__(self, now: float, done: float = 0.0) -> None:
        self.start = self.printed = now
        self.done_before = done

    def due(self, now: float) -> bool:
        """Return whether it is time for a line."""
        return now - self.printed >= min(max(LEAST, SHARE * (now - self.start)), MOST)

    def line(self, now: float, done: float) -> str:
        """Return the time left, given the share that is done: NaN where the pass has no end."""
        self.printed = now
        if not done > self.done_before:
            return ""
        return f", {duration((now - self.start) * (1 - done) / (done - self.done_before))} left"


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
        self._speed = Speed(clock)

    def disable(self) -> None:
        """Print nothing, as on ranks other than zero."""
        self._enabled = False

    def _count(self, pace: Pace, batch: Any, trainer: pl.Trainer, done: float, words: Callable[[], str]) -> None:
        """Count the images of a batch; print a line if one is due."""
        images = len(batch["image"]) if isinstance(batch, dict) and "image" in batch else 0
        self._speed.add(trainer.world_size * images)
        now = self._clock()
        if self._enabled and pace.due(now):
            print(f"{words()}, {self._speed.take() or 0:.0f} images/s{pace.line(now, done)}", flush=True)

    # training

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Start the clock at the first batch, of which a resumed run may have had others before."""
        if self._training is None:
            self._training = Pace(self._clock(), _trained(trainer, batch_idx))
            self._speed.start()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Print the step, the epoch, the loss and what is watched."""
        assert self._training is not None
        done = _trained(trainer, batch_idx + 1)
        self._count(self._training, batch, trainer, done, lambda: ", ".join(_step(trainer, module, outputs)))

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        """What is evaluated from here on is no part of training."""
        self._training = None

    # validation, test, prediction

    def _begin(self, *_: Any) -> None:
        self._evaluation, self._batches = Pace(self._clock()), 0
        self._speed.start()

    def _batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self._batches += 1
        name = "validation" if trainer.validating or trainer.training else trainer.state.stage.value
        counts = {"test": trainer.num_test_batches, "predict": trainer.num_predict_batches}
        total = sum(counts.get(name, trainer.num_val_batches))
        share = self._batches / total if total else math.nan
        of = f" of {total}" if math.isfinite(total) else ""
        self._count(self._evaluation, batch, trainer, share, lambda: f"{name}: batch {self._batches}{of}")

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Let the speed of training be that of its steps alone."""
        if self._training is not None:
            self._speed.start()
            if self._evaluation.printed > self._evaluation.start:  # the next line is as far from that one
                self._training.printed = self._evaluation.printed

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
