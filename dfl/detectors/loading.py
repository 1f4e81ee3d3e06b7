"""Load a detector from a checkpoint, whatever its class, without running anything that the file brings."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from dfl.detectors.base import Detector
from dfl.errors import UserError, near
from dfl.networks import without_weights


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint of a local path, mapped into memory.

    Raises:
        UserError: If it is a URL, is not there, or is no checkpoint that loads with ``weights_only=True``.
    """
    if "://" in str(path):
        raise UserError(f"{path}: checkpoints are read from local files only, since a stranger's file may hold code")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"no checkpoint {file.absolute()}")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as e:  # torn files and planted payloads raise many kinds
        raise UserError(
            f"{file} is torn or is no checkpoint that is safe to load: {str(e).splitlines()[0][:160]}"
        ) from e
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{file} is no Lightning checkpoint: it has no state_dict")
    return checkpoint


def detector_class(class_path: str) -> type[Detector]:
    """Return the detector class of a name, among those that are imported; nothing is imported for a file's sake.

    Raises:
        UserError: If there is none.
    """
    known = {f"{c.__module__}.{c.__qualname__}": c for c in _subclasses(Detector)}  # type: ignore[type-abstract]
    if class_path not in known:
        names = [c.__name__ for c in known.values()]
        raise UserError(
            f"the checkpoint wants the detector {class_path!r}, which is not imported{near(class_path, names)}"
        )
    return known[class_path]


def load(path: str | Path, **changes: Any) -> Detector:
    """Rebuild the detector that a checkpoint holds, in evaluation mode on the CPU.

    Args:
        path: A local checkpoint.
        **changes: Hyper-parameters that are not as the checkpoint says, for example ``weights`` on another machine.

    Raises:
        UserError: If the file cannot be read, was not made by ``dfl``, or asks for weights that are not there.
    """
    checkpoint = read_checkpoint(path)
    about = checkpoint.get("dfl")
    if about is None:
        raise UserError(f"{path} was not made by dfl: it does not say which detector it holds")
    hparams = {k: v for k, v in checkpoint["hyper_parameters"].items() if not k.startswith("_")} | changes
    with nullcontext() if "backbone" in about else without_weights():
        detector = detector_class(about["class_path"])(**hparams)
    detector.on_load_checkpoint(checkpoint)
    detector.load_state_dict(checkpoint["state_dict"])
    return detector.eval()


def _subclasses(cls: type[Detector]) -> list[type[Detector]]:
    return [s for c in cls.__subclasses__() for s in (c, *_subclasses(c))]
