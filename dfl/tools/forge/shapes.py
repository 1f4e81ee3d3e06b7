"""Where a region comes from: random blobs and ellipses, human or machine segments, given masks.

A file of regions is named like its picture (same stem, or ``<stem>_mask``). Read as ``given``, what is above 127 is the
region. Read as ``segments``, each value names a region and 0 belongs to none: a PNG or a ``.npy`` of whole numbers, or
a MATLAB file of the Berkeley segmentation set (``groundTruth{i}.Segmentation``, several people each; Arbelaez et al.,
2011), of which one person is drawn.
"""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from dfl.data.decoding import DecodeError, resize_nearest
from dfl.data.masks import load_mask
from dfl.data.sources.base import names_in
from dfl.errors import UserError

Array = np.ndarray
Rng = np.random.Generator
Kind = Literal["blobs", "ellipses", "segments", "given"]
#: Suffixes of what each kind of file may be.
SUFFIXES = {
    "given": frozenset([".png", ".bmp", ".tif", ".tiff", ".gif", ".webp", ".jpg", ".jpeg"]),
    "segments": frozenset([".png", ".bmp", ".tif", ".tiff", ".gif", ".npy", ".mat"]),
}
#: Corners of a drawn outline.
_CORNERS = 128


def files_in(folder: str, kind: Kind) -> dict[str, str]:
    """Return the files of regions under a folder by the stem of their picture; '' for a stem that two files have.

    Raises:
        UserError: If the folder is not there, or holds none.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"--masks {folder!r}: no such folder in {Path.cwd()}")
    files: dict[str, str] = {}
    for name in names_in(path, SUFFIXES[kind]):
        stem = Path(name).stem.removesuffix("_mask")
        files[stem] = "" if stem in files else str(name)
    if not files:
        raise UserError(f"--masks {folder!r} holds no file of {kind} ({', '.join(sorted(SUFFIXES[kind]))})")
    return files


def draw(
    kind: Kind, size: tuple[int, int], limits: tuple[float, float], rng: Rng, file: str = "", rule: str = ""
) -> tuple[Array, str]:
    """Draw a region of a picture.

    Args:
        kind: Where it comes from.
        size: (width, height) of the picture.
        limits: Smallest and largest share of the picture's pixels. A given mask is taken as it is.
        rng: Source of chance.
        file: Of a given mask or of segments.
        rule: How a given mask is read (dfl/data/masks.py).

    Returns:
        bool (H, W), and the kind that it became: a picture none of whose segments is within the limits gets a blob.

    Raises:
        DecodeError: If the file cannot be read, is of another size than the picture, or marks nothing or everything.
    """
    if kind == "given":
        area = load_mask(file, rule, size)
        region = area > 127 if area is not None else np.zeros(size[::-1], bool)
        if not region.any() or region.all():
            raise DecodeError(file, "the mask marks nothing" if not region.any() else "the mask marks the whole image")
        return region, kind
    if kind == "segments":
        segmented = segment(read_segments(file, size, rng), limits, rng)
        if segmented is not None:
            return segmented, kind
        kind = "blobs"
    return outline(size, limits, rng, ragged=kind == "blobs"), kind


def outline(size: tuple[int, int], limits: tuple[float, float], rng: Rng, ragged: bool) -> Array:
    """Return an ellipse, or a blob with a ragged outline, inside a picture of (width, height), as bool (H, W).

    Its share of the picture is drawn evenly on a log scale, so that small regions are as common as large ones.
    """
    width, height = size
    area = np.exp(rng.uniform(*np.log(limits))) * width * height
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    radius = np.ones(_CORNERS)
    if ragged:
        for wave in range(2, 7):
            radius += rng.uniform(0, 0.5 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    stretch, turn = np.exp(rng.uniform(-0.5, 0.5)), rng.uniform(0, np.pi)
    x, y = radius * np.cos(angle) * stretch, radius * np.sin(angle) / stretch
    x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
    twice = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))  # of the polygon's area
    scale = np.sqrt(2 * area / twice)
    # a long shape in a narrow picture becomes smaller rather than cut off
    scale = min(scale, 0.98 * width / np.ptp(x), 0.98 * height / np.ptp(y))
    corners = []
    for values, side in ((x * scale, width), (y * scale, height)):
        corners.append(values + rng.uniform(-values.min(), max(-values.min(), side - 1 - values.max())))
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [np.rint(np.stack(corners, 1)).astype(np.int32)], 1)
    return canvas > 0


def read_segments(file: str, size: tuple[int, int], rng: Rng) -> Array:
    """Return the regions of a picture as whole numbers, int64 (H, W), 0 for none; see the top of this file.

    Raises:
        DecodeError: If the file cannot be read, or is of another size than the picture.
    """
    try:
        if file.lower().endswith(".mat"):
            from scipy.io import loadmat  # at first use: it is slow to import

            people = loadmat(file)["groundTruth"].ravel()
            labels = people[int(rng.integers(len(people)))]["Segmentation"][0, 0]
        elif file.lower().endswith(".npy"):
            labels = np.load(file, allow_pickle=False)
        else:
            with Image.open(file) as image:
                labels = np.asarray(image if image.mode in ("1", "L", "P", "I", "I;16") else image.convert("RGB"))
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError) as error:
        raise DecodeError(file, f"no segments can be read: {' '.join(str(error).split())}") from error
    if labels.ndim == 3:  # colours that name regions
        labels = labels.astype(np.int64) @ np.array([65536, 256, 1])
    if labels.shape != size[::-1]:
        raise DecodeError(file, f"segments of shape {labels.shape}, but the picture is {size[0]}x{size[1]}")
    return labels.astype(np.int64)


def segment(labels: Array, limits: tuple[float, float], rng: Rng) -> Array | None:
    """Draw one connected region within the limits, as bool (H, W), its holes filled; None if there is none.

    Regions that end inside the picture come first: they are whole things, and paste without a straight cut.
    """
    whole: list[Array] = []
    at_edge: list[Array] = []
    for value in np.unique(labels[labels > 0]):
        _, parts, facts, _ = cv2.connectedComponentsWithStats((labels == value).astype(np.uint8), connectivity=4)
        for part in range(1, len(facts)):
            x, y, w, h, n = facts[part]
            if limits[0] <= n / labels.size <= limits[1]:
                inside = x > 0 and y > 0 and x + w < labels.shape[1] and y + h < labels.shape[0]
                (whole if inside else at_edge).append(parts == part)
    choice = whole or at_edge
    if not choice:
        return None
    region = choice[int(rng.integers(len(choice)))]
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(region.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0


def shrunk(region: Array, size: tuple[int, int]) -> Array:
    """Return a region for its picture at (width, height), bool (H, W)."""
    return region if region.shape == size[::-1] else resize_nearest(region, size[::-1])
