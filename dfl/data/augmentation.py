"""Augmentation chains: plain values from a config become albumentations, or one clear error.

A chain is a list of steps in either notation: `{name: GaussianBlur, p: 0.5}`, or as Lightning's configs write classes,
`{class_path: GaussianBlur, init_args: {p: 0.5}}`. A step is a class of albumentations or of `dfl.data.degradations`.
A policy is a chain with a name.
"""

import inspect
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import albumentations as A
import cv2

from dfl.data import degradations
from dfl.errors import UserError, near

_FLIP = {"name": "HorizontalFlip", "p": 0.5}
_DFB = [
    {"name": "OpenCvBlur", "kernel_range": [3, 7], "p": 0.5},
    {
        "name": "OneOf",
        "p": 0.5,
        "transforms": [
            {"name": "RandomBrightnessContrast", "brightness_limit": 0.1, "contrast_limit": 0.1},
            {"name": "PcaLighting", "std": 0.1},
            {"name": "HueSaturationValue", "hue_shift_limit": 20, "sat_shift_limit": 30, "val_shift_limit": 20},
        ],
    },
    {"name": "ImageCompression", "quality_range": [40, 100], "p": 0.5},
]

POLICIES: dict[str, list[dict[str, Any]]] = {
    "none": [],
    "flip": [_FLIP],
    # Wang et al. 2020. They flip last; first is the same, since the JPEG grid falls anywhere.
    "cnnf": [
        _FLIP,
        {"name": "SciPyBlur", "sigma_range": [0.0, 3.0], "p": 0.5},
        {"name": "Jpeg", "quality_range": [30, 100], "p": 0.5},
    ],
    # with the darkening of their code, see SciPyBlur
    "cnnf_official": [
        _FLIP,
        {"name": "SciPyBlur", "sigma_range": [0.0, 3.0], "uint8_passes": True, "p": 0.5},
        {"name": "Jpeg", "quality_range": [30, 100], "p": 0.5},
    ],
    # DeepfakeBench under albumentations 1.1; Xception, SPSL and others there do not rotate
    "dfb": [_FLIP, {"name": "Rotate", "limit": 10, "border_mode": cv2.BORDER_REFLECT_101, "p": 0.5}, *_DFB],
    "dfb_norotate": [_FLIP, *_DFB],
    # shared once, then often once more
    "social": [
        _FLIP,
        {"name": "Rescale", "scale_range": [0.5, 1.0], "p": 0.5},
        {
            "name": "OneOf",
            "p": 0.9,
            "transforms": [
                {"name": "Jpeg", "quality_range": [60, 95], "p": 0.8},
                {"name": "WebP", "quality_range": [60, 95], "p": 0.2},
            ],
        },
        {"name": "Rescale", "scale_range": [0.7, 1.0], "p": 0.3},
        {"name": "Jpeg", "quality_range": [50, 90], "p": 0.5},
    ],
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
    """The other steps; None where there are none."""
    needs_margin: bool
    """Whether a step looks at neighbouring pixels or a grid, so that it matters where its image begins."""


def build(augment: str | list[dict[str, Any]]) -> Chain:
    """Build a policy or a list of steps.

    Raises:
        UserError: an unknown policy, class or argument, or a value that albumentations refuses, or ignores with a
            warning.
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
    name = name.removeprefix("albumentations.").removeprefix("dfl.data.degradations.")
    return name, arguments | dict(step.get("init_args") or {})


_KINDS = {
    word: kind
    for word, kind in (vars(A) | vars(degradations)).items()
    if isinstance(kind, type) and issubclass(kind, A.BasicTransform | A.BaseCompose) and word[0] != "_"
}
# Those that resample by cv2.resize, whose plain nearest is up to a pixel off; a warp knows only that one, and is not.
_RESIZING = {"CropAndPad", "LongestMaxSize", "RandomScale", "RandomSizedCrop", "Resize", "SmallestMaxSize"}


def _built(name: str, arguments: dict[str, Any]) -> Any:
    if name not in _KINDS:
        raise UserError(f"transform: neither albumentations nor dfl has {name!r}{near(name, list(_KINDS))}")
    if name == _CROP:
        raise UserError(f"transform: {_CROP} must be the first step of augment")
    _check_arguments(name, arguments, list(inspect.signature(_KINDS[name]).parameters))
    # a YAML list of numbers stands for the tuple that albumentations wants
    values = {
        word: tuple(value) if isinstance(value, list) and all(isinstance(v, int | float) for v in value) else value
        for word, value in arguments.items()
    }
    if "transforms" in values:
        values["transforms"] = [_built(*_parsed(inner)) for inner in values["transforms"]]
    if name in _RESIZING:
        values.setdefault("mask_interpolation", cv2.INTER_NEAREST_EXACT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # albumentations warns, and goes on without the argument
            return _KINDS[name](**values)
    except (ValueError, TypeError, Warning) as error:
        raise UserError(f"transform: {name}: {' '.join(str(error).split())}") from error


def _check_arguments(name: str, arguments: dict[str, Any], accepted: list[str]) -> None:
    for word in arguments:
        if word not in accepted:
            raise UserError(f"transform: {name} has no argument {word!r}{near(word, accepted)}")
