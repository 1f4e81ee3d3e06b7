"""A sheet of pictures to look at: what was made, beside what it was made of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dfl.data.decoding import read_image
from dfl.data.masks import load_mask

#: Colour of a mask's outline and tint: Okabe and Ito's vermilion, as fakes have it everywhere here.
TINT = (213, 94, 0)


def contact_sheet(folder: Path, rows: Sequence[Mapping[str, Any]], n: int = 24, side: int = 160) -> Image.Image:
    """Show fakes of a set, spread evenly over its table.

    Args:
        folder: Folder of the set.
        rows: Of its table, in order.
        n: Fakes to show, two to a line.
        side: Longer side of each picture, in pixels.

    Returns:
        Of each fake four pictures: the original, the fake, its mask, and the fake under the tint of its mask.
    """
    real = {row["source"]: row["path"] for row in rows if not row["label"]}
    fakes = [row for row in rows if row["label"]]
    chosen = [fakes[i] for i in sorted({int(i) for i in np.linspace(0, len(fakes) - 1, min(n, len(fakes)))})]
    strips = [_strip(folder, real[row["source"]], row, side) for row in chosen]
    if len(strips) % 2:
        strips.append(np.full_like(strips[0], 255))
    lines = [np.concatenate(pair, 1) for pair in zip(strips[::2], strips[1::2], strict=True)]
    return Image.fromarray(np.concatenate(lines) if lines else np.full((side, side, 3), 255, np.uint8))


def _strip(folder: Path, original: str, row: Mapping[str, Any], side: int) -> np.ndarray:
    fake = read_image(folder / row["path"])
    mask = load_mask(str(folder / row["mask"]), "max", (fake.shape[1], fake.shape[0]))
    assert mask is not None
    seen = fake.copy()
    seen[mask > 0] = (0.55 * seen[mask > 0] + 0.45 * np.array(TINT)).astype(np.uint8)
    pictures = [read_image(folder / original), fake, mask[..., None].repeat(3, 2), seen]
    strip = np.full((side + 8, 4 * (side + 4) + 8, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        height, width = picture.shape[:2]
        scale = side / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        small = cv2.resize(picture, size, interpolation=how)
        strip[4 : 4 + size[1], 4 + i * (side + 4) : 4 + i * (side + 4) + size[0]] = small
    return strip
