"""Losses of LSDA on latents (Yan et al., CVPR 2024, and DeepfakeBench's code); all in float32."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


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
