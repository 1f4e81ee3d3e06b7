"""RePaint: a region is filled by a diffusion model that was trained to make whole images (Lugmayr et al., CVPR 2022).

    noise -> denoise a step, with the known pixels put in at the same level of noise -> ... -> image
                 ^ every `jump` steps: back up by `jump` steps of noise, `resample` - 1 times

Going back and down again lets the region come to agree with what surrounds it. With nothing known and no jumps it is
ordinary sampling of whole images. Two forms are in use, and differ in more than names:

* `Ddim`, of diffusers' RePaintScheduler: levels are multiples of 1000 // steps; the known pixels are put in after a
  step; ``eta`` is the share of fresh noise; a step back is 1000 // steps draws. Known pixels are exact at the end.
* `Ddpm`, of the authors' code: levels are spread evenly over 0 ... 999 and rounded; the known pixels are put in before
  the network looks; ancestral steps, with the network's own variance if it gives one; a step back is one draw.

diffusers' RePaintPipeline draws for a whole batch from the generator of its first image. Here each image has a
generator of its own, so it is the same alone and in any batch, but for the rounding of sums.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

#: (x, t) -> the noise in x as the network sees it. x: float32 (N, C, H, W); t: the level, one of those of training.
#: Twice as many channels are noise and variance.
Network = Callable[[Tensor, int], Tensor]
#: () -> float32 (N, C, H, W) standard normal.
Draw = Callable[[], Tensor]


def schedule(steps: int, jump: int, resample: int) -> list[int]:
    """Return the levels that are walked through, ``steps`` - 1 down to 0 with their jumps back up, and -1, the image.

    Args:
        steps: Levels.
        jump: Levels of a jump back up.
        resample: Times that each stretch of ``jump`` levels is walked down; 1 for no jumps.
    """
    left = dict.fromkeys(range(0, steps - jump, jump), resample - 1)
    level, levels = steps, []
    while level > 0:
        level -= 1
        levels.append(level)
        if left.get(level, 0):
            left[level] -= 1
            levels += range(level + 1, level + jump + 1)
            level += jump
    return [*levels, -1]


def calls(steps: int, jump: int, resample: int) -> int:
    """Return how often the network is called for an image."""
    return sum(after < before for before, after in pairwise(schedule(steps, jump, resample)))


class Levels(ABC):
    """The levels of noise of a sampler, and how one gets from one to the next.

    Args:
        betas: float64 (T,), variance that each level of the training adds.
        steps: Levels that are used.
        clip: Whether estimates of the image are kept within -1 and 1, as pixels are and latents are not.
    """

    def __init__(self, betas: np.ndarray, steps: int, clip: bool = True) -> None:
        self.betas, self.steps, self.clip = betas, steps, clip
        self.kept = np.cumprod(1 - betas)  # share of the image's variance that is left at a level

    @abstractmethod
    def moves(self, levels: list[int]) -> list[tuple[bool, int]]:
        """Return (whether it goes down, level) of each move along a schedule."""

    @abstractmethod
    def timestep(self, level: int) -> int:
        """Return the level of training that stands for a level."""

    def before(self, x: Tensor, level: int, known: Tensor, keep: Tensor, draw: Draw) -> Tensor:
        """Return what the network looks at, at every call but the first."""
        return x

    @abstractmethod
    def down(self, x: Tensor, output: Tensor, level: int, known: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Return x one level down.

        Args:
            x: float32 (N, C, H, W).
            output: Of the network for it.
            level: Where x is.
            known: float32 (N, C, H, W): the image, -1 to 1.
            keep: float32 (N, 1, H, W): 1 where it is known.
            noise: float32 (N, C, H, W).
        """

    @abstractmethod
    def up(self, x: Tensor, level: int, draw: Draw) -> Tensor:
        """Return x one level up."""

    def clean(self, x: Tensor, output: Tensor, kept: float) -> Tensor:
        """Return the image that the network sees in x."""
        image = (x - (1 - kept) ** 0.5 * output[:, : x.shape[1]]) / kept**0.5
        return image.clamp(-1, 1) if self.clip else image


class Ddim(Levels):
    """diffusers' form; ``eta`` 0 draws no noise but that of the known pixels, 1 as much as training added.

    ``steps`` must divide the levels of training, or the first level would hold less than the full noise.
    """

    def __init__(self, betas: np.ndarray, steps: int, clip: bool = True, eta: float = 0.0) -> None:
        super().__init__(betas, steps, clip)
        self.stride, self.eta = len(betas) // steps, eta

    def moves(self, levels: list[int]) -> list[tuple[bool, int]]:
        """Name a move down by the level that it leads to, one up by that it comes from."""
        return [(after < before, min(before, after)) for before, after in pairwise([self.steps, *levels[:-1]])]

    def timestep(self, level: int) -> int:
        """Return a multiple of the stride."""
        return level * self.stride

    def down(self, x: Tensor, output: Tensor, level: int, known: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Step down, and put in the known pixels at the lower level, of the same noise."""
        t = self.timestep(level)
        now, then = float(self.kept[t]), float(self.kept[t - self.stride]) if level else 1.0
        spread = self.eta * ((1 - then) / (1 - now) * (1 - now / then)) ** 0.5
        made = then**0.5 * self.clean(x, output, now) + (1 - then - spread**2) ** 0.5 * output[:, : x.shape[1]]
        given = then**0.5 * known + (1 - then) ** 0.5 * noise
        return keep * given + (1 - keep) * (made + spread * noise)

    def up(self, x: Tensor, level: int, draw: Draw) -> Tensor:
        """Add the noise of ``stride`` levels of training, each drawn."""
        for beta in self.betas[self.timestep(level) :][: self.stride]:
            x = float(1 - beta) ** 0.5 * x + float(beta) ** 0.5 * draw()
        return x


class Ddpm(Levels):
    """The authors' form, with the variance of the network where it gives one, else the smallest that is right.

    ``steps`` is within 2 and the levels of training.
    """

    def __init__(self, betas: np.ndarray, steps: int, clip: bool = True) -> None:
        self.timesteps = np.rint(np.arange(steps) * (len(betas) - 1) / (steps - 1)).astype(int)
        kept = np.cumprod(1 - betas)[self.timesteps]
        super().__init__(1 - kept / np.append(1, kept[:-1]), steps, clip)
        self.small = self.betas * (1 - np.append(1, kept[:-1])) / (1 - kept)  # variance if the image were known
        self.small[0] = self.small[1]

    def moves(self, levels: list[int]) -> list[tuple[bool, int]]:
        """Name a move down by the level that it comes from, one up by that it leads to."""
        return [(after < before, max(before, after)) for before, after in pairwise(levels)]

    def timestep(self, level: int) -> int:
        """Return the nearest level of training; strides differ by one."""
        return int(self.timesteps[level])

    def before(self, x: Tensor, level: int, known: Tensor, keep: Tensor, draw: Draw) -> Tensor:
        """Put in the known pixels, at the level where x is."""
        kept = float(self.kept[level])
        return keep * (kept**0.5 * known + (1 - kept) ** 0.5 * draw()) + (1 - keep) * x

    def down(self, x: Tensor, output: Tensor, level: int, known: Tensor, keep: Tensor, noise: Tensor) -> Tensor:
        """Step down; the network has seen the known pixels already (`before`)."""
        now, then, beta = float(self.kept[level]), float(self.kept[level - 1]) if level else 1.0, self.betas[level]
        image = self.clean(x, output, now)
        mean = float(beta * then**0.5 / (1 - now)) * image + float((1 - beta) ** 0.5 * (1 - then) / (1 - now)) * x
        if not level:
            return mean
        low, high = float(np.log(self.small[level])), float(np.log(beta))
        between = (output[:, x.shape[1] :] + 1) / 2 if output.shape[1] > x.shape[1] else x.new_zeros(1)
        return mean + (0.5 * (low + between * (high - low))).exp() * noise

    def up(self, x: Tensor, level: int, draw: Draw) -> Tensor:
        """Add the noise of a level in one draw."""
        beta = float(self.betas[level])
        return (1 - beta) ** 0.5 * x + beta**0.5 * draw()


@torch.inference_mode()
def repaint(
    network: Network,
    levels: Levels,
    known: Tensor,
    keep: Tensor,
    sources: Sequence[torch.Generator],
    jump: int = 1,
    resample: int = 1,
) -> Tensor:
    """Make what is not known of some images.

    Args:
        network: Predicts noise.
        levels: The sampler.
        known: float32 (N, C, H, W): the images or their latents; where they are not known, the values do not matter.
        keep: float32 (N, 1, H, W): 1 where they are known, 0 where they are to be made.
        sources: On the CPU, one for each image.
        jump: See `schedule`.
        resample: See `schedule`.

    Returns:
        float32 (N, C, H, W).
    """

    def draw() -> Tensor:
        return torch.stack([torch.randn(known.shape[1:], generator=source) for source in sources]).to(known.device)

    x = draw()
    for i, (down, level) in enumerate(levels.moves(schedule(levels.steps, jump, resample))):
        if down:
            x = levels.before(x, level, known, keep, draw) if i else x
            x = levels.down(x, network(x, levels.timestep(level)), level, known, keep, draw())
        else:
            x = levels.up(x, level, draw)
    return x
