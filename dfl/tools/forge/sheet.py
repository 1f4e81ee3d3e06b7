"""A sheet of pictures to look at: the fakes of a set beside their originals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from dfl.data.decoding import read_image
from dfl.data.masks import load_mask

#: Colour of a mask's outline and tint: Okabe and Ito's vermilion, as fakes have it everywhere here.
TINT = np.array((213, 94, 0))
#: Fakes to show, and height and width of each picture in pixels; what its shape leaves free is white.
MOST, SIDE = 24, 160


def contact_sheet(folder: Path, rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Show fakes of a set, spread evenly over its table, one to a line.

    Args:
        folder: Folder of the set.
        rows: Of its table, in order.

    Returns:
        uint8 (n * SIDE, 4 * SIDE, 3): the original (white if the fake has none), the fake, its mask, and the fake under
        the tint of its mask.
    """
    original = {row["source"]: row["path"] for row in rows if not row["label"]}
    fakes = [row for row in rows if row["label"]]
    lines = []
    for i in sorted({int(i) for i in np.linspace(0, len(fakes) - 1, min(MOST, len(fakes)))}):
        fake = read_image(folder / fakes[i]["path"])
        file, rule = fakes[i].get("mask", ""), fakes[i].get("mask_rule", "")
        mask = load_mask(str(folder / file) if file else "", rule, (fake.shape[1], fake.shape[0]))
        assert mask is not None
        tinted = np.where(mask[..., None] > 0, 0.55 * fake + 0.45 * TINT, fake).astype(np.uint8)
        source = fakes[i]["source"]
        photo = read_image(folder / original[source]) if source else np.full_like(fake, 255)
        pictures = (photo, fake, mask, tinted)
        images = (Image.fromarray(pixels).convert("RGB") for pixels in pictures)
        lines.append([np.asarray(ImageOps.pad(image, (SIDE, SIDE), color="white")) for image in images])
    return np.concatenate([np.concatenate(line, 1) for line in lines] or [np.zeros((SIDE, 4 * SIDE, 3), np.uint8)])
