"""The callbacks that each verb has by itself."""

import sys
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LambdaCallback, LearningRateMonitor, RichModelSummary, RichProgressBar

from dfl.cli.arguments import Plan
from dfl.evaluation.predictions import PredictionWriter
from dfl.evaluation.report import Report
from dfl.runs.init_from import StartFrom
from dfl.training import FiniteLoss, KeyedRandomness, Monitored, Preemption, SameRun
from dfl.training.tensorboard import TensorBoardInspect

Callbacks = list[pl.Callback]


def callbacks(verb: str, run: Any, plan: Plan, begin: Callable[[pl.Trainer, pl.LightningModule], None]) -> Callbacks:
    """Return the callbacks of every run, without those that a flag of the trainer turns off or a config brings.

    Args:
        verb: Of the command.
        run: Its settings, with classes built.
        plan: What the command asks for.
        begin: Called when training begins.
    """
    trainer = run.trainer
    wanted: list[pl.Callback] = []
    if trainer.enable_checkpointing is not False:
        wanted += [run.checkpoint, run.last]  # idle outside fit, but Lightning puts in others where they lack
    if verb == "fit":
        wanted += [Monitored(plan.gives_a("mode")), SameRun(), KeyedRandomness(run.seed_everything), FiniteLoss()]
        if plan.trained is not None and not plan.trained.in_run:
            wanted.append(StartFrom(plan.trained.path))
        if trainer.enable_checkpointing is not False:
            wanted.append(Preemption(run.last))
        if trainer.logger is not False and not trainer.fast_dev_run:
            wanted.append(LearningRateMonitor())
        if writes(trainer):
            wanted.append(LambdaCallback(on_train_start=begin))
        if trainer.enable_model_summary is not False:
            wanted.append(RichModelSummary())
    if verb in ("fit", "test") and trainer.logger is not False and not trainer.fast_dev_run:
        wanted.append(TensorBoardInspect())
    if verb == "test":
        wanted.append(Report())
    if verb == "predict":
        wanted.append(PredictionWriter(run.output, run.maps, run.map_format))
    # in a log file the plain bar, which writes lines, says more than one that redraws itself
    if trainer.enable_progress_bar is not False and sys.stdout.isatty():
        wanted.append(RichProgressBar())
    own = trainer.callbacks or []
    kinds = {type(callback) for callback in (own if isinstance(own, list) else [own])}
    return [callback for callback in wanted if type(callback) not in kinds]


def writes(trainer: Any) -> bool:
    """Whether a run with these settings of the trainer writes checkpoints."""
    return trainer.enable_checkpointing is not False and not trainer.fast_dev_run
