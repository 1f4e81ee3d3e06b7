"""Label-distribution-aware margin loss (LDAM; Cao et al., NeurIPS 2019), as PG-FDD's demographic loss M uses it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from dfl.errors import UserError


def ldam(
    logits: Tensor, target: Tensor, counts: Sequence[int] | Tensor, max_margin: float = 0.5, scale: float = 30.0
) -> Tensor:
    """Return the mean cross-entropy of ``scale`` x logits with rarer classes given a larger margin, a float32 scalar.

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
