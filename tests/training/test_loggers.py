"""Loggers of a config stand beside TensorBoard's, under the root and named after the run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from jsonargparse import Namespace
from pytorch_lightning.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from dfl.training import loggers


def settled(kind: str, **settings: Any) -> dict[str, Any]:
    one = Namespace(class_path=f"pytorch_lightning.loggers.{kind}", init_args=Namespace(**settings))
    for given in (one, [one], None, True):
        loggers.settle(given, Path("/r"), "run")
    return one.init_args.as_dict()


def test_loggers_are_named_after_the_run_and_lie_under_its_root() -> None:
    assert settled("CSVLogger", save_dir="logs", name="lightning_logs") == {"save_dir": "/r/logs", "name": "run/csv"}
    assert settled("WandbLogger", save_dir=".", name=None) == {"save_dir": "/r", "name": "run"}
    mine = settled("MLFlowLogger", save_dir="./mlruns", run_name=None, experiment_name="dfl")
    assert mine == {"save_dir": "/r/mlruns", "run_name": "run", "experiment_name": "dfl"}
    assert settled("CSVLogger", save_dir="/a", name="b") == {"save_dir": "/a", "name": "b"}
    assert settled("TensorBoardLogger", save_dir="a", name="lightning_logs")["save_dir"] == "a"


def test_tensorboard_stays_and_comes_first(tmp_path: Path) -> None:
    csv, board = CSVLogger(tmp_path), TensorBoardLogger(tmp_path)
    assert [type(one) for one in loggers.of_run(csv, tmp_path, "run")] == [loggers.OwnVersion, CSVLogger]
    assert [type(one) for one in loggers.of_run(None, tmp_path, "run")] == [loggers.OwnVersion]
    assert loggers.of_run([board, csv], tmp_path, "run") == [board, csv]
    assert loggers.of_run(False, tmp_path, "run") is False


def test_figures_go_where_each_logger_keeps_pictures() -> None:
    """Weights & Biases and MLflow are no dependencies: stand-ins say what they are called with."""
    pixels, calls = np.zeros((2, 2, 3), np.uint8), []

    class Weights(WandbLogger):
        def __init__(self) -> None: ...

        def log_image(self, *words: Any) -> None:  # type: ignore[override]
            calls.append(words)

    class Flow(MLFlowLogger):
        run_id = "7"
        experiment = SimpleNamespace(log_image=lambda *words, **more: calls.append((*words, more)))  # type: ignore[assignment]

        def __init__(self) -> None: ...

    for logger in (Weights(), Flow()):
        assert isinstance(logger, loggers.PICTURED)
        loggers.show(logger, "val/roc", pixels, 3)
    assert calls == [("val/roc", [pixels], 3), ("7", pixels, {"key": "val/roc", "step": 3})]
