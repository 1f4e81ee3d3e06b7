"""Load a detector from a checkpoint, whatever its class, without running anything that the file brings."""

import inspect
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from dfl.detectors.base import Detector
from dfl.errors import UserError, near, subclasses
from dfl.networks import without_weights
from dfl.training.checkpoint import read_checkpoint


def detector_class(class_path: str) -> type[Detector]:
    """Return the detector class of a name, among those that are imported; nothing is imported for a file's sake.

    Raises:
        UserError: If there is none.
    """
    known = {f"{c.__module__}.{c.__qualname__}": c for c in subclasses(Detector)}  # type: ignore[type-abstract]
    if class_path not in known:
        names = [c.__name__ for c in known.values()]
        raise UserError(
            f"the checkpoint wants the detector {class_path!r}, which is not imported{near(class_path, names)}"
        )
    return known[class_path]


def load(path: str | Path, kind: type[Detector] | None = None, **changes: Any) -> Detector:
    """Rebuild the detector that a checkpoint holds, in evaluation mode on the CPU.

    Args:
        path: A local checkpoint.
        kind: Another class than the checkpoint says, with the same network under the same names: a trained `Baseline`
            opens as `GradCam`. Hyper-parameters that it does not take are left out.
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
        own = detector_class(about["class_path"])
        taken = inspect.signature(kind or own).parameters
        detector = (kind or own)(**{k: v for k, v in hparams.items() if kind is None or k in taken})
    detector.on_load_checkpoint(checkpoint)
    detector.load_state_dict(checkpoint["state_dict"])
    return detector.eval()
