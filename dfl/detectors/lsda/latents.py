"""What LSDA does to the latents of its teachers, and its losses on them: Yan et al. (CVPR 2024).

Within a domain a latent z moves relative to the others of its forgery, of mean m; h is the one farthest from m:

    interpolate  z + a (h - z)      extrapolate  z + a (z - m)      noise  z + a s e,  e normal
    difference   z + a (z_1 - z_2)  rotate       z, its map turned about the centre

a and s are drawn from [0, 1]. Across domains a latent is mixed with the one that another method made of the same
original. The draws come from Python's generator, and the noise from torch's; `KeyedRandomness` seeds both before each
step, so a resumed run draws the same, and nothing waits for the device.
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Pool = Literal["latent", "channel"]


def interpolate(z: Tensor, a: float) -> Tensor:
    """Return z (P, ...) moved towards its hardest example, the one farthest from the mean."""
    return z + a * (hardest(z) - z)


def extrapolate(z: Tensor, a: float) -> Tensor:
    """Return z (P, ...) moved away from the mean."""
    return z + a * (z - z.mean(0))


def noise(z: Tensor, a: float, sigma: float, eps: Tensor | None = None) -> Tensor:
    """Return z with noise of deviation a sigma; ``eps``, like z, is drawn where it is not given."""
    return z + a * sigma * (torch.randn_like(z) if eps is None else eps)


def difference(z: Tensor, a: float, one: int, other: int) -> Tensor:
    """Return z (P, ...) moved by the difference of two of its rows."""
    return z + a * (z[one] - z[other])


def rotate(z: Tensor, angle: float) -> Tensor:
    """Return maps (P, C, h, w) turned by an angle in radians, bilinearly, with zeros from outside.

    A matrix product over positions, whose gradient is the same in every run, as that of torch's sampling is not.
    """
    h, w = z.shape[-2:]
    turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    basis = torch.eye(h * w).view(1, h * w, h, w)
    grid = F.affine_grid(turn[None], [1, h * w, h, w], align_corners=False)
    weights = F.grid_sample(basis, grid, align_corners=False).view(h * w, h * w)
    return (z.flatten(-2) @ weights.to(z)).view(z.shape)


def hardest(z: Tensor) -> Tensor:
    """Return the row of z (P, ...) that is farthest from the mean."""
    distance = (z - z.mean(0)).flatten(1).norm(dim=1)
    return z.index_select(0, distance.argmax()[None])[0]


def within(z: Tensor, pool: Pool = "latent") -> Tensor:
    """Return the latents of one domain (G, C, h, w) after one transformation, drawn for the domain.

    Args:
        z: Latents, float32.
        pool: ``latent``: whole latents are the population, and rotation is one of five. ``channel``, as DeepfakeBench's
            code: their G C maps (h, w) are, so that mean, hardest example and difference are those of single maps, of
            whatever channel; no rotation.
    """
    rows = z.flatten(0, 1) if pool == "channel" else z
    kinds: list[Callable[[Tensor], Tensor]] = [
        lambda z: interpolate(z, random.random()),
        lambda z: extrapolate(z, random.random()),
        lambda z: noise(z, random.random(), random.random()),
        lambda z: difference(z, random.random(), random.randrange(len(z)), random.randrange(len(z))),
    ]
    if pool == "latent":
        kinds.append(lambda z: rotate(z, random.uniform(-math.pi, math.pi)))
    return random.choice(kinds)(rows).view(z.shape)


def across(z: Tensor) -> Tensor:
    """Return latents (G, K, C, h, w), each mixed with that of another of the K domains in its group.

    The share is of Beta(b, b) with b drawn from [0.5, 2]; one share and one other domain for all. One domain alone is
    mixed with itself.
    """
    b, k = random.uniform(0.5, 2.0), z.shape[1]
    share, shift = random.betavariate(b, b), random.randrange(1, k) if k > 1 else 0
    return share * z + (1 - share) * z.roll(shift, 1)


def distillation(student: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Return the squared error of the student's latents of reals, and of fakes, each a mean, summed: a scalar.

    Args:
        student: (G, K + 1, C, h, w), the original first.
        real: (G, C, h, w), target of the originals.
        fake: (G, K, C, h, w), target of the forgeries.
    """
    return F.mse_loss(student[:, 0].float(), real.float()) + F.mse_loss(student[:, 1:].float(), fake.float())


def identity(latents: Tensor, near: Sequence[int], far: Sequence[int]) -> Tensor:
    """Return the distances of originals to forgeries that keep a face's identity, less those to ones that swap it.

    A distance is 1 - cosine over the channels, *summed* over images and positions: DeepfakeBench's ``loss_real``, which
    the paper does not have.

    Args:
        latents: (G, K + 1, C, h, w), the original first.
        near: Positions, from 1 on, of the forgeries to be near to.
        far: Of those to be far from.

    Returns:
        A scalar.
    """
    original, *forgeries = latents.float().unbind(1)
    distances = [(1 - F.cosine_similarity(original, forgery, dim=1)).sum() for forgery in forgeries]
    total = original.new_zeros(())
    for sign, places in ((1, near), (-1, far)):
        for place in places:
            total = total + sign * distances[place - 1]
    return total
