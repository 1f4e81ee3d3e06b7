"""Maps of `predict` as files, each with an overlay on the image as the network saw it."""

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
        prob, image = prediction["map"][i].float().cpu(), images[i]
        if "extent" in prediction:  # back from the padded square to the image, as large as it was seen
            extent = prediction["extent"][i]
            prob = without_padding(resize_map(prob[None], _size(image))[0].clamp(0, 1), extent)
            image = without_padding(image, extent)
        name = f"{index:06d}_{Path(prediction['path'][i]).stem}.{kind}"
        file, content, over = folder / prediction["domain"] / name, io.BytesIO(), io.BytesIO()
        if kind == "npz":
            np.savez_compressed(content, map=prob.numpy())
        else:
            Image.fromarray((prob.numpy() * 65535).round().astype(np.uint16)).save(content, "png")
        laid = overlay(image, resize_map(prob[None], _size(image))[0])
        Image.fromarray(pixels(laid)).save(over, "jpeg", quality=92)
        write(file, content.getvalue(), sync=False)
        write(file.with_name(f"{file.stem}_overlay.jpg"), over.getvalue(), sync=False)
        files.append(str(file))
    return files


def as_seen(image: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] as uint8 on the CPU; uint8 ones as they are."""
    if not image.is_floating_point():
        return image.cpu()
    return (image.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)


def _size(image: Tensor) -> tuple[int, int]:
    return image.shape[1], image.shape[2]
