"""What loggers show of a run beyond its curves: what the detector gets wrong, how fast it trains, its settings.

Everything is drawn between the steps, from the scores of the last evaluation; the images are read again from disk.
Only the first process draws. Settings are written at the start of a run; in TensorBoard they are a session of the
HPARAMS tab. The tab finds the metrics and settings by itself: a list of them, which TensorBoard can take too, counts
for all runs of a folder, and would hide what the first of them does not have.
"""

import math
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from torch.utils.tensorboard.summary import hparams

from dfl.errors import UserError
from dfl.evaluation import figures, matrices, plots
from dfl.evaluation.examples import Examples
from dfl.runs.settings import flat
from dfl.training.loggers import PICTURED, show
from dfl.training.progress import Speed

#: Beginnings of settings that runs are not compared by.
LEFT_OUT = ("name.", "checkpoint.", "last.", "data.val.", "data.test.", "data.predict.")


class TensorBoardInspect(pl.Callback):
    """Write figures, images per second and settings to TensorBoard and to the other loggers of a run.

    After each validation and test: ROC and precision-recall curves of all domains, and for each domain the histogram
    of its scores, the images with scores farthest from their label, the best and worst maps of detectors that give
    maps, and the confusion of classes of those that give class logits. Give the logger ``default_hp_metric=False``, or
    its own empty entry hides the settings.

    Args:
        k: Images shown per domain.
        every: Draw after the first validation of a training and then after each ``every``-th.
        window: Steps over which images per second are counted.
        projector: Removed; must be 0.

    Raises:
        UserError: For a ``projector``.
    """

    def __init__(self, k: int = 16, every: int = 1, window: int = 50, projector: int = 0) -> None:
        if projector:
            raise UserError("TensorBoardInspect no longer has projector, the PROJECTOR tab: take it out of the config")
        self.k, self.every, self.window = k, every, window
        self._validations = 0
        self._opened: list[Logger] = []
        self._speed = Speed()

    # settings

    def _open(self, trainer: pl.Trainer, module: Any) -> None:
        """Write the settings."""
        for logger in of_first_process(trainer):
            if logger in self._opened:
                continue
            self._opened.append(logger)
            if isinstance(logger, TensorBoardLogger):
                _, start, _ = hparams(settings(trainer, module), {})
                logger.experiment.file_writer.add_summary(start)
            else:
                logger.log_hyperparams(settings(trainer, module))

    def _close(self, trainer: pl.Trainer, *_: Any) -> None:
        """Mark the run as complete."""
        for logger in of_first_process(trainer):
            if isinstance(logger, TensorBoardLogger):
                _, _, end = hparams({}, {})
                logger.experiment.file_writer.add_summary(end)
                logger.experiment.flush()

    on_fit_start = on_test_start = _open  # type: ignore[assignment]
    on_fit_end = _close  # type: ignore[assignment]

    # speed

    def on_train_epoch_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Start the clock anew."""
        self._speed.stop()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count images; nothing here waits for the device."""
        self._speed.add(len(batch["image"]))
        if self._speed.steps >= self.window:
            self._log_speed(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Log what the last window has."""
        self._log_speed(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Log what the last window has, and stop the clock: validation is not training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._log_speed(trainer)
            self._speed.stop()

    def _log_speed(self, trainer: pl.Trainer) -> None:
        rate = self._speed.take()
        if rate is not None:
            for logger in of_first_process(trainer):
                logger.log_metrics({"train/images_per_second": rate * trainer.world_size}, step(trainer))

    # pictures

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Draw the validation."""
        if trainer.sanity_checking:
            return
        self._validations += 1
        if trainer.state.fn != "fit" or (self._validations - 1) % self.every == 0:
            self._draw(trainer, module, "val")
        self._speed.stop()

    def on_test_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Draw the test."""
        self._draw(trainer, module, "test")
        self._close(trainer)

    def _draw(self, trainer: pl.Trainer, module: Any, split: str) -> None:
        pictured = [one for one in of_first_process(trainer) if isinstance(one, PICTURED)]
        if not pictured:
            return
        metrics, threshold = module.metrics[split], float(module.threshold)
        rows = {domain: metrics.rows(domain) for domain in metrics}
        examples, classes = Examples.of(trainer, module, split), metrics.classes()
        drawn = {"roc": figures.roc(rows), "pr": figures.pr(rows)}
        for domain, own in rows.items():
            drawn[f"{domain}/scores"] = figures.scores({domain: own}, threshold)
            if wrong := examples.most_wrong(domain, self.k):
                drawn[f"{domain}/most_wrong"] = figures.wrong_grid(wrong)
            if maps := examples.maps(domain, max(1, self.k // 4)) if self.k else []:
                drawn[f"{domain}/maps"] = figures.map_grid(maps)
            for what, by_domain in classes.items():
                if domain in by_domain:
                    confusion = {domain: by_domain[domain].confusion().numpy()}
                    name = "classes" if what == "class" else what
                    drawn[f"{domain}/{name}"] = matrices.confusion(confusion, by_domain[domain].names)
        for name, figure in drawn.items():
            pixels = plots.to_array(figure)
            for logger in pictured:
                show(logger, f"{split}/{name}", pixels, step(trainer))
        for logger in pictured:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()


def of_first_process(trainer: pl.Trainer) -> list[Logger]:
    """Return the loggers, in the first process only."""
    return list(trainer.loggers) if trainer.is_global_zero else []


def step(trainer: pl.Trainer) -> int:
    """Return the step that Lightning's own curves have; `global_step` runs ahead where there are two optimizers."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def settings(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float | str]:
    """Return what a run was set to, flat, as the HPARAMS tab takes it.

    The configuration where the command line made one, else the detector's hyper-parameters.
    """
    config = getattr(trainer, "run_config", None) or {"model": {"class_path": type(module).__name__, **module.hparams}}
    shown: dict[str, float | str] = {}
    for key, value in flat(config).items():
        if value is not None and not f"{key}.".startswith(LEFT_OUT):
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            shown[key] = value if number else str(value)
    return shown
