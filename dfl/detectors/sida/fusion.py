"""How the detection of SIDA (Huang et al., CVPR 2025) is let into its segmentation: one cross-attention.

``official`` is the published code: the class logits ask, the [SEG] embedding is the only key and value. A softmax over
one key is 1 whatever is asked, so the output is seg + out(v(seg)): the class has no say in the mask, and the projection
of the class gets a gradient of exactly 0. It is computed step by step: a fused kernel's backward pass leaves rounding
of 1e-7 on some processors, out of which AdamW makes steps of full size.

``two_key`` makes the exchange real: the [SEG] embedding asks, and finds two keys, the projected class logits and
itself.
"""

from typing import Literal

import torch
from torch import Tensor, nn


class SidaFusion(nn.Module):
    """Add to the [SEG] embedding what it finds out from the detection.

    Args:
        dim: C, of the embedding; a multiple of ``heads``.
        heads: Of the attention.
        mode: See the top of this file.
        classes: K, of the detection.
    """

    def __init__(
        self, dim: int, heads: int = 8, mode: Literal["official", "two_key"] = "two_key", classes: int = 3
    ) -> None:
        super().__init__()
        self.mode = mode
        self.project = nn.Linear(classes, dim)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, class_logit: Tensor, seg: Tensor) -> Tensor:
        """Map class logits (N, K) and embeddings (N, C) to the fused embeddings (N, C)."""
        detection, own = self.project(class_logit)[:, None], seg[:, None]
        if self.mode == "official":
            query, keys = detection, own
        else:
            query, keys = own, torch.cat([detection, own], 1)
        # asked for its weights it takes no fused kernel
        return seg + self.attention(query, keys, keys, need_weights=self.mode == "official")[0][:, 0]
