"""Maps of `predict` as files, each with an overlay on the image as the network saw it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dfl.evaluation import maps
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
        extent = prediction["extent"][i] if "extent" in prediction else None
        prob, image = maps.fitted(prediction["map"][i].float().cpu(), images[i], extent)
        name = f"{index:06d}_{Path(prediction['path'][i]).stem}.{kind}"
        file = folder / prediction["domain"] / name
        write(file, maps.to_png(prob) if kind == "png" else maps.to_npz(prob), sync=False)
        write(file.with_name(f"{file.stem}_overlay.jpg"), maps.to_overlay(prob, image), sync=False)
        files.append(str(file))
    return files


def as_seen(image: Tensor) -> Tensor:
    """Return images (N, 3, H, W) in [0, 1] as uint8 on the CPU; uint8 ones as they are."""
    if not image.is_floating_point():
        return image.cpu()
    return (image.float().cpu() * 255).round().clamp(0, 255).to(torch.uint8)
