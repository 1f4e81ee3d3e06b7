"""What TensorBoard shows of a run beyond its curves: what the detector gets wrong, how fast it trains, how it was set.

Everything is drawn between the steps, from scores that are there anyway; the images are read again from disk, so
memory does not grow. Only the first process draws. Settings are written at the start of a run, as a session of the
HPARAMS tab. The tab is left to find the metrics and settings by itself: a list of them, which TensorBoard can take
too, counts for all runs of a folder, and would hide what the first of them does not have.
"""

import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.tensorboard.summary import hparams

from dfl.distributed import is_sharded
from dfl.errors import visible
from dfl.evaluation import figures

#: Settings that are not what a run is compared by.
UNTOLD = ("name.", "checkpoint.", "last.", "data.val.", "data.test.", "data.predict.")
#: Side of the pictures in the projector, in pixels.
SPRITE = 32


class OwnVersion(TensorBoardLogger):
    """Lightning's logger, in a version folder that is no other process's: two that start at once would take one."""

    def _get_next_version(self) -> int:
        number, folder = int(super()._get_next_version()), Path(self.root_dir)
        if getattr(rank_zero_only, "rank", 0):  # is told by the first
            return number
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                (folder / f"version_{number}").mkdir()
                return number
            except FileExistsError:
                number += 1


class TensorBoardInspect(pl.Callback):
    """Write figures, images per second, settings and features to TensorBoard; idle without its logger.

    After each validation and test: ROC and precision-recall curves of all domains, and for each domain the histogram
    of its scores, the images with scores farthest from their label, the best and worst maps of detectors that give
    maps, and the confusion of classes of those that tell classes. Give the logger ``default_hp_metric=False``, or its
    own empty entry shadows the settings.

    Args:
        k: Images shown per domain.
        every: Draw after every so manieth validation of a training.
        window: Steps over which images per second are counted.
        projector: How many images to put in the PROJECTOR tab, by the detector's ``feature``, after training and
            test; 0 for none.
    """

    def __init__(self, k: int = 16, every: int = 1, window: int = 50, projector: int = 0) -> None:
        self.k, self.every, self.window, self.projector = k, every, window, projector
        self._seen = 0
        self._session: TensorBoardLogger | None = None
        self._speed = Speed()

    # settings

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the settings."""
        self._open(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the settings."""
        self._open(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Mark the run as complete."""
        self._close(trainer)

    def _open(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        logger = tensorboard(trainer)
        if logger is None or logger is self._session:
            return
        self._session = logger
        _, start, _ = hparams(settings(trainer, pl_module), {})
        logger.experiment.file_writer.add_summary(start)

    def _close(self, trainer: pl.Trainer) -> None:
        if (logger := tensorboard(trainer)) is not None:
            _, _, end = hparams({}, {})
            logger.experiment.file_writer.add_summary(end)
            logger.experiment.flush()

    # speed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock anew."""
        self._speed.stop()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images; nothing here waits for the device."""
        self._speed.add(len(batch["image"]))
        if self._speed.steps >= self.window:
            self._log_speed(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what the last window has."""
        self._log_speed(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what the last window has, and stop the clock: validation is not training."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._log_speed(trainer)
            self._speed.stop()

    def _log_speed(self, trainer: pl.Trainer) -> None:
        rate = self._speed.take()
        if rate is not None and (logger := tensorboard(trainer)) is not None:
            logger.experiment.add_scalar("train/images_per_second", rate * trainer.world_size, step(trainer))

    # pictures

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the validation, at every ``every``-th time in training."""
        if trainer.sanity_checking:
            return
        self._seen += 1
        if trainer.state.fn != "fit" or (self._seen - 1) % self.every == 0:
            self._draw(trainer, pl_module, "val")
        self._speed.stop()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the test."""
        self._draw(trainer, pl_module, "test")
        self._project(trainer, pl_module, "test")
        self._close(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Store features of validation images."""
        self._project(trainer, pl_module, "val")

    def _draw(self, trainer: pl.Trainer, module: Any, split: str) -> None:
        logger = tensorboard(trainer)
        if logger is None:
            return
        if not figures.MATPLOTLIB:
            warnings.warn(f"TensorBoard gets no figures: {figures.MISSING}", stacklevel=2)
            return
        rows = {domain: metric.rows() for domain, metric in module.metrics[split].items()}
        threshold, sets = float(module.threshold), data_sets(trainer, split)
        drawn = {"roc": figures.roc(rows), "pr": figures.pr(rows)}
        for domain, own in rows.items():
            drawn[f"{domain}/scores"] = figures.histogram({domain: own}, threshold)
            if self.k > 0 and domain in sets and len(own["index"]):
                drawn[f"{domain}/most_wrong"] = figures.image_grid(*figures.wrong_images(sets[domain], own, self.k))
            if shown := self._maps(trainer, module, split, domain, own):
                drawn[f"{domain}/maps"] = figures.map_grid(shown)
            classes = getattr(module, "classes", {}).get(split, {}).get(domain)
            if classes is not None and len(classes.rows()["index"]):
                drawn[f"{domain}/classes"] = figures.confusion({domain: classes.confusion()}, classes.names)
        for name, figure in drawn.items():
            pixels = figures.to_array(figure)
            logger.experiment.add_image(f"{split}/{name}", pixels, step(trainer), dataformats="HWC")
        logger.experiment.flush()

    def _maps(self, trainer: pl.Trainer, module: Any, split: str, domain: str, own: figures.Rows) -> list[Any]:
        """Return the best and worst maps of a domain; none where the detector gives no maps, or no fake has a mask."""
        maps, data = getattr(module, "maps", {}).get(split, {}).get(domain), data_sets(trainer, split).get(domain)
        if maps is None or data is None or self.k <= 0:
            return []
        with trainer.precision_plugin.forward_context():
            return figures.map_examples(module, data, maps.rows(), own, max(1, self.k // 4))

    # features

    def _project(self, trainer: pl.Trainer, module: Any, split: str) -> None:
        logger = tensorboard(trainer)
        if logger is None or self.projector <= 0 or is_sharded(module):
            return
        points, sets = Points(), data_sets(trainer, split)
        with trainer.precision_plugin.forward_context():
            for domain, data in sets.items():
                own = module.metrics[split][domain].rows()
                for place in spread(len(own["index"]), self.projector // len(sets)):
                    item = data[int(own["index"][place])]
                    out = figures.ask(module, item)
                    if "feature" in out:
                        points.add(out["feature"][0], item, domain, float(own["score"][place]))
        if points.features:
            points.write(logger, split, step(trainer))
        else:
            warnings.warn(f"nothing for the projector: {type(module).__name__} gives no feature", stacklevel=2)


class Speed:
    """Images per second of a window of steps, by the clock of the host.

    A device may lag behind the host by a few steps; over a window this does not matter. The first step after a stop
    only starts the clock, since it waits for the loader to fill.
    """

    def __init__(self) -> None:
        self.stop()

    def stop(self) -> None:
        """Forget the window."""
        self._start: float | None = None
        self.steps = self._images = 0

    def add(self, images: int) -> None:
        """Count a step that has just ended."""
        if self._start is None:
            self._start = time.perf_counter()
        else:
            self.steps, self._images = self.steps + 1, self._images + images

    def take(self) -> float | None:
        """Return images per second and start a new window; None if no step was counted."""
        if self._start is None or not self.steps:
            return None
        now = time.perf_counter()
        rate = self._images / max(now - self._start, 1e-9)
        self._start, self.steps, self._images = now, 0, 0
        return rate


class Points:
    """Features and what is known of their images, for the PROJECTOR tab."""

    def __init__(self) -> None:
        self.features: list[Tensor] = []
        self._notes: list[list[str]] = []
        self._images: list[Tensor] = []

    def add(self, feature: Tensor, item: Mapping[str, Any], domain: str, score: float) -> None:
        """Add an image with its feature (D,)."""
        self.features.append(feature.float().flatten().cpu())
        self._notes.append(
            [domain, ("real", "fake")[int(item["label"])], f"{score:.4f}", visible(Path(item["path"]).name)]
        )
        self._images.append(interpolate(item["image"][None].float() / 255, (SPRITE, SPRITE), mode="area")[0])

    def write(self, logger: TensorBoardLogger, split: str, global_step: int) -> None:
        """Write them in the logger's folder."""
        logger.experiment.add_embedding(
            torch.stack(self.features),
            self._notes,
            torch.stack(self._images),
            global_step=global_step,
            tag=split,
            metadata_header=["domain", "label", "score", "file"],
        )


def tensorboard(trainer: pl.Trainer) -> TensorBoardLogger | None:
    """Return the TensorBoard logger, in the first process only."""
    loggers = (one for one in trainer.loggers if isinstance(one, TensorBoardLogger))
    return next(loggers, None) if trainer.is_global_zero else None


def data_sets(trainer: pl.Trainer, split: str) -> Mapping[str, Any]:
    """Return the data sets of a split by domain; none where loaders came without a data module."""
    return getattr(getattr(trainer, "datamodule", None), "sets", {}).get(split, {})


def step(trainer: pl.Trainer) -> int:
    """Return the step that Lightning's own curves have; `global_step` runs ahead where there are two optimizers."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def spread(n: int, k: int) -> list[int]:
    """Return at most k places in n, evenly spread."""
    return sorted({i * n // k for i in range(k)}) if n else []


def settings(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float | str]:
    """Return what a run was set to, flat, as the HPARAMS tab takes it.

    The configuration where the command line made one, else the detector's hyper-parameters.
    """
    config = getattr(trainer, "run_config", None) or {"model": {"class_path": type(module).__name__, **module.hparams}}
    flat: dict[str, float | str] = {}
    for key, value in _flat(config):
        if value is not None and not f"{key}.".startswith(UNTOLD):
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            flat[key] = value if number else str(value)
    return flat


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """Return (dotted name, value) pairs; a class's arguments stand directly under it."""
    if not isinstance(value, Mapping):
        return [(name.removesuffix(".class_path"), value)]
    pairs = [(name if key == "init_args" else f"{name}.{key}" if name else str(key), v) for key, v in value.items()]
    return [pair for key, inner in pairs for pair in _flat(inner, key)]
