"""The median of 3 x 3 pixels, exact and without sorting all nine: a network of minima and maxima.

Each column of three is sorted once for the whole image and then seen from the three windows that it belongs to. The
median of a window is the median of three numbers: the largest of its columns' lows, the median of their middles, the
smallest of their highs. It is always one of the nine values.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

Three = tuple[Tensor, Tensor, Tensor]


def median_3x3(image: Tensor, centre: float | None = None, padding: str = "constant") -> Tensor:
    """Return the median of each pixel's window, channel by channel: of nine values the fifth.

    Args:
        image: (N, C, H, W).
        centre: Taken in place of each window's own pixel, so that the median is that of the neighbours and this value;
            None: the pixel itself.
        padding: What lies outside the image, a mode of `torch.nn.functional.pad`; ``constant`` is 0.

    Returns:
        (N, C, H, W) of the image's type.
    """
    around = F.pad(image, (1, 1, 1, 1), mode=padding)
    rows = tuple(around[..., i : i + image.shape[-2], :] for i in range(3))
    columns = _sorted(*rows)
    left, right = tuple(c[..., :-2] for c in columns), tuple(c[..., 2:] for c in columns)
    if centre is None:
        middle = tuple(c[..., 1:-1] for c in columns)
    else:
        above, _, below = (row[..., 1:-1] for row in rows)
        middle = _sorted(above, torch.full_like(image, centre), below)
    lows, middles, highs = zip(left, middle, right, strict=True)
    return _median(_largest(*lows), _median(*middles), _smallest(*highs))


def _sorted(a: Tensor, b: Tensor, c: Tensor) -> Three:
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    middle = torch.minimum(high, c)
    return torch.minimum(low, middle), torch.maximum(low, middle), torch.maximum(high, c)


def _median(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))


def _largest(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.maximum(torch.maximum(a, b), c)


def _smallest(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return torch.minimum(torch.minimum(a, b), c)
