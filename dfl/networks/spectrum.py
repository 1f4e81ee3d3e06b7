"""Log-DCT maps of images: what every detector that looks at frequencies begins with.

    centre of the image, values 0 ... 255 -> [grey] -> DCT-II over rows and columns -> ln(|c| + 1e-12) -> maps
              +-> [|image - denoised|     -> [grey] -> the same                                        -> more maps]

Up-sampling leaves traces in the high frequencies (Frank et al., ICML 2020). What a denoiser takes away has less of
what the picture shows, so its maps may be added (Abdullah et al., IEEE S&P 2024, content-agnostic features).
"""

import math
from collections.abc import Iterable
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from dfl.errors import UserError
from dfl.networks.dncnn import DnCnn
from dfl.networks.median import median_3x3

#: ITU-R 601 in 65536ths, as Pillow's L has it.
LUMA = (19595, 38470, 7471)

Colour = Literal["rgb", "grey"]
Values = Literal["bytes", "signed"]
Denoiser = Literal["median", "nlm", "dncnn"]


class LogDct(nn.Module):
    """The logarithm of the absolute coefficients of an orthonormal DCT-II.

    Args:
        size: Height and width of the centre that is looked at, in pixels; one number for a square.
        colour: ``rgb``: three maps; ``grey``: one, of Pillow's L.
        values: ``bytes``: 0 ... 255, as Frank et al.; ``signed``: -1 ... 1, as Abdullah et al. Z-scored, the maps
            differ in the constant coefficient, and where others are as small as ``epsilon``.
        noise: Adds the maps of the absolute difference between the image and itself without noise; ``median`` of 3 x 3
            pixels, or ``dncnn``, a learned one, both on the device; or ``nlm``, non-local means of OpenCV, on the CPU.
            None: of the image alone.
        epsilon: Added before the logarithm.
        denoiser: File of the learned one, see `DnCnn`.

    Raises:
        UserError: If that is wanted and not given, given and not wanted, or does not fit.
    """

    rows: Tensor
    columns: Tensor

    def __init__(
        self,
        size: int | tuple[int, int],
        colour: Colour = "rgb",
        values: Values = "bytes",
        noise: Denoiser | None = None,
        epsilon: float = 1e-12,
        denoiser: str | None = None,
    ) -> None:
        super().__init__()
        if denoiser is not None and noise != "dncnn":
            raise UserError(f"model.denoiser {denoiser} is the file of noise=dncnn, and noise is {noise}")
        height, width = (size, size) if isinstance(size, int) else size
        #: C, H and W of the maps.
        self.shape = (channels(colour, noise), height, width)
        self.colour, self.values, self.noise, self.epsilon = colour, values, noise, epsilon
        self.denoiser = DnCnn(denoiser) if noise == "dncnn" else None
        self.register_buffer("rows", dct_basis(height), persistent=False)
        self.register_buffer("columns", dct_basis(width), persistent=False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H', W') in [0, 1] to (N, C, H, W) float32; computed in float64.

        Raises:
            UserError: If the images are smaller than the centre.
        """
        pixels = (255 * self._centre(image).double()).round()
        maps = [self._of(pixels)]
        if self.noise is not None:
            clean = denoised(pixels, self.noise) if self.denoiser is None else self.denoiser(pixels)
            maps.append(self._of((pixels - clean).abs()))
        return torch.cat(maps, 1)

    def _of(self, pixels: Tensor) -> Tensor:
        if self.colour == "grey":
            pixels = torch.einsum("nchw,c->nhw", pixels, pixels.new_tensor(LUMA))[:, None].add(32768).div(65536).floor()
        if self.values == "signed":
            pixels = pixels / 127.5 - 1
        coefficients = self.rows @ pixels @ self.columns.T
        return (coefficients.abs() + self.epsilon).log().float()

    def _centre(self, image: Tensor) -> Tensor:
        (_, height, width), (h, w) = self.shape, image.shape[-2:]
        if h < height or w < width:
            raise UserError(
                f"a spectrum of {height} x {width} px is wanted of images of {h} x {w} px; take larger images "
                "(model.input_size), or a smaller spectrum"
            )
        top, left = (h - height) // 2, (w - width) // 2
        return image[..., top : top + height, left : left + width]


class ZScore(nn.Module):
    """Subtract a mean and divide by a standard deviation, each value of a map by its own.

    Args:
        shape: Of one map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("std", torch.ones(shape))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps (N, *shape), float32, z-scored."""
        return (maps.float() - self.mean) / self.std

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor]) -> None:
        """Take mean and population standard deviation of all maps (N, *shape) that come; one without any is 1."""
        count, total, squares = 0, torch.zeros_like(self.mean).double(), torch.zeros_like(self.mean).double()
        for maps in batches:
            values = maps.double()
            count, total, squares = count + len(maps), total + values.sum(0), squares + values.square().sum(0)
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt()
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 1e-6, std, 1.0))


def channels(colour: Colour, noise: Denoiser | None) -> int:
    """Return how many maps there are of an image."""
    return (3 if colour == "rgb" else 1) * (1 if noise is None else 2)


def dct_basis(n: int) -> Tensor:
    """Return the matrix of the orthonormal DCT-II, (n, n) float64: rows are frequencies."""
    at = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * (at + 0.5) * at[:, None]) * math.sqrt(2 / n)
    basis[0] *= math.sqrt(0.5)
    return basis


def denoised(pixels: Tensor, how: str) -> Tensor:
    """Return images (N, 3, H, W) of values 0 ... 255 without their noise, whole numbers of the same type."""
    if how == "median":
        return median_3x3(pixels, padding="replicate")
    images = pixels.permute(0, 2, 3, 1).to("cpu", torch.uint8).numpy()
    clean = np.stack([cv2.fastNlMeansDenoisingColored(image, None, 3, 3, 7, 21) for image in images])
    return torch.from_numpy(clean).permute(0, 3, 1, 2).to(pixels)
