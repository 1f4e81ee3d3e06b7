"""Contrastive loss over pairs of UCF (Yan et al., ICCV 2023) and PG-FDD (Lin et al., CVPR 2024).

With R, F the common features of a batch's reals and fakes, S_r, S_f their forgery-specific ones, ~ a shuffle, and
t(a, p, n) = mean [ |a - p| - |a - n| + margin ]+ :

    t(R, R~, F~) + t(F, F~, R~) + t(S_r, S_r~, S_f~) + t(S_f, S_f~, S_r~)

S is shuffled among samples of the same method, so that a positive shares its method; its negative is always of the
other class, never another method.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dfl.errors import UserError


def contrastive_triplets(
    common: Tensor,
    specific: Tensor | None,
    methods: Tensor | None,
    margin: float = 3.0,
    perm_real: Tensor | None = None,
    perm_fake: Tensor | None = None,
    perm_specific: Tensor | None = None,
) -> Tensor:
    """Return the loss of a batch with rows [reals..., fakes...], as many of each, a float32 scalar.

    Args:
        common: (2p, D), any float dtype.
        specific: (2p, D'), or None for the first two terms alone.
        methods: (2p,) long, the method that made each image, 0 for reals; only to draw ``perm_specific``.
        margin: In feature units; features are not normalised.
        perm_real: (p,) long, the rows of R~; None draws them from torch's generator of the device.
        perm_fake: (p,) long, the rows of F~.
        perm_specific: (2p,) long, the rows of S~.

    Raises:
        UserError: If the halves are not even, or ``specific`` comes without methods and without a permutation.
    """
    if len(common) % 2 or not len(common):
        raise UserError(f"pairs need as many reals as fakes: the batch has {len(common)} rows")
    p, device = len(common) // 2, common.device
    perm_real = torch.rand(p, device=device).argsort() if perm_real is None else perm_real
    perm_fake = p + torch.rand(p, device=device).argsort() if perm_fake is None else perm_fake
    with torch.autocast(device.type, enabled=False):
        common = common.float()
        real, fake = common[perm_real], common[perm_fake]
        loss = _triplet(common[:p], real, fake, margin) + _triplet(common[p:], fake, real, margin)
        if specific is None:
            return loss
        if perm_specific is None:
            if methods is None:
                raise UserError("the specific features are shuffled within methods: give methods, or perm_specific")
            perm_specific = shuffle_within(methods)
        specific = specific.float()
        mixed = specific[perm_specific]
        real = _triplet(specific[:p], mixed[:p], mixed[p:], margin)
        return loss + real + _triplet(specific[p:], mixed[p:], mixed[:p], margin)


def shuffle_within(classes: Tensor) -> Tensor:
    """Return a random permutation (n,) that moves rows only within their class."""
    mixed = torch.rand(len(classes), device=classes.device).argsort()
    mixed = mixed[classes[mixed].argsort(stable=True)]
    return torch.empty_like(mixed).scatter_(0, classes.argsort(stable=True), mixed)


def _triplet(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    near, far = F.pairwise_distance(anchor, positive, eps=1e-6), F.pairwise_distance(anchor, negative, eps=1e-6)
    return (near - far + margin).clamp_min(0).mean()
