"""Gram distances of real faces: written anew a photo is near itself, strangers are farther, other scenes farthest."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from dfl.data.locators import load_image
from dfl.tools.forge.gram import GramCheck


def jpeg75(photo: np.ndarray) -> np.ndarray:
    written = cv2.imencode(".jpg", photo[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 75))[1]
    return np.ascontiguousarray(cv2.imdecode(written, cv2.IMREAD_COLOR)[..., ::-1])


def test_strangers_are_farther_than_the_same_photo_and_nearer_than_another_scene(
    real: Path, weights: Callable[[str], str]
) -> None:
    check = GramCheck(weights("vgg16_hed/vgg16_features.safetensors"), "vgg16_bgr", pairs=40, photos=16)
    check.open("cpu", torch.float32)
    files = [str(file) for file in sorted((real / "faces" / "real").iterdir())[:16]]
    views = [load_image(str(file)) for file in sorted((real / "photos" / "train").iterdir())[:8]]
    faces = [load_image(file) for file in files[:8]]
    check.calibrate([partial(load_image, file) for file in files], [""] * 16, seed=0)
    assert check.threshold is not None
    assert max(check(faces, [jpeg75(face) for face in faces])) < check.threshold
    assert max(check(faces, [face[:, ::-1].copy() for face in faces])) < check.threshold
    assert np.median(check(faces, views)) > check.threshold
