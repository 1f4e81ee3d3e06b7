"""What images look like before any detector judges them: size, compression, sharpness; and which ones are unusual.

A detector errs where images are unlike those that it was trained on. So a checkpoint holds where those lie, in three
plain facts, and `predict` says how far an image is from them.
"""

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from torch import Tensor

from dfl.data.decoding import DecodeError, open_header
from dfl.data.locators import read_bytes, split
from dfl.runs.plain import Misfit, fit

#: Facts of an image, each with the least distance from the median that counts as 1: octaves of the shorter side in
#: pixels, points of JPEG quality (100 for what is compressed without loss), natural logarithm of the Laplacian's
#: variance at the detector's size.
FACTS = {"size": 0.5, "quality": 7.5, "sharpness": 0.5}
#: An image is unusual from this distance on: twice as far from the median as 98 % of the training images.
UNUSUAL = 2.0
#: Training images that are looked at.
LOOKED_AT = 128
_LOSSLESS = frozenset(["PNG", "BMP", "TIFF", "GIF", "PPM"])


def appearance(source: str | bytes, shape: tuple[int, int], seen: Tensor) -> Tensor:
    """Return the `FACTS` of an image, (3,) float32; NaN for what is not known.

    Args:
        source: Where it is, or the bytes of its file.
        shape: Its height and width in pixels.
        seen: What the detector gets of it, uint8 (3, S, S).
    """
    gray = seen.float().mean(0)
    laplacian = 4 * gray[1:-1, 1:-1] - gray[:-2, 1:-1] - gray[2:, 1:-1] - gray[1:-1, :-2] - gray[1:-1, 2:]
    sharpness = float(laplacian.var(unbiased=False).add(1).log()) if laplacian.numel() else math.nan
    return torch.tensor([math.log2(max(min(shape), 1)), _quality_of(source), sharpness])


@dataclass(frozen=True)
class Usual:
    """Where the images of a training set lie.

    Attributes:
        ranges: By fact the 1st, 50th and 99th percentile; a fact that is not known of any image is left out.
    """

    ranges: dict[str, list[float]]

    @classmethod
    def of(cls, facts: np.ndarray) -> "Usual":
        """Return where images with these facts (n, 3) lie."""
        known = {name: column[~np.isnan(column)] for name, column in zip(FACTS, facts.T, strict=True)}
        return cls({name: np.quantile(c, (0.01, 0.5, 0.99)).tolist() for name, c in known.items() if len(c)})

    @classmethod
    def of_file(cls, value: Any) -> "Usual | None":
        """Return what a file says, or None if it says nothing.

        Raises:
            Misfit: If it says anything but three rising numbers for a fact.
        """
        ranges = fit(value, dict.fromkeys(FACTS, list[float]))
        if ranges is None:
            return None
        if any(len(one) != 3 or sorted(one) != one for one in ranges.values()):
            raise Misfit("must be three rising numbers for each")
        return cls(ranges)

    def distances(self, facts: np.ndarray) -> dict[str, np.ndarray]:
        """Return how far images are from the median, by fact, float64 (N,); 1 is the 1st or the 99th percentile.

        Args:
            facts: (N, 3) of `appearance`.
        """
        found = {}
        for name, column in zip(FACTS, np.asarray(facts, np.float64).T, strict=True):
            if name in self.ranges:
                low, middle, high = self.ranges[name]
                half = np.where(column > middle, high - middle, middle - low)
                found[name] = np.abs(column - middle) / np.maximum(half, FACTS[name])
        return found

    def unusual(self, facts: np.ndarray) -> list[str]:
        """Return what is unusual of each of N images, '' for nothing: ``quality 40 (trained on 90 to 95)``."""
        distances = self.distances(facts)

        def told(i: int, name: str) -> str:
            value = float(facts[i][list(FACTS).index(name)])
            return f"{name} {_shown(name, value)} (trained on {self.range_of(name)})"

        odd = [[name for name, one in distances.items() if one[i] >= UNUSUAL] for i in range(len(facts))]
        return ["; ".join(told(i, name) for name in names) for i, names in enumerate(odd)]

    def range_of(self, name: str) -> str:
        """Return where the training images lie in a fact, in its own unit."""
        low, _, high = self.ranges[name]
        return f"{_shown(name, low)} to {_shown(name, high)}"


def jpeg_quality(tables: dict[int, Any]) -> int:
    """Return the quality, 1 to 100, whose standard luma table (ITU-T T.81, Table K.1) is a JPEG's; -1 for none."""
    return _qualities().get(tuple(tables[min(tables)]), -1)


def _shown(name: str, value: float) -> str:
    return f"{2**value:.0f} px" if name == "size" else f"{value:.3g}"


def _quality_of(source: str | bytes) -> float:
    """Return the quality of a JPEG by its luma table, the nearest of another kind; 100 without loss, NaN unknown."""
    if isinstance(source, str) and split(source)[1].keys() & {"frame", "at"}:
        return math.nan
    try:
        content = read_bytes(source) if isinstance(source, str) else source
        with open_header("<bytes>", io.BytesIO(content)) as image:
            tables = getattr(image, "quantization", None)
            if image.format != "JPEG" or not tables:
                return 100.0 if image.format in _LOSSLESS else math.nan
            if (exact := jpeg_quality(tables)) > 0:
                return float(exact)
            luma = sum(tables[min(tables)])
            return float(min(_qualities().items(), key=lambda one: abs(sum(one[0]) - luma))[1])
    except (DecodeError, OSError, ValueError, SyntaxError):
        return math.nan


@lru_cache
def _qualities() -> dict[tuple[int, ...], int]:
    """Return the quality of each luma table that libjpeg scales from the standard's."""
    qualities: dict[tuple[int, ...], int] = {}
    for quality in range(1, 101):
        data = io.BytesIO()
        Image.new("L", (8, 8)).save(data, "JPEG", quality=quality)
        with JpegImageFile(io.BytesIO(data.getvalue())) as image:
            qualities[tuple(image.quantization[0])] = quality
    return qualities
