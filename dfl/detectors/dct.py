"""Spectra of images, z-scored, and logistic regression: Frank et al., Leveraging Frequency Analysis for Deep Fake Image
Recognition (ICML 2020).

Upsampling leaves traces in the high frequencies. The feature is ln(|c| + 1e-12) of the coefficients c of an orthonormal
DCT-II over rows and columns of the raw values 0 ... 255, each z-scored by mean and population variance over the
training images. The published ridge regression is Keras's; here it is scikit-learn's logistic regression with the same
penalty of squared weights, so its numbers are near, not equal.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor

from dfl.detectors.fitted import LogisticDetector, LogisticHead, Penalty

EPSILON = 1e-12
#: ITU-R 601 in 65536ths, as Pillow's L has it.
LUMA = (19595, 38470, 7471)


class Dct(LogisticDetector):
    """Logistic regression on z-scored log-DCT coefficients.

    Args:
        input_size: Side S of the images in pixels.
        colour: ``rgb``: S x S x 3 coefficients; ``grey``: S x S of Pillow's L.
        penalty: Of the squared weights, relative to the sum of the losses; ``auto``: by cross-validation.
        **kwargs: Of `Detector`.
    """

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(
        self, input_size: int = 128, colour: Literal["rgb", "grey"] = "rgb", penalty: Penalty = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(input_size=input_size, **kwargs)
        self.colour = colour
        self.head = LogisticHead(input_size**2 * (3 if colour == "rgb" else 1), penalty)
        self.register_buffer("basis", dct_basis(input_size), persistent=False)

    basis: Tensor

    def features(self, image: Tensor) -> Tensor:
        """Return the log-coefficients (N, C * S * S), float32; computed in float64."""
        pixels = (255 * image.double()).round()
        if self.colour == "grey":
            pixels = torch.einsum("nchw,c->nhw", pixels, pixels.new_tensor(LUMA))[:, None].add(32768).div(65536).floor()
        coefficients = self.basis @ pixels @ self.basis.T
        return (coefficients.abs() + EPSILON).log().flatten(1).float()


def dct_basis(n: int) -> Tensor:
    """Return the matrix of the orthonormal DCT-II, (n, n) float64: rows are frequencies."""
    at = torch.arange(n, dtype=torch.float64)
    basis = torch.cos(math.pi / n * (at + 0.5) * at[:, None]) * math.sqrt(2 / n)
    basis[0] *= math.sqrt(0.5)
    return basis
