"""A diffusion model without a file: the exact denoiser of a mixture of Gaussians around toy portraits.

If images are portraits m_i under white noise of deviation g, then the image that is expected behind x = sqrt(a) image +
sqrt(1 - a) noise is known in closed form: with y = x / sqrt(a), s = (1 - a) / a and v = s + g^2, it is

    m + g^2 / v (y - m),   m = sum of softmax(-|y - m_i|^2 / 2v) m_i

So what it makes are the portraits that it holds, as of a model that learnt its training set by heart, under grain that
no camera makes: white, and as strong in the dark as in the light. The portraits never saw a camera's sensor.
"""

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfl.data.toy.faces import GROUPS, draw, make_person, make_pose
from dfl.data.toy.generators import blurred
from dfl.tools.forge.models.denoiser import Denoiser

#: Seed of the portraits (apart from those of data sets), and blur of their optics in pixels.
SEED, BLUR = 2022, (0.4, 1.0)
#: Goes up when the same arguments would give other portraits.
VERSION = 1


@lru_cache(maxsize=1)
def portraits(size: int, n: int) -> np.ndarray:
    """Draw the portraits, float32 (n, 3, size, size) in [0, 1]; at 64 px about 20 ms each."""
    images = []
    for i in range(n):
        rng = np.random.default_rng([SEED, i])
        scene = draw(make_person(rng, *GROUPS[i % len(GROUPS)]), make_pose(rng), rng, size)
        images.append(blurred(scene, rng.uniform(*BLUR)).clip(0, 1).transpose(2, 0, 1))
    return np.stack(images)


class ToyDenoiser(Denoiser):
    """The closed form at the levels of noise of Ho et al. (2020): 1000, rising evenly from 1e-4 to 0.02.

    Args:
        size: Width and height of the images in pixels.
        n: Portraits.
        grain: Deviation of their noise, in values of [-1, 1].
    """

    def __init__(self, size: int, n: int = 512, grain: float = 0.04) -> None:
        self.shape, self.n, self.grain = (3, size, size), n, grain
        self.betas = np.linspace(1e-4, 0.02, self.levels)
        self.kept = np.cumprod(1 - self.betas)

    def about(self) -> dict[str, Any]:
        """Return what the portraits and their grain follow from."""
        known = {"toy": VERSION, "size": self.size, "n": self.n, "grain": self.grain}
        return known | {"sha256": hashlib.sha256(repr(known).encode()).hexdigest()}

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Draw the portraits."""
        # float64 whatever is asked for: scores are differences of large numbers, divided by a small variance
        pixels = torch.from_numpy(portraits(self.size, self.n)).to(device, torch.float64)
        self.means = 2 * pixels.flatten(1) - 1
        self.norms = self.means.square().sum(1)

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return the noise that is expected in x."""
        kept = float(self.kept[t])
        y = x.double().flatten(1) / kept**0.5
        variance = (1 - kept) / kept + self.grain**2
        mean = ((y @ self.means.T - self.norms / 2) / variance).softmax(1) @ self.means
        image = mean + self.grain**2 / variance * (y - mean)
        return ((y - image) * (kept / (1 - kept)) ** 0.5).float().view_as(x)
