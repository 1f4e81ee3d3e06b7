"""The degradation of a row: what its cell says, done to image and mask right after they are decoded."""

import json
from functools import lru_cache
from typing import Any

import albumentations as A
import cv2
import numpy as np

from dfl.data.augmentation import build
from dfl.data.decoding import DecodeError
from dfl.data.draws import Draws
from dfl.data.resize import Pair
from dfl.errors import UserError


def checked(steps: list[dict[str, Any]]) -> A.Compose:
    """Return the steps of a degradation, built.

    Raises:
        UserError: For an unknown step or argument, none at all, or one that is of training alone.
    """
    if "RandomResizedCrop" in json.dumps(steps):
        raise UserError("Degraded: RandomResizedCrop is a view of training, no degradation; CropAndPad cuts")
    try:
        compose = build(steps).compose
    except UserError as error:
        raise UserError(f"Degraded: {str(error).removeprefix('transform: ')}") from error
    if compose is None:
        raise UserError("Degraded: the chain has no step; name a variant, such as jpeg_75, or give a list of steps")
    return compose


def degraded(pair: Pair, cell: str, row: int, path: str) -> Pair:
    """Degrade an image and its mask.

    What is drawn is a function of the seed in the cell and of the row alone, in every worker, rank and epoch.

    Args:
        pair: uint8 (H, W, 3), and uint8 (H, W) or None.
        cell: Of the column ``degradation``; '' leaves the pair as it is.
        row: Its place in the table, from 0.
        path: Named in errors.

    Returns:
        The same, perhaps of another size.

    Raises:
        DecodeError: If a step cannot be done to this image, as WebP to one of more than 16,383 pixels a side.
    """
    if not cell:
        return pair
    seed, compose, draws = _ready(cell)
    draws.seed((seed, row))
    image, mask = pair
    try:
        out = compose(image=image) if mask is None else compose(image=image, mask=mask)
    except (ValueError, OSError, cv2.error) as error:
        raise DecodeError(path, f"it cannot be degraded: {' '.join(str(error).split())}") from error
    new: np.ndarray = out["image"]
    if new.dtype != np.uint8 or new.ndim != 3 or new.shape[2] != 3:
        raise UserError(f"Degraded: the chain turned a uint8 image {image.shape} into {new.dtype} {new.shape}")
    return new, out.get("mask")


@lru_cache(maxsize=64)
def _ready(cell: str) -> tuple[int, A.Compose, Draws]:
    """Return what a cell says: the seed, and the steps with the generators that they draw from."""
    said, draws = json.loads(cell), Draws()
    compose = checked(said["steps"])
    compose.set_random_state(draws.numpy, draws.python)
    return int(said["seed"]), compose, draws
