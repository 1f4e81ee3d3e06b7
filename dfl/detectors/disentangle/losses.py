"""The contrastive loss over pairs of UCF (Yan et al., ICCV 2023) and PG-FDD (Lin et al., CVPR 2024), and LDAM.

With R, F the common features of a batch's reals and fakes, S_r, S_f their forgery-specific ones, ~ a shuffle, and
t(a, p, n) = mean [ |a - p| - |a - n| + margin ]+ :

    t(R, R~, F~) + t(F, F~, R~) + t(S_r, S_r~, S_f~) + t(S_f, S_f~, S_r~)

S is shuffled among samples of the same method, so that a positive shares its method; its negative is always of the
other class, never another method.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfl.errors import UserError


def contrastive_triplets(
    common: Tensor,
    specific: Tensor | None,
    margin: float,
    perm_real: Tensor,
    perm_fake: Tensor,
    perm_specific: Tensor,
) -> Tensor:
    """Return the loss of a batch with rows [reals..., fakes...], as many of each, a float32 scalar.

    Args:
        common: (2p, D), any float dtype.
        specific: (2p, D'), or None for the first two terms alone.
        margin: In feature units; features are not normalised.
        perm_real: (p,) long, the rows of R~.
        perm_fake: (p,) long, the rows of F~.
        perm_specific: (2p,) long, the rows of S~.
    """
    p = len(common) // 2
    with torch.autocast(common.device.type, enabled=False):
        common = common.float()
        real, fake = common[perm_real], common[perm_fake]
        loss = _triplet(common[:p], real, fake, margin) + _triplet(common[p:], fake, real, margin)
        if specific is None:
            return loss
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


def ldam(
    logits: Tensor, target: Tensor, counts: Sequence[int] | Tensor, max_margin: float = 0.5, scale: float = 30.0
) -> Tensor:
    """Return the mean cross-entropy of ``scale`` x logits with rarer classes given a larger margin, a float32 scalar.

    Label-distribution-aware margin loss (Cao et al., NeurIPS 2019), as PG-FDD's demographic loss M uses it.

    The logit of the true class j is lowered by m_j = max_margin x (n_j / min n)^(-1/4). Logits are not normalised.

    Args:
        logits: (N, K), any float dtype.
        target: (N,) long, class ids; rows of -1 are left out, and nothing but them gives 0.
        counts: n_j, training samples by class id, K of them; a class without samples has no margin.
        max_margin: Margin of the rarest class.
        scale: Factor of the logits.

    Raises:
        UserError: If there are not K counts.
    """
    n = torch.as_tensor(counts, dtype=torch.float32, device=logits.device)
    if n.shape != logits.shape[1:]:
        raise UserError(f"a count for each of the {logits.shape[1]} classes, got {n.numel()}")
    with torch.autocast(logits.device.type, enabled=False):
        margin = torch.where(n > 0, n.clamp_min(1) ** -0.25, 0.0)
        margin = margin * (max_margin / margin.max().clamp_min(1e-30))
        in_group = target >= 0
        lowered = logits.float() - F.one_hot(target.clamp_min(0), logits.shape[1]) * margin
        losses = F.cross_entropy(scale * lowered, target.clamp_min(0), reduction="none")
        return (losses * in_group).sum() / in_group.sum().clamp_min(1)
