"""Checkpoint files that are whole or not there, and nothing in them that runs.

A checkpoint is written by `dfl.runs.files.whole`: a kill at any instant leaves the old file or the new one. The file
before the newest ``last.ckpt`` stays as ``last-previous.ckpt``, in case the disk damaged the newest. A disk that is
full or read-only costs a warning and never the file that is there.
"""

import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO
from torch import Tensor

from dfl.distributed import largest
from dfl.errors import UserError, behind, first_line
from dfl.runs import archive, files
from dfl.runs.plain import untrusted
from dfl.runs.shared import read_shared

#: The file whose version before the newest stays, as ``last-previous.ckpt``.
ROTATED = "last.ckpt"
#: What validation, test and prediction take from a checkpoint.
EVALUATED = ("state_dict", "dfl", "DataModule", "pytorch-lightning_version", "epoch", "global_step")
#: What weights may be; a network of half precision is saved as such.
NUMBERS = {
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
}


class AtomicCheckpointIO(CheckpointIO):
    """Lightning's plugin for checkpoint files: ``Trainer(plugins=[AtomicCheckpointIO()])``.

    It holds for every strategy in which rank zero writes one file: one device, DDP, `FullyShardStrategy`.

    Args:
        evaluates: Take no more than the weights and what belongs to them: states of callbacks, optimizers and loops are
            for training.
    """

    #: Why the last save failed; None if it did not.
    error: OSError | None = None

    def __init__(self, evaluates: bool = False) -> None:
        #: Whether weights and names are all that is taken from a checkpoint.
        self.evaluates = evaluates

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint, or warn that the disk did not take it and leave the old one.

        Tensors go to the file one by one; no copy of the whole is made in memory.
        """
        target = Path(path)
        self.error = None
        try:
            before = previous(target) if target.name == ROTATED else None
            with files.whole(target, before=before) as partial, open(partial, "wb") as file:
                torch.save(checkpoint, file)
        except Exception as e:
            self.error = behind(e, OSError)  # torch raises its own over it
            if self.error is None:
                raise
            warnings.warn(
                f"cannot write {target}: {self.error.strerror or self.error}; training goes on and the checkpoint "
                "before is intact; make room or give another --root",
                stacklevel=2,
            )

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint, mapped into memory; only tensors and plain values, whatever ``weights_only`` says.

        Raises:
            UserError: If it is a URL, is not there, or is torn or holds more than plain values.
        """
        checkpoint = read_checkpoint(path)
        if not self.evaluates:
            return checkpoint
        checkpoint = {key: checkpoint[key] for key in EVALUATED if key in checkpoint}
        data = checkpoint.pop("DataModule", None)
        kept = ("vocab", "usual")  # not the list of unreadable images
        if isinstance(data, Mapping) and any(data.get(key) for key in kept):
            checkpoint["DataModule"] = {key: data[key] for key in kept if data.get(key)}
        return checkpoint

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Delete a checkpoint if it is there; not by a way up, which leads past Lightning's check of the folder."""
        if ".." not in Path(path).parts:
            Path(path).unlink(missing_ok=True)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint of a local path, mapped into memory, or the weights of a shared folder; nothing in it runs.

    Raises:
        UserError: If it is a URL, is not there, is damaged, or holds anything but plain values and the weights of a
            network: dense tensors, as large as the file says and no larger, without NaN.
    """
    if "://" in str(path):
        raise UserError(f"{path}: checkpoints are read from local files only, since a stranger's file may hold code")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"no checkpoint {file.absolute()}")
    checkpoint = read_shared(file) if file.suffix == ".safetensors" else _read(file)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise UserError(f"{file} is no Lightning checkpoint: it has no state_dict")
    checkpoint["pytorch-lightning_version"] = pl.__version__  # there is nothing to migrate
    with archive.distrusted(file):
        checkpoint["state_dict"] = _weights(checkpoint["state_dict"], file, file.stat().st_size)
    return checkpoint


def _read(file: Path) -> Any:
    """Return what a torch file holds."""
    if problem := archive.wrong(file):
        raise UserError(f"{file} {problem}")
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as e:
        raise UserError(
            f"{file} is torn or is no checkpoint that is safe to load: it holds Python objects beside tensors and "
            "plain values, which could run code"
        ) from e
    except Exception as e:  # torn files raise many kinds
        raise UserError(f"{file} is torn or is no checkpoint that is safe to load: {first_line(e)[:160]}") from e


def _weights(state: dict[Any, Any], file: Path, size: int) -> dict[str, Tensor]:
    """Return a plain table of plain tensors, which share memory with those of a file.

    Raises:
        UserError: For what is no weight, for shapes that the file has no bytes for, and for NaN.
    """
    weights: dict[str, Tensor] = {}
    left = 4 * size  # tied weights have several names
    for name, value in dict.items(state):  # what is derived from dict or Tensor may hide its methods
        where = ascii(name)[:60]
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise untrusted(file, f"{where} in its state_dict is no tensor")
        weight = weights[name] = Tensor.detach(value)
        if weight.layout != torch.strided or weight.is_meta or weight.is_nested or weight.is_quantized:
            raise untrusted(file, f"{where} is of a kind for which the file has no bytes")
        if weight.dtype not in NUMBERS or weight.ndim > 8:
            raise untrusted(file, f"{where} holds {weight.dtype} in {weight.ndim} dimensions, which are no weights")
        taken = weight.numel() * weight.element_size()
        left -= taken
        if taken > size or left < 0:
            raise untrusted(file, f"{where} claims {tuple(weight.shape)}, for which the file has no bytes")
        if name == "threshold":
            if weight.numel() != 1 or float(weight) < 0 or float(weight) > 1.001:  # NaN before the first validation
                raise untrusted(file, f"{where} is no probability")
        elif weight.is_floating_point() and bool(weight.isnan().any()):
            raise UserError(f"{file} is damaged: {where} holds NaN; take a checkpoint from before")
    return weights


def refused(trainer: pl.Trainer) -> bool:
    """Return whether the disk did not take the newest checkpoint, on any rank; all ranks must ask."""
    return bool(largest(trainer, int(getattr(trainer.strategy.checkpoint_io, "error", None) is not None)))


def previous(path: Path) -> Path:
    """Return where the version before a checkpoint lies."""
    return path.with_name(f"{path.stem}-previous{path.suffix}")


def newest_whole(path: Path) -> Path:
    """Return a checkpoint, or the version before it, with a warning, if it is damaged or missing.

    A path is returned as it is if there is nothing better.
    """
    before = previous(path)
    if not before.is_file() or archive.damaged(path) is None or archive.damaged(before) is not None:
        return path
    what = "damaged" if path.is_file() else "missing"
    warnings.warn(f"{path} is {what}; using the checkpoint before it, {before}", stacklevel=2)
    return before
