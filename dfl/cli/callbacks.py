"""The callbacks that each verb has by itself."""

import sys
from collections.abc import Callable
from typing import IO, Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import (
    LambdaCallback,
    LearningRateMonitor,
    ModelSummary,
    ProgressBar,
    RichProgressBar,
    StochasticWeightAveraging,
    WeightAveraging,
)

from dfl.cli.arguments import Plan
from dfl.cli.options import TOLD
from dfl.errors import UserError
from dfl.evaluation.predictions import PredictionWriter
from dfl.evaluation.report import Report
from dfl.runs.init_from import InitFrom
from dfl.training import FiniteLoss, KeyedRandomness, Monitored, Preemption, SameRun
from dfl.training.progress import ProgressLines
from dfl.training.tensorboard import TensorBoardInspect
from dfl.training.trainer import ParameterTable

Callbacks = list[pl.Callback]
#: Of these a trainer takes one: that of a config in place of ours.
ONE = (ProgressBar, ModelSummary)
#: Those of which `dfl.training.averaged` has its own.
REFUSED = (WeightAveraging, StochasticWeightAveraging)


def callbacks(
    verb: str, run: Any, plan: Plan, begin: Callable[[pl.Trainer, pl.LightningModule], None], rows: IO[str]
) -> Callbacks:
    """Return the callbacks of every run, without those that a flag of the trainer turns off or a config brings.

    Args:
        verb: Of the command.
        run: Its settings, with classes built.
        plan: What the command asks for.
        begin: Called when training begins.
        rows: Where the rows of ``predict --output -`` go.

    Raises:
        UserError: For a callback of Lightning's that averages weights.
    """
    trainer = run.trainer
    wanted: list[pl.Callback] = []
    if trainer.enable_checkpointing is not False:
        wanted += [run.checkpoint, run.last]  # idle outside fit, but Lightning puts in others where they lack
    if verb == "fit":
        wanted += [Monitored(plan.gives_a("mode")), SameRun(), KeyedRandomness(run.seed_everything), FiniteLoss()]
        if plan.init_from is not None:
            wanted.append(InitFrom(plan.init_from, whole=plan.trained is not None))
        if trainer.enable_checkpointing is not False:
            wanted.append(Preemption(run.last))
        if trainer.logger is not False and not trainer.fast_dev_run:
            wanted.append(LearningRateMonitor())
        if writes(trainer):
            wanted.append(LambdaCallback(on_train_start=begin))
        if trainer.enable_model_summary is not False:
            wanted.append(ParameterTable())
        if trainer.log_every_n_steps is None:
            wanted.append(LambdaCallback(setup=_log_often))
    if verb in ("fit", "test") and trainer.logger is not False and not trainer.fast_dev_run:
        wanted.append(TensorBoardInspect())
    if verb == "test":
        wanted.append(Report())
    if verb == "predict" and run.ray is None:  # whose workers write
        wanted.append(PredictionWriter(**{key: run[key] for key in TOLD}, stream=rows))
    if trainer.enable_progress_bar is not False:  # a log file cannot be redrawn
        wanted.append(RichProgressBar() if sys.stdout.isatty() else ProgressLines())
    own = trainer.callbacks if isinstance(trainer.callbacks, list) else [trainer.callbacks]
    if other := next((type(one).__name__ for one in own if isinstance(one, REFUSED)), None):
        raise UserError(
            f"{other} loses thresholds or does not go on exactly: take dfl.training.EMA or dfl.training.SWA"
        )
    replaced = tuple(kind for kind in ONE if any(isinstance(callback, kind) for callback in own))
    return [
        one
        for one in wanted
        if type(one) is LambdaCallback
        or not (any(isinstance(other, type(one)) for other in own) or isinstance(one, replaced))
    ]


def _log_often(trainer: Any, module: pl.LightningModule, stage: str) -> None:
    """Log ten times an epoch, and every 50 steps of a long one: with 50 alone a short one would show no loss."""
    trainer.log_every_n_steps = max(1, min(50, trainer.datamodule.train_steps() // 10))


def writes(trainer: Any) -> bool:
    """Whether a run with these settings of the trainer writes checkpoints."""
    return trainer.enable_checkpointing is not False and not trainer.fast_dev_run
