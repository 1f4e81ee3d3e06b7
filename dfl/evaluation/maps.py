"""A map as pictures: alone, with all that 16 bits hold, and laid over its image; those of `predict` as files."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dfl.evaluation.examples import overlay, pixels, without_padding
from dfl.metrics import resize_map
from dfl.runs.files import write


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


def write_maps(
    folder: Path, kind: Literal["png", "npz"], prediction: Mapping[str, Any], batch: Mapping[str, Any]
) -> list[str]:
    """Write the maps of a batch; return a file for each image, '' for padding.

    Args:
        folder: Below it ``<domain>/<index>_<name>`` is written.
        kind: 16-bit PNG, or NPZ with float32 ``map``.
        prediction: ``map`` (N, h, w), ``index``, ``path``, ``domain``, and ``extent`` where images were padded.
        batch: ``image`` (N, 3, H, W).
    """
    files, images = [], as_seen(batch["image"])
    for i, index in enumerate(prediction["index"].tolist()):
        if index < 0:
            files.append("")
            continue
        extent = prediction["extent"][i] if "extent" in prediction else None
        prob, image = fitted(prediction["map"][i].float().cpu(), images[i], extent)
        name = f"{index:06d}_{Path(prediction['path'][i]).stem}.{kind}"
        file = folder / prediction["domain"] / name
        write(file, to_png(prob) if kind == "png" else to_npz(prob), sync=False)
        write(file.with_name(f"{file.stem}_overlay.jpg"), to_overlay(prob, image), sync=False)
        files.append(str(file))
    return files


def as_seen(image: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] as uint8 on the CPU; uint8 ones as they are."""
    if not image.is_floating_point():
        return image.cpu()
    return (image.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
