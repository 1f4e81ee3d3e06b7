"""Alignment and uniformity of features on the unit sphere (Wang and Isola, ICML 2020), as GenD takes them.

    alignment  = mean of |f_i - f_j|^2 over the pairs of one class          features of a class lie together
    uniformity = ln of the mean of exp(-2 |f_i - f_j|^2) over all pairs     and all of them fill the sphere

The pairs are those of the batch of all ranks, whose features are gathered, so the loss is that of one big batch. (The
public code of GenD takes the pairs of each rank alone, and the mean over ranks.)
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dfl.losses.criterion import Criterion
from dfl.losses.cvar import gather_over_ranks

#: Least mean under the logarithm, of the public code: features that are all as far apart as can be have no gradient.
LEAST = 1e-6


def alignment_and_uniformity(feature: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return both losses, float32 scalars; a mean over no pairs is 0.

    Args:
        feature: (N, D), any float dtype; brought to unit length in float32.
        label: (N,) long.
    """
    with torch.autocast(feature.device.type, enabled=False):
        unit = F.normalize(feature.float(), dim=1)
        first, second = torch.triu_indices(len(unit), len(unit), offset=1, device=unit.device)
        squared = (2 - 2 * unit @ unit.T)[first, second].clamp_min(0)
        same = (label[first] == label[second]).float()
        alignment = (squared * same).sum() / same.sum().clamp_min(1)
        mean = squared.mul(-2).exp().mean() if len(unit) > 1 else unit.sum() * 0 + 1
        return alignment, mean.clamp_min(LEAST).log()


class UniformAligned(Criterion):
    """Cross-entropy, or another criterion, and alignment and uniformity of ``feature``.

    Args:
        alignment: Weight of the alignment.
        uniformity: Weight of the uniformity.
        beside: What they are added to; None: cross-entropy.
    """

    def __init__(self, alignment: float = 0.1, uniformity: float = 0.5, beside: Criterion | None = None) -> None:
        super().__init__(locals())
        self.alignment, self.uniformity, self.beside = alignment, uniformity, Criterion.of(beside)

    def build(self, feature: int, logits: int) -> None:
        """Build the other criterion."""
        self.beside.build(feature, logits)

    def forward(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``loss``, ``alignment``, ``uniformity`` and the parts of the other criterion."""
        losses = self.beside(out, batch)
        alignment, uniformity = alignment_and_uniformity(*gather_over_ranks(out["feature"], batch["label"]))
        total = losses["loss"] + self.alignment * alignment + self.uniformity * uniformity
        return losses | {"loss": total, "alignment": alignment, "uniformity": uniformity}
