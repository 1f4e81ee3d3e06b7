"""What evaluation asks of the data of a run, whoever brought them: a data module, or plain loaders."""

from typing import Any

import pytorch_lightning as pl


def domains(trainer: pl.Trainer, split: str) -> list[str]:
    """Return the domain names of a split, in the order of its loaders; numbers where there is no data module."""
    data = _data(trainer)
    if data is not None:
        return list(data.domains(split))
    loaders = {"val": trainer.val_dataloaders, "test": trainer.test_dataloaders}.get(split)
    return [str(i) for i in range(len(loaders) if isinstance(loaders, list) else 1)]


def settle(trainer: pl.Trainer, split: str) -> None:
    """Hold the unreadable images of a split against the cap, at its end."""
    data = _data(trainer)
    if data is not None and hasattr(data, "settle"):
        data.settle(split)


def ids(trainer: pl.Trainer, column: str) -> dict[str, int]:
    """Return the id of each name in a column, such as ``group``."""
    return dict(getattr(_data(trainer), "vocab", {}).get(column, {}))


def _data(trainer: pl.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)
