"""What a sampler asks of a diffusion model that was trained to make whole images."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Denoiser(ABC):
    """A network that tells noise from image, in pixels or in the latents of an autoencoder.

    Attributes:
        shape: (C, H, W) of what it denoises.
        latent: Whether that is the latents of an autoencoder.
        cell: Height and width in pixels of a latent cell; 1 of a model of pixels.
        levels: Levels of noise of its training.
        clip: Whether its estimates of an image are kept within -1 and 1.
        betas: float64 (levels,), variance that each level adds; there when it is open.
    """

    shape: tuple[int, int, int]
    latent: bool = False
    cell: int = 1
    levels: int = 1000
    clip: bool = True
    betas: np.ndarray

    @property
    def size(self) -> int:
        """Height and width in pixels of the images that it was trained on."""
        return self.shape[1] * self.cell

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Return ``sha256`` of what it is, and the rest of what its results depend on; asked before ``open``."""

    @abstractmethod
    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load it.

        Raises:
            UserError: If it cannot be loaded.
        """

    @abstractmethod
    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return the noise, float32 (N, C, H, W), that x, of this shape, holds at level t of the training.

        A network that learnt its variance returns (N, 2C, H, W), the noise first.
        """

    def encoded(self, images: Tensor) -> Tensor:
        """Return float32 (N, C, h, w) of images, float32 (N, 3, size, size) within -1 and 1."""
        return images

    def decoded(self, x: Tensor) -> Tensor:
        """Return images, float32 (N, 3, size, size), of what was made."""
        return x
