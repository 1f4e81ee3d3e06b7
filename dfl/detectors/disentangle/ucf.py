"""UCF: Yan et al., Uncovering Common Features for Generalizable Deepfake Detection (ICCV 2023).

    loss = CE(common) + 0.1 CE(specific) + 0.3 reconstruction + 0.05 contrastive

as DeepfakeBench's code has it: before the losses, in seven batches of ten, the common features change owners among the
reals and among the fakes. Inference needs the forgery encoder and the common head alone.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from dfl.detectors.base import Losses
from dfl.detectors.disentangle.parts import Disentangling


class Ucf(Disentangling):
    """Two encoders, common and specific forgery features, and a decoder that swaps contents between pairs.

    Args:
        backbone: timm name of the encoders; ``legacy_xception`` is the paper's, and has its names of parameters.
        pretrained: Start the encoders from pretrained weights.
        weights: A file: ImageNet weights of Xception, or a whole model of DeepfakeBench; or a timm tag.
        input_size: Side of the images in pixels, a multiple of 32, at least 64.
        dim: Channels of the encoders' maps.
        methods: Forgery methods in the training data.
        dropout: On the logits of the heads, as in the published code.
        shuffle: Chance that common features are shuffled in a batch.
        margin: Of the contrastive loss.
        specific_weight: Weight of the cross-entropy of methods.
        reconstruction_weight: Weight of the reconstruction.
        contrastive_weight: Weight of the contrastive loss.
        optimizer: Makes the optimizer from the trainable parameters.
        scheduler: Makes the learning-rate scheduler from the optimizer.
    """

    def __init__(
        self,
        backbone: str = "legacy_xception",
        pretrained: bool = True,
        weights: str | None = None,
        input_size: int = 256,
        dim: int = 512,
        methods: int = 4,
        dropout: float = 0.2,
        shuffle: float = 0.7,
        margin: float = 3.0,
        specific_weight: float = 0.1,
        reconstruction_weight: float = 0.3,
        contrastive_weight: float = 0.05,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-4, weight_decay=5e-4),
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__(
            ("encoder_f", "encoder_c"),
            backbone=backbone,
            pretrained=pretrained,
            weights=weights,
            input_size=input_size,
            dim=dim,
            methods=methods,
            specific=True,
            dropout=dropout,
            optimizer=optimizer,
            scheduler=scheduler,
        )
        self.shuffle, self.margin = shuffle, margin
        self.loss_weights = (specific_weight, reconstruction_weight, contrastive_weight)
        self.load_published(weights)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return ``logit`` (N,), ``logits`` (N, 2), ``feature`` (N, dim / 2); in training all that the losses need."""
        if self.training:
            out = self.encode(image)
        else:
            logits, pooled = self.head_sha(self.block_sha(self.encoder_f(image)))
            out = {"common_logits": logits, "common": pooled}
        logits = out["common_logits"]
        return out | {"logit": logits[:, 1] - logits[:, 0], "logits": logits, "feature": out["common"]}

    def loss(self, out: dict[str, Tensor], batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` and its parts ``common``, ``specific``, ``reconstruction``, ``contrastive``."""
        parts = self.paired_losses(out, batch, mix=self.shuffle)
        named = ("specific", "reconstruction", "contrastive")
        total = parts["common"] + sum(w * parts[name] for w, name in zip(self.loss_weights, named, strict=True))
        return {"loss": total, **parts}
