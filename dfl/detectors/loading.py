"""Open a checkpoint as a detector, whatever its class, and take from it only what a detector is made of.

That is: the name of a class, hyper-parameters of plain types, tensors. Which arguments are plain follows from the
signature of the class (`dfl.runs.plain`); those that name a file, a folder or a model of a hub (`Detector.places`) are
the user's to give.
"""

import importlib
import inspect
import re
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from dfl import hub
from dfl.detectors.base import Detector, verdicts_of
from dfl.detectors.renamed import renamed
from dfl.errors import UserError, near, subclasses
from dfl.metrics.verdicts import Verdicts
from dfl.networks import without_weights
from dfl.runs.archive import distrusted
from dfl.runs.checkpoint import read_checkpoint
from dfl.runs.find import weights_of
from dfl.runs.plain import Misfit, arguments, fit, parameters, shown, untrusted


@dataclass
class Contents:
    """What a checkpoint says of its detector, checked."""

    kind: type[Detector]
    #: Hyper-parameters, without what names places.
    init_args: dict[str, Any]
    #: Places that the file names, which are not followed.
    places: dict[str, Any]
    #: Frozen weights that the file leaves out: their names, hash, and what they are of; empty where it holds all.
    left_out: dict[str, Any] = field(default_factory=dict)
    #: What its validation said of scores; None for nothing.
    verdicts: Verdicts | None = None

    def missing(self, typed: Mapping[str, Any]) -> str | None:
        """Return what to ask the user for, if the file leaves weights out and what the user gives names none."""
        if not self.left_out:
            return None
        named = [name for name in self.kind.bases if name in self.places]
        flags = [name for name in named if name not in typed]
        if not named:
            # timm's own weights for a backbone that the user's config names are the user's word too
            if {"pretrained", "weights"} & typed.keys() or typed.get("backbone") == self.init_args.get("backbone", ""):
                return None
            flags = ["weights"]
        if not flags:
            return None
        return (
            f"holds what was trained on top of {shown(self.left_out['name'])} (sha256 {self.left_out['sha256'][:12]}), "
            f"not those frozen weights: give --model.{' and --model.'.join(flags)}"
            + (", or --model.pretrained true to take timm's" if not named else "")
        )


def load(path: str | Path, kind: type[Detector] | None = None, **changes: Any) -> Detector:
    """Rebuild the detector that a checkpoint holds, in evaluation mode on the CPU.

    Args:
        path: A local checkpoint, a folder of ``dfl export --to safetensors``, or ``hf://user/repo``.
        kind: Another class than the checkpoint says, with the same network under the same names: a trained `Classifier`
            opens as `GradCam`. Hyper-parameters that it does not take are left out.
        **changes: Hyper-parameters that are not as the checkpoint says; those that name places, such as ``weights`` of
            a frozen backbone, are never taken from it.

    Raises:
        UserError: If the file cannot be read, was not made by ``dfl``, does not fit its class, or needs weights that
            are neither typed nor there.
    """
    content = read_checkpoint(path := weights_of(path))
    with distrusted(path):
        contents = examine(content, path)
    if wanted := contents.missing(changes):
        raise UserError(f"{path} {wanted.replace('--model.', '')} to dfl.detectors.load")
    hparams = contents.init_args | changes
    with nullcontext() if contents.left_out else without_weights():
        taken = parameters(kind or contents.kind)
        detector = (kind or contents.kind)(**{k: v for k, v in hparams.items() if kind is None or k in taken})
    with distrusted(path):
        detector.on_load_checkpoint(content)
        detector.load_state_dict(content["state_dict"])
    return detector.eval()


def from_pretrained(cls: type[Detector], place: str | Path, **changes: Any) -> Detector:
    """Rebuild a detector that somebody shared, in evaluation mode on the CPU.

    Args:
        cls: ``Detector``, or the class that it must be of.
        place: What `load` takes, or the name of a repository of the hub, ``user/repo``.
        **changes: Of `load`.

    Raises:
        UserError: As `load`, and for a detector of another class.
    """
    repository = re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", str(place)) and not Path(place).exists()
    detector = load(f"{hub.BEGINS}{place}" if repository else place, **changes)
    if not isinstance(detector, cls):
        raise UserError(f"{place} holds a {type(detector).__name__}, not a {cls.__name__}")
    return detector


Detector.from_pretrained = classmethod(from_pretrained)


def examine(content: Mapping[str, Any], path: str | Path, typed: str | None = None) -> Contents:
    """Return what a checkpoint says of its detector.

    Args:
        content: Of `dfl.runs.checkpoint.read_checkpoint`.
        path: Its file, for messages.
        typed: Class that the user named; one that is not of ``dfl`` is taken only if it is this one.

    Raises:
        UserError: If it says nothing, or anything but plain values that fit the class and the tensors in the file.
    """
    about = content.get("dfl")
    if not isinstance(about, Mapping) or "class_path" not in about:
        raise UserError(f"{path} is no checkpoint of dfl: it does not say which detector it holds")
    kind = detector_class(about["class_path"], path, typed)
    hparams = content.get("hyper_parameters") or {}
    if not isinstance(hparams, Mapping):
        raise untrusted(path, f"its hyper-parameters are {shown(hparams)}")
    hparams = {k: v for k, v in hparams.items() if not str(k).startswith("_")}
    left_out = about.get("backbone")
    if left_out is not None:
        left_out = _left_out(left_out, path)
    try:
        init_args, places = plain_arguments(kind, hparams)
    except Misfit as error:
        raise untrusted(path, f"its hyper-parameters {error}") from None
    try:
        verdicts = verdicts_of(about)
    except Misfit as error:
        raise untrusted(path, str(error)) from None
    contents = Contents(kind, init_args, places, left_out or {}, verdicts)
    if places.keys().isdisjoint(kind.shaping):
        _check_shapes(contents, content["state_dict"], path)
    return contents


def plain_arguments(kind: type[Detector], hparams: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a detector that a file may give, and those that name places, which are not followed.

    Raises:
        Misfit: If one fits neither.
    """
    if isinstance(hparams, Mapping):
        hparams = renamed(hparams, kind.__name__)
        named = [name for name in kind.places if hparams.get(name) is not None and not _is_plain(kind, hparams, name)]
        places = {name: hparams[name] for name in named}
        return arguments(kind, hparams, kind.kinds, left_out=tuple(places)), places
    return arguments(kind, hparams, kind.kinds), {}


def own_classes() -> dict[str, type[Detector]]:
    """Return dfl's detectors by their short names."""
    classes = subclasses(Detector)  # type: ignore[type-abstract]
    return {c.__name__: c for c in classes if c.__module__.startswith("dfl.") and not inspect.isabstract(c)}


def detector_class(class_path: Any, path: str | Path, typed: str | None = None) -> type[Detector]:
    """Return the detector class of a name, among those that are imported; nothing is imported for a file's sake.

    A class of ``dfl`` is found by its last name alone, wherever its module lay when the file was written.

    Raises:
        UserError: If there is none.
    """
    name = class_path.rpartition(".")[2] if isinstance(class_path, str) else None
    if typed and "." in typed and not typed.startswith("dfl.") and name == typed.rpartition(".")[2]:
        return _import(typed)
    ours = own_classes()
    if name in ours and class_path.startswith("dfl."):
        return ours[name]
    for one in subclasses(Detector):  # type: ignore[type-abstract]
        if f"{one.__module__}.{one.__qualname__}" == class_path:
            return one
    raise UserError(
        f"{path} wants the detector {shown(class_path)}, which is not imported and none of dfl's; if you trust it, "
        f"type --model with its path" + near(str(name)[:40], list(ours))
    )


def _import(class_path: str) -> type[Detector]:
    """Return a class that the user named, not a file."""
    module, _, name = class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--model {class_path} cannot be imported: {error}") from error
    if not (inspect.isclass(kind) and issubclass(kind, Detector)):
        raise UserError(f"--model {class_path} is no detector")
    return kind


def _is_plain(kind: type[Detector], hparams: Mapping[str, Any], name: str) -> bool:
    """Whether what stands where a place may be named is one of dfl's own words, such as ``light``."""
    try:
        return name in kind.kinds and fit(hparams[name], kind.kinds[name]) is not None
    except Misfit:
        return False


def _left_out(value: Any, path: str | Path) -> dict[str, Any]:
    """Return what the file says of frozen weights that it leaves out."""
    fits = isinstance(value, Mapping) and all(isinstance(value.get(key), str) for key in ("name", "sha256"))
    keys = value.get("keys") if fits else None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise untrusted(path, "it does not say which frozen weights it leaves out")
    return dict(value)


def _check_shapes(contents: Contents, state: Mapping[str, Any], path: str | Path) -> None:
    """Hold the shapes that the hyper-parameters ask for against those in the file, before any memory is taken."""
    try:
        with torch.device("meta"), without_weights():
            own = contents.kind(**contents.init_args).state_dict()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # odd numbers, whatever the layer that they reach first
        if not contents.kind.__module__.startswith("dfl."):
            return  # a class of the user's own need not know shapes without memory
        raise untrusted(path, f"its hyper-parameters build no {contents.kind.__name__} ({error})") from error
    left_out = set(contents.left_out.get("keys", ()))
    if strange := next((name for name in state if name not in own), None):
        raise UserError(f"{path} does not fit: it has {shown(strange)}, and {contents.kind.__name__} does not")
    for name, value in own.items():
        here = state.get(name)
        if here is None and set(accumulate(name.split("."), "{}.{}".format)).isdisjoint(left_out):
            raise UserError(f"{path} does not fit: {contents.kind.__name__} has {name}, and the file does not")
        if value.ndim and not len(value) and here is not None and here.ndim == value.ndim:
            here = here[:0]  # as long as what it was fitted to
        if here is not None and here.shape != value.shape:
            raise UserError(
                f"{path} does not fit: {name} is {tuple(here.shape)} in the file and {tuple(value.shape)} in a "
                f"{contents.kind.__name__} of its hyper-parameters"
            )
