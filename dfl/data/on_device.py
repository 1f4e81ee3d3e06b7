"""The end of an augmentation on the training device: blur, colour, noise and JPEG by torch, on a uint8 batch.

The loader draws; the device only computes. A step's parameters are drawn in the loader as if it ran there, with the
generators of the sample's key, and travel with the batch. So what a sample becomes does not depend on ranks, workers
or resuming, and is what the loader would have made of it, within rounding. JPEG is the integer arithmetic of libjpeg,
which gives its pixels bit for bit.

A batch carries (N, 1 + T, 4) float64: first (0, y, x, 0), where the image begins on its JPEG grid; then T steps, each
its kind and three parameters, kind 0 where a step was not drawn.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor

from dfl.data import degradations
from dfl.data.degradations import gaussian_kernel, mixed
from dfl.data.jpeg_header import quantization_tables

Row = tuple[float, float, float, float]
_NOTHING: Row = (0.0, 0.0, 0.0, 0.0)


def _of_kernel(drawn: dict[str, Any]) -> Row:
    kernel = drawn["kernel"]
    radius = len(kernel) // 2
    beside = float(kernel[radius + 1] / kernel[radius]) if radius else 0.0  # exp(-1 / (2 sigma^2))
    return (2, radius, math.sqrt(-0.5 / math.log(beside)), 0) if 0 < beside < 1 else _NOTHING


# By class: kind and parameters from what was drawn. A blur without sigma has OpenCV's kernel of its size.
_ROWS: dict[type, Callable[[dict[str, Any]], Row]] = {
    degradations.SciPyBlur: lambda d: (1, int(4 * d["sigma"] + 0.5), d["sigma"], 0),
    degradations.OpenCvBlur: lambda d: (2, d["size"] // 2, 0, 0),
    A.GaussianBlur: _of_kernel,
    A.RandomBrightnessContrast: lambda d: (3, d["alpha"], d["beta"], 0),
    A.HueSaturationValue: lambda d: (4, d["hue_shift"], d["sat_shift"], d["val_shift"]),
    degradations.PcaLighting: lambda d: (5, d["alpha"], 0, 0),
    degradations.GaussianNoise: lambda d: (6, d["std"], d["seed"], 0),
    degradations.Jpeg: lambda d: (7, d["quality"], 0, 0),
    A.ImageCompression: lambda d: (7, d["quality"], 1, 0),  # red as blue
}


def can_move(step: Any) -> bool:
    """Whether a step, or every choice of a `OneOf`, has its like here."""
    if type(step) is A.OneOf:
        return all(type(inner) is not A.OneOf and can_move(inner) for inner in step.transforms)
    if isinstance(step, degradations.SciPyBlur) and step.uint8_passes:
        return False
    if isinstance(step, A.ImageCompression) and step.compression_type != "jpeg":
        return False
    if isinstance(step, A.RandomBrightnessContrast) and not step.brightness_by_max:
        return False
    return type(step) in _ROWS


def names() -> list[str]:
    """Return the names of the steps that can run on the device."""
    return sorted(kind.__name__ for kind in _ROWS)


def drawn(steps: list[Any], offset: tuple[int, int]) -> Tensor:
    """Draw the parameters of steps from their own generators: (1 + T, 4) float64.

    The steps run on one pixel, so that all their draws are those of a run on the image.
    """
    rows: list[Row] = [(0.0, offset[0], offset[1], 0.0)]
    for step in steps:
        leaves = list(getattr(step, "transforms", [step]))
        for leaf in leaves:
            leaf.params = {}
        step(image=_PIXEL)
        rows.append(next((_ROWS[type(leaf)](leaf.params) for leaf in leaves if leaf.params), _NOTHING))
    return torch.tensor(rows, dtype=torch.float64)


_PIXEL = np.zeros((1, 1, 3), np.uint8)


def augment(image: Tensor, steps: Tensor) -> Tensor:
    """Run the steps of a batch.

    Args:
        image: uint8 (N, 3, H, W) on any device with float64; it is changed.
        steps: (N, 1 + T, 4) on the CPU, so that nothing waits for the device.

    Returns:
        The image, uint8 (N, 3, H, W).
    """
    for at in range(1, steps.shape[1]):
        for kind in steps[:, at, 0].unique().tolist():
            if kind:
                chosen = (steps[:, at, 0] == kind).nonzero()[:, 0]
                values = torch.cat([steps[chosen, at, 1:], steps[chosen, 0, 1:3]], 1)
                rows = chosen.to(image.device, non_blocking=True)
                image[rows] = _KINDS[int(kind)](image[rows], values.to(image.device, non_blocking=True), values)
    return image


def _rounded(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def _column(values: Tensor, at: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return values[:, at].to(dtype).view(-1, 1, 1, 1)


def _mirrored(size: int, radius: int, with_edge: bool, device: torch.device) -> Tensor:
    """Return the pixel that each place from -radius to size + radius - 1 shows."""
    place = torch.arange(-radius, size + radius, device=device)
    period = 2 * size if with_edge else max(1, 2 * size - 2)
    place = place % period
    return torch.where(place < size, place, period - int(with_edge) - place)


def _blur(image: Tensor, known: Tensor, with_edge: bool) -> Tensor:
    """Separable, one kernel a sample; a sum over taps, since convolutions may be rounded to TF32."""
    radius = int(known[:, 0].max())
    half = torch.zeros(len(known), radius + 1)  # from the middle outwards
    for row, (size, sigma) in zip(half, known[:, :2].tolist(), strict=True):
        reach = int(size)
        taps = gaussian_kernel(sigma, reach) if sigma else np.ravel(cv2.getGaussianKernel(2 * reach + 1, 0))
        row[: reach + 1] = torch.from_numpy(taps[reach:])
    kernel = half.to(image.device, non_blocking=True)
    x = image.float()
    for axis in (2, 3):
        size = x.shape[axis]
        wide = x.index_select(axis, _mirrored(size, radius, with_edge, image.device))
        x = wide.narrow(axis, radius, size) * _column(kernel, 0)
        for j in range(1, radius + 1):
            pair = wide.narrow(axis, radius - j, size) + wide.narrow(axis, radius + j, size)
            x.addcmul_(pair, _column(kernel, j))
    return _rounded(x)


def _linear(image: Tensor, values: Tensor, _: Tensor) -> Tensor:
    # albumentations cuts off what follows the point
    return (image.float() * _column(values, 0) + _column(values, 1)).clamp(0, 255).to(torch.uint8)


def _hsv(image: Tensor, values: Tensor, _: Tensor) -> Tensor:
    """Shift in OpenCV's 8-bit HSV: hue in [0, 180), all three rounded before the shift."""
    x = image.int()
    value, low = x.amax(1), x.amin(1)
    span = value - low
    red, green, blue = x.unbind(1)
    turn = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * span, red - green + 4 * span)
    )
    # OpenCV's tables of 12-bit fractions
    hue = ((turn * (122880 / span.clamp(min=1).double()).round().int() + 2048) >> 12) % 180
    saturation = (span * (1044480 / value.clamp(min=1).double()).round().int() + 2048) >> 12
    shift = [values[:, i].float().view(-1, 1, 1) for i in range(3)]
    hue = ((hue + shift[0]) % 180).floor()
    saturation = torch.where(saturation > 0, (saturation + shift[1].trunc()).clamp(0, 255), 0)
    value = (value + shift[2].trunc()).clamp(0, 255)
    planes = []
    for start in (5, 3, 1):
        k = (start + hue / 30) % 6
        planes.append(value * (1 - saturation / 255 * torch.minimum(k, 4 - k).clamp(0, 1)))
    return _rounded(torch.stack(planes, 1))


def _lighting(image: Tensor, values: Tensor, _: Tensor) -> Tensor:
    pixels = image.flatten(2).double()
    pixels = pixels - pixels.mean(2, keepdim=True)
    covariance = pixels @ pixels.mT / (max(1, pixels.shape[2] - 1) * 255**2)
    variance, axes = torch.linalg.eigh(covariance)
    axes = axes * torch.where(axes.sum(1, keepdim=True) < 0, -1.0, 1.0)
    shift = 255 * values[:, :1] * (axes @ variance[..., None])[..., 0]
    return (image + shift[..., None, None]).clamp(0, 255).to(torch.uint8)


def _noise(image: Tensor, values: Tensor, _: Tensor) -> Tensor:
    height, width = image.shape[2:]
    place = torch.arange(height * width * 3, device=image.device).view(height, width, 3).permute(2, 0, 1)
    start = mixed(_column(values, 1, torch.int64))
    first, second = (((mixed((2 * place + i + start) & 0xFFFFFFFF)).double() + 0.5) / 2**32 for i in (0, 1))
    noise = torch.sqrt(-2 * torch.log(first)) * torch.cos(2 * math.pi * second)
    return _rounded(image + noise * _column(values, 0, torch.float64))


# JPEG


@lru_cache(maxsize=100)
def _tables(quality: int) -> Tensor:
    """Quantization tables of luma and chroma, (2, 8, 8) float64."""
    return torch.from_numpy(quantization_tables(quality)).double().view(2, 8, 8)


# libjpeg's "slow integer" cosine transform (Loeffler, Ligtenberg, Moschytz 1989), times 2^13 and the square root of 8:
# each of its passes is linear, so a product with a matrix of whole numbers, which float64 holds exactly.
_HALVES = [  # the first four of a row; the others mirror them, with the other sign in odd rows
    [8192, 8192, 8192, 8192],
    [11363, 9633, 6437, 2260],
    [10703, 4433, -4433, -10703],
    [9633, -2259, -11362, -6436],
    [8192, -8192, -8192, 8192],
    [6437, -11362, 2261, 9633],
    [4433, -10704, 10704, -4433],
    [2260, -6436, 9633, -11363],
]
_COSINES = torch.tensor([row + [(-1) ** k * x for x in row[::-1]] for k, row in enumerate(_HALVES)]).double()


def _shifted(x: Tensor, bits: int) -> Tensor:
    """Divide whole numbers by 2^bits and round, halves up."""
    return x.mul_(2.0**-bits).add_(0.5).floor_()


def _quantized(plane: Tensor, table: Tensor) -> Tensor:
    """Integers (n, C, H, W), sides multiples of 8, through the transform and its quantization by table (n, 8, 8)."""
    n, c, height, width = plane.shape
    cosines, table = _COSINES.to(plane.device, non_blocking=True), table.view(n, 1, 1, 1, 8, 8)
    blocks = plane.view(n, c, height // 8, 8, width // 8, 8).transpose(3, 4).double() - 128
    wave = _shifted(cosines @ _shifted(blocks @ cosines.T, 11), 15)  # eight times the coefficients
    wave = wave.sign() * ((wave.abs() + 4 * table) / (8 * table)).floor() * table
    blocks = _shifted(_shifted(cosines.T @ wave, 11) @ cosines, 18).add_(128).clamp_(0, 255).int()
    return blocks.transpose(3, 4).reshape(n, c, height, width)


def _taken(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows (n, P) and columns (n, Q) of each sample of (n, C, H, W)."""
    rows = rows[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])
    x = x.gather(2, rows)
    return x.gather(3, columns[:, None, None, :].expand(-1, x.shape[1], x.shape[2], -1))


def _jpeg(image: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """Baseline JPEG with 4:2:0 chroma and the triangle filter of libjpeg on the way back."""
    height, width = image.shape[2:]
    swapped = _column(values, 1) > 0
    x = torch.where(swapped, image.flip(1), image).int()
    table = torch.stack([_tables(int(quality)) for quality in known[:, 0]]).to(image.device, non_blocking=True)
    down, right = values[:, 3:4].long(), values[:, 4:5].long()
    tall, wide = (-(-(size + int(known[:, at].max())) // 16) * 16 for size, at in ((height, 3), (width, 4)))
    row, column = torch.arange(tall, device=image.device), torch.arange(wide, device=image.device)
    x = _taken(x, (row - down).abs().clamp(max=height - 1), (column - right).abs().clamp(max=width - 1))

    red, green, blue = x.unbind(1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    offset = (128 << 16) + 32767
    chroma = torch.stack(
        [
            (-11059 * red - 21709 * green + 32768 * blue + offset) >> 16,
            (32768 * red - 27439 * green - 5329 * blue + offset) >> 16,
        ],
        1,
    )
    four = chroma[:, :, ::2, ::2] + chroma[:, :, 1::2, ::2] + chroma[:, :, ::2, 1::2] + chroma[:, :, 1::2, 1::2]
    chroma = (four + 1 + torch.arange(wide // 2, device=image.device) % 2) >> 2

    luma = _quantized(luma[:, None], table[:, 0])[:, 0]
    chroma = _quantized(chroma, table[:, 1])

    for axis, last in ((2, (height + down + 1) // 2 - 1), (3, (width + right + 1) // 2 - 1)):
        place = torch.arange(chroma.shape[axis], device=image.device)
        both = []
        for step in (-1, 1):
            other = (place + step).clamp(min=0).minimum(last)
            index = other[:, None, :, None] if axis == 2 else other[:, None, None, :]
            both.append(3 * chroma + chroma.gather(axis, index.expand_as(chroma)))
        chroma = torch.stack(both, axis + 1).flatten(axis, axis + 1)
    rounding = 8 - torch.arange(wide, device=image.device) % 2
    cb, cr = (((chroma + rounding) >> 4) - 128).unbind(1)
    out = torch.stack(
        [
            luma + ((91881 * cr + 32768) >> 16),
            luma + ((-22554 * cb - 46802 * cr + 32768) >> 16),
            luma + ((116130 * cb + 32768) >> 16),
        ],
        1,
    )
    out = out.clamp(0, 255).to(torch.uint8)
    here = [torch.arange(size, device=image.device) + start for size, start in ((height, down), (width, right))]
    out = _taken(out, *here)
    return torch.where(swapped, out.flip(1), out)


_KINDS: dict[int, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    1: lambda image, values, known: _blur(image, known, True),
    2: lambda image, values, known: _blur(image, known, False),
    3: _linear,
    4: _hsv,
    5: _lighting,
    6: _noise,
    7: _jpeg,
}
