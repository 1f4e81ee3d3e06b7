"""Loggers of a run: TensorBoard's, and beside it Lightning's for CSV files, Weights & Biases and MLflow.

``--config trainer/csv.yaml``, ``trainer/wandb.yaml`` and ``trainer/mlflow.yaml`` add one. All get the same numbers,
settings and figures; a logger that is not named here gets no figures.
"""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from dfl.runs import files

#: Loggers that take figures.
PICTURED = (TensorBoardLogger, CSVLogger, WandbLogger, MLFlowLogger)
#: What Lightning calls a run that nobody has named.
UNNAMED = (None, "lightning_logs")


class OwnVersion(TensorBoardLogger):
    """Lightning's logger, in a version folder that is no other process's: two that start at once would take one."""

    def _get_next_version(self) -> int:
        number, folder = int(super()._get_next_version()), Path(self.root_dir)
        if getattr(rank_zero_only, "rank", 0):  # the first process tells it
            return number
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                (folder / f"version_{number}").mkdir()
                return number
            except FileExistsError:
                number += 1


def of_run(given: Any, root: Path, name: str) -> Any:
    """Return the loggers of a run: TensorBoard's first, whose folder is where a report goes, then those of a config.

    Args:
        given: Of ``trainer.logger``: False for none, loggers that may hold a TensorBoard's in place of ours.
        root: Folder that holds ``lightning_logs``.
        name: Of the run.
    """
    if given is False:
        return False
    loggers = [] if given in (None, True) else list(given) if isinstance(given, Iterable) else [given]
    if any(isinstance(one, TensorBoardLogger) for one in loggers):
        return loggers
    return [OwnVersion(root / "lightning_logs", name, default_hp_metric=False), *loggers]


def show(logger: Logger, name: str, pixels: np.ndarray, step: int) -> None:
    """Give a picture to a logger; CSV's has it as a file, ``figures/NAME/STEP.png`` in its folder.

    Args:
        logger: Of `PICTURED`.
        name: Such as ``val/roc``.
        pixels: uint8 (H, W, 3).
        step: Where the curves are.
    """
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(name, pixels, step, dataformats="HWC")
    elif isinstance(logger, CSVLogger):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "png")
        files.write(Path(logger.log_dir) / "figures" / name / f"{step}.png", png.getvalue(), sync=False)
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [pixels], step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_image(logger.run_id, pixels, key=name, step=step)


def settle(given: Any, root: Path, name: str) -> None:
    """Put the settings of loggers under the root, and name them after the run, where they are not named.

    Args:
        given: Settings of one logger or several, as the parser gives them; changed in place.
        root: Folder that holds ``lightning_logs``.
        name: Of the run.
    """
    for one in given if isinstance(given, Iterable) and not hasattr(given, "class_path") else [given]:
        kind, settings = str(getattr(one, "class_path", "")).rpartition(".")[2], getattr(one, "init_args", None)
        if settings is None or kind == "TensorBoardLogger":
            continue
        if settings.get("save_dir") is not None:
            settings.save_dir = str(root / settings.save_dir)
        if settings.get("name", "") in UNNAMED:
            settings.name = f"{name}/csv" if kind == "CSVLogger" else name
        if settings.get("run_name", "") is None:
            settings.run_name = name
