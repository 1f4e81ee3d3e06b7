"""Augmentation chains: plain values from a config become albumentations, or one clear error.

A chain is a list of steps in either notation: `{name: GaussianBlur, p: 0.5}`, or as Lightning's configs write classes,
`{class_path: GaussianBlur, init_args: {p: 0.5}}`. A policy is a chain with a name.
"""

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the package index at import
import albumentations as A

from dfl.errors import UserError, near

POLICIES: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "flip": [{"name": "HorizontalFlip", "p": 0.5}],
    "light": [
        {"name": "RandomResizedCrop", "scale": [0.5, 1.0], "ratio": [0.9, 1.1]},
        {"name": "HorizontalFlip", "p": 0.5},
        {"name": "RandomBrightnessContrast", "brightness_limit": 0.1, "contrast_limit": 0.1, "p": 0.3},
        {"name": "GaussianBlur", "sigma_limit": [0.1, 2.0], "blur_limit": 0, "p": 0.1},
        {"name": "ImageCompression", "quality_range": [60, 100], "p": 0.2},
    ],
}
"""The augmentation policies that have a name."""


@dataclass
class Chain:
    """An augmentation that is ready to run."""

    crop: dict[str, Any] | None
    """scale and ratio of a random resized crop, which the caller does itself; None without one."""
    compose: A.Compose | None
    """The rest; None when nothing is left."""
    needs_margin: bool
    """Whether a step looks at neighbouring pixels or a grid, so that it matters where its image begins."""


def build(augment: str | list[dict[str, Any]]) -> Chain:
    """Build a policy or a list of steps.

    Raises:
        UserError: an unknown policy, class or argument, or a value that albumentations refuses.
    """
    if isinstance(augment, str) and augment not in POLICIES:
        raise UserError(f"transform: augment is {augment!r}{near(augment, list(POLICIES))}")
    named = [_parsed(step) for step in (POLICIES[augment] if isinstance(augment, str) else augment)]
    crop = None
    if named and named[0][0] == _CROP:
        crop = named.pop(0)[1]
        _check_arguments(_CROP, crop, ["scale", "ratio"])
    built = [_built(name, arguments) for name, arguments in named]
    margin = any(not isinstance(step, A.HorizontalFlip | A.VerticalFlip) for step in built)
    return Chain(crop, A.Compose(built) if built else None, margin)


_CROP = "RandomResizedCrop"


def _parsed(step: Any) -> tuple[str, dict[str, Any]]:
    """Class name and arguments of one step, in either notation."""
    name = step.get("class_path", step.get("name")) if isinstance(step, Mapping) else None
    if not isinstance(name, str):
        raise UserError(f"transform: augment has the step {step!r}; each needs `name: <albumentations class>`")
    arguments = {word: value for word, value in step.items() if word not in ("name", "class_path", "init_args")}
    return name.removeprefix("albumentations."), arguments | dict(step.get("init_args") or {})


def _built(name: str, arguments: dict[str, Any]) -> Any:
    kinds = {
        word: kind
        for word, kind in vars(A).items()
        if isinstance(kind, type) and issubclass(kind, A.BasicTransform | A.BaseCompose)
    }
    if name not in kinds:
        raise UserError(f"transform: albumentations has no {name!r}{near(name, list(kinds))}")
    if name == _CROP:
        raise UserError(f"transform: {_CROP} must be the first step of augment")
    _check_arguments(name, arguments, list(inspect.signature(kinds[name]).parameters))
    values = {word: tuple(value) if _is_range(value) else value for word, value in arguments.items()}
    if "transforms" in values:
        values["transforms"] = [_built(*_parsed(inner)) for inner in values["transforms"]]
    try:
        return kinds[name](**values)
    except (ValueError, TypeError) as error:
        raise UserError(f"transform: {name}: {' '.join(str(error).split())}") from error


def _check_arguments(name: str, arguments: dict[str, Any], known: list[str]) -> None:
    for word in arguments:
        if word not in known:
            raise UserError(f"transform: {name} has no argument {word!r}{near(word, known)}")


def _is_range(value: Any) -> bool:
    """Whether a YAML list stands for the tuple that albumentations wants."""
    return isinstance(value, list) and all(isinstance(item, int | float) for item in value)
