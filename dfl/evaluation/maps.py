"""A map as pictures: alone, with all that 16 bits hold, and laid over its image."""

import io

import numpy as np
from PIL import Image
from torch import Tensor

from dfl.evaluation.examples import overlay, pixels, without_padding
from dfl.metrics import resize_map


def fitted(prob: Tensor, image: Tensor, extent: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return a map and its image without padding; the map is then as large as the image.

    Args:
        prob: (h, w) float32, the probability of manipulation.
        image: (3, H, W) uint8, as the network saw it.
        extent: (2,) rows and columns that are no padding; None where there is none, and both stay as they are.
    """
    if extent is None:
        return prob, image
    large = resize_map(prob[None], (image.shape[1], image.shape[2]))[0].clamp(0, 1)
    return without_padding(large, extent), without_padding(image, extent)


def to_png(prob: Tensor) -> bytes:
    """Return a map (h, w) as a PNG of 16 bits, 65535 = surely manipulated."""
    return _saved(Image.fromarray((prob.numpy() * 65535).round().astype(np.uint16)), "png")


def to_npz(prob: Tensor) -> bytes:
    """Return a map (h, w) as an NPZ with float32 ``map``."""
    file = io.BytesIO()
    np.savez_compressed(file, map=prob.numpy())
    return file.getvalue()


def to_overlay(prob: Tensor, image: Tensor) -> bytes:
    """Return an image (3, H, W) uint8 with its map over it, as JPEG."""
    laid = overlay(image, resize_map(prob[None], (image.shape[1], image.shape[2]))[0])
    return _saved(Image.fromarray(pixels(laid)), "jpeg", quality=92)


def _saved(image: Image.Image, kind: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
