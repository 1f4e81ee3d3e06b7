"""Mean spectra by generator: what generators leave in the frequencies of their images.

The spectrum is that of Frank et al. 2020 ("Leveraging Frequency Analysis for Deep Fake Image Recognition", section 3):
the type-II DCT of the image in grey, orthonormal, on a log scale, and of that the mean over images. Upsampling shows as
a grid of bright points, and as bumps of the mean over all directions (Durall et al. 2020). Images are cropped, never
resized: resizing would draw a spectrum of its own.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.fft import dctn

from dfl.benchmark.units import sorted_names
from dfl.data.decoding import DecodeError
from dfl.data.locators import load_image
from dfl.errors import UserError
from dfl.evaluation import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: The name of the images that no generator made.
REAL = "real"
#: The most generators that are shown.
MOST = 12
#: Weights of red, green and blue in grey (ITU-R 601), as Pillow's mode L has them.
GREY = np.array([0.299, 0.587, 0.114], np.float32)


class Spectrum(NamedTuple):
    """The mean spectrum of a generator.

    Attributes:
        plane: log10 of the power by vertical and horizontal frequency, float64 (S, S); index k is k / (2 S) cycles per
            pixel.
        line: Mean of the plane over directions, float64 (S,), at radius k / (2 S).
        images: How many it is the mean of.
        missing: How many were not there or could not be read.
        small: How many were smaller than S x S pixels.
    """

    plane: np.ndarray
    line: np.ndarray
    images: int
    missing: int
    small: int


def spectra(paths: Mapping[str, Sequence[str] | pa.Array], images: int = 200, side: int = 256) -> dict[str, Spectrum]:
    """Return the mean spectrum of each generator.

    Args:
        paths: Generator (``real`` for real images) -> locators of its images. Of more than ``images``, evenly spread
            ones are taken in the order of their names, so that the choice does not depend on how they are listed.
        images: The most images of a generator.
        side: S, of the square that is cut out of the middle; less where more than a tenth of the images is smaller.

    Returns:
        Those of which at least one image was there, real ones first, all of one S.
    """
    crops: dict[str, list[np.ndarray]] = {}
    missing: dict[str, int] = {}
    for name, listed in paths.items():
        crops[name], missing[name] = [], 0
        for path in _spread(listed, images):
            try:
                crops[name].append(_middle(np.rint(load_image(path) @ GREY).astype(np.uint8), side))
            except (DecodeError, UserError, OSError):
                missing[name] += 1
    sides = [min(crop.shape) for own in crops.values() for crop in own]
    if not sides:
        return {}
    common = int(np.percentile(sides, 10, method="lower"))
    found = {}
    for name in sorted(crops, key=lambda name: (name != REAL, name)):
        fit = [crop for crop in crops[name] if min(crop.shape) >= common]
        if fit:
            found[name] = _mean(fit, common, missing[name], len(crops[name]) - len(fit))
    return found


def _spread(paths: Sequence[str] | pa.Array, most: int) -> list[str]:
    """Return paths in the order of their names, each once: all, or so many evenly spread ones."""
    names = paths if isinstance(paths, pa.Array) else pa.array(paths, pa.string())
    order, new = sorted_names(names)
    once = order[new]
    if (n := len(once)) > most:
        once = once[[(2 * i + 1) * n // (2 * most) for i in range(most)]]
    return list(names.take(pa.array(once)).to_pylist())


def _middle(plane: np.ndarray, side: int) -> np.ndarray:
    """Return the middle (at most side, at most side) of a plane (H, W)."""
    top, left = (max(0, (length - side) // 2) for length in plane.shape)
    return plane[top : top + side, left : left + side]


def _mean(crops: Sequence[np.ndarray], side: int, missing: int, small: int) -> Spectrum:
    total = np.zeros((side, side))
    for crop in crops:
        power = dctn(_middle(crop, side).astype(np.float64) / 255, norm="ortho") ** 2
        total += np.log10(power + 1e-12)
    plane = total / len(crops)
    radius = np.rint(np.hypot(*np.mgrid[:side, :side])).astype(int).ravel()
    line = np.bincount(radius, plane.ravel())[:side] / np.bincount(radius)[:side]
    return Spectrum(plane, line, len(crops), missing, small)


def figures(found: Mapping[str, Spectrum]) -> "dict[str, Figure]":
    """Draw the mean over directions of all generators, each one's plane, and its difference to that of real images."""
    shown = dict(list(found.items())[:MOST])
    if not shown:
        return {}
    lines = plots.figure(4.2, 3.0 + 0.085 * len(shown))
    axes = lines.subplots()
    plots.style(axes, "mean spectrum over all directions", "cycles per pixel", "log10 of power")
    for place, (name, one) in enumerate(shown.items()):
        at = np.arange(1, len(one.line)) / (2 * len(one.line))  # without the mean brightness
        axes.plot(at, one.line[1:], linewidth=1.2, label=f"{plots.plain(name)} ({one.images:,})", **plots.looks(place))
    lines.legend(loc="outside lower center", fontsize=7, frameon=False, ncols=2)
    drawn = {
        "Mean spectra over directions": lines,
        "Mean spectra": _planes({n: s.plane for n, s in shown.items()}, "magma"),
    }
    if REAL in shown and len(shown) > 1:
        real = shown[REAL].plane
        apart = {name: one.plane - real for name, one in shown.items() if name != REAL}
        drawn["Mean spectra minus that of real images"] = _planes(apart, "RdBu_r")
    return drawn


def _planes(planes: Mapping[str, np.ndarray], colours: str) -> "Figure":
    """Draw planes of one scale; the scale of differences is symmetric."""
    drawn, grid = plots.panels(len(planes), 2.1, 2.0, columns=2)
    values = np.concatenate([plane.ravel()[1:] for plane in planes.values()])
    low, high = np.percentile(values, [1, 99])
    if colours == "RdBu_r":
        high = max(abs(low), abs(high))
        low = -high
    for axes, (name, plane) in zip(grid, planes.items(), strict=False):
        mesh = axes.imshow(plane, cmap=colours, vmin=low, vmax=high, extent=(0, 0.5, 0.5, 0), interpolation="nearest")
        plots.style(axes, name)
        axes.grid(False)
        axes.set_xticks([0, 0.5])
        axes.set_yticks([0, 0.5])
    bar = drawn.colorbar(mesh, ax=grid, location="bottom", shrink=0.7, aspect=30)
    label = "log10 of power, minus that of real" if colours == "RdBu_r" else "log10 of power"
    bar.set_label(label, fontsize=8, color=plots.INK)
    bar.ax.tick_params(labelsize=7, colors=plots.INK)
    return drawn
