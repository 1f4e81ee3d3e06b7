"""Small noise images in which each generator paints a square of its own brightness, with masks, as a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def table(root: Path, generators: Sequence[str], numbers: Mapping[str, int], step: int) -> Path:
    """Write images of 16 x 16 and ``table.csv``; return the table.

    Args:
        root: Folder, which is there.
        generators: Beside the real images.
        numbers: By split, of each generator and of real images.
        step: From the brightness of a generator to that of the next.
    """
    rng, rows = np.random.default_rng(0), []
    for split, number in numbers.items():
        for at, generator in enumerate(("", *generators)):
            for i in range(number):
                pixels, mask = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), np.zeros((16, 16), np.uint8)
                name = f"{split}_{at}_{i}.png"
                if generator:
                    mask[4:12, 4 : 8 + at] = 255
                    pixels[mask > 0] = step * at
                    Image.fromarray(mask).save(root / f"mask_{name}")
                Image.fromarray(pixels).save(root / name)
                rows.append([name, int(at > 0), split, f"mask_{name}" if generator else "", generator])
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split", "mask", "generator"], *rows])
    return root / "table.csv"
