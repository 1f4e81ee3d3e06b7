"""Real photos as a forged set has them, their regions, and images as files."""

from pathlib import Path

import cv2
import numpy as np

from dfl.data.decoding import DecodeError, read_image
from dfl.data.locators import load_image
from dfl.runs.files import write
from dfl.tools.forge.plan import Job, Picture
from dfl.tools.forge.settings import Settings
from dfl.tools.forge.shapes import draw, shrunk
from dfl.tools.pixels import encoded

#: Folder of what `save_kept` writes.
KEPT = "roundtrip"


def opened(picture: Picture, settings: Settings) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a picture's pixels, cut to a square or shrunk if asked for, and the (width, height) it has on disk."""
    image = load_image(picture.path, bits=picture.bits)
    height, width = image.shape[:2]
    size = (width, height)
    if settings.square is not None:
        return resized(_centre(image), (settings.square, settings.square)), size
    scale = (settings.max_side or max(size)) / max(size)
    if scale < 1:
        image = resized(image, (max(1, round(width * scale)), max(1, round(height * scale))))
    return image, size


def readable(picture: Picture) -> bool:
    """Whether a picture can be opened; one that cannot is left out of the set, and asked for nothing before that."""
    try:
        load_image(picture.path, bits=picture.bits)
    except DecodeError:
        return False
    return True


def region(
    picture: Picture, size: tuple[int, int], settings: Settings, rng: np.random.Generator, to: tuple[int, int]
) -> tuple[np.ndarray, str]:
    """Draw a region of a picture.

    Args:
        picture: The picture.
        size: (width, height) that it has on disk, which files of regions have too.
        settings: Of the set.
        rng: Source of chance.
        to: (width, height) of its pixels as the set has them.

    Returns:
        bool (H, W), which may be empty where the picture was cut or shrunk, and the kind of its shape.

    Raises:
        DecodeError: If its file cannot be used.
    """
    drawn = settings.shapes in ("blobs", "ellipses") and settings.square is not None
    of = (min(size), min(size)) if drawn else size
    area, kind = draw(settings.shapes, of, settings.limits, rng, picture.mask, picture.rule)
    return shrunk(area if settings.square is None else _centre(area), to), kind


def save(folder: Path, stem: str, image: np.ndarray, settings: Settings) -> str:
    """Write an image of the set; return its path below the folder."""
    suffix, encoding = ("png", "png") if settings.quality is None else ("jpg", "jpeg")
    name = f"images/{stem}.{suffix}"
    write(folder / name, encoded(image, encoding, settings.quality or 95), sync=False)
    return name


def save_kept(folder: Path, job: Job, image: np.ndarray) -> str:
    """Write the exact pixels of a counterpart that went through a VAE, until the set is done; return its path."""
    name = f"{KEPT}/{job.number:06d}.png"
    write(folder / name, encoded(image, "png"), sync=False)
    return name


def kept(folder: Path, job: Job) -> np.ndarray:
    """Return what `save_kept` wrote, uint8 (H, W, 3)."""
    return read_image(folder / KEPT / f"{job.number:06d}.png")


def save_mask(folder: Path, stem: str, area: np.ndarray) -> str:
    """Write a region, bool (H, W), as a mask: 255 = manipulated; return its path below the folder."""
    name = f"masks/{stem}.png"
    write(folder / name, encoded(area.astype(np.uint8) * 255, "png"), sync=False)
    return name


def _centre(pixels: np.ndarray) -> np.ndarray:
    """Return the largest square in the middle of (H, W, ...)."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image at (width, height); unchanged if it has that size."""
    if image.shape[1::-1] == size:
        return image
    smaller = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
