"""Start training from the weights of a checkpoint that is not of this run."""

from pathlib import Path

import pytorch_lightning as pl

from dfl.runs.checkpoint import read_checkpoint


class StartFrom(pl.Callback):
    """Take the weights of a file before the first step, and nothing else: training itself begins anew.

    Args:
        path: A local checkpoint of the same detector.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Load them; what a detector does to its weights in ``setup`` is done by then."""
        content = read_checkpoint(self.path)
        pl_module.on_load_checkpoint(content)
        trainer.strategy.load_model_state_dict(content, strict=True)
