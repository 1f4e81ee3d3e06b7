"""Checkpoints that stay with their run when its folder moves."""

import copy
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from dfl.runs.checkpoint import refused

#: What ModelCheckpoint remembers of the best.
RECORD = ("best_k_models", "kth_best_model_path", "kth_value", "best_model_path", "best_model_score")
PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class Keeper(ModelCheckpoint):
    """Lightning's ``ModelCheckpoint``, for runs that are resumed in another place.

    Lightning forgets the best score when the folder is not the one where the run began, and so overwrites the best
    checkpoint with whatever comes next. Here the score stays if the best checkpoint is in the new folder too.

    A value that is not there, or is NaN, is nobody's best: Lightning would take the first one for ever.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a run, with its paths moved to where the run is now."""
        best = state_dict["best_model_path"]
        is_here = not best or (Path(self.dirpath or ".") / Path(best).name).is_file()
        if self.dirpath and is_here:
            state_dict = {
                **state_dict,
                "dirpath": self.dirpath,
                "best_k_models": {self._here(path): score for path, score in state_dict["best_k_models"].items()},
                **{key: self._here(state_dict[key]) for key in PATHS},
            }
        super().load_state_dict(state_dict)

    def _should_skip_saving_checkpoint(self, trainer: pl.Trainer) -> bool:
        """Skip a second save at one step, but for a detector that takes no steps at all."""
        if trainer.lightning_module.automatic_optimization or trainer.global_step:
            return super()._should_skip_saving_checkpoint(trainer)
        return bool(trainer.fast_dev_run) or trainer.state.fn != "fit" or trainer.sanity_checking  # type: ignore[attr-defined]

    def _save_topk_checkpoint(self, trainer: pl.Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        """Save what is best, if there is anything to tell it by; `Monitored` says if there is not."""
        value = monitor_candidates.get(self.monitor) if self.monitor is not None else None
        if self.monitor is None or (value is not None and not bool(value.isnan())):
            super()._save_topk_checkpoint(trainer, monitor_candidates)

    def _update_best_and_save(
        self, current: Tensor, trainer: pl.Trainer, monitor_candidates: dict[str, Tensor]
    ) -> None:
        """Save a better checkpoint; a disk that refuses it leaves the record as it was, with the file that is there."""
        before = {name: copy.copy(getattr(self, name)) for name in RECORD}
        super()._update_best_and_save(current, trainer, monitor_candidates)
        if refused(trainer):
            for name, value in before.items():
                setattr(self, name, value)

    def _remove_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        """Remove a file of the run's folder; a state that was written elsewhere may remember any other."""
        if Path(filepath).parent.resolve() == Path(self.dirpath or ".").resolve():
            super()._remove_checkpoint(trainer, filepath)

    def _here(self, path: str) -> str:
        return str(Path(self.dirpath or ".") / Path(path).name) if path else ""
