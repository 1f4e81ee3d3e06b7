"""UCF: Yan et al., Uncovering Common Features for Generalizable Deepfake Detection (ICCV 2023).

    loss = CE(common) + 0.1 CE(specific) + 0.3 reconstruction + 0.05 contrastive

as DeepfakeBench's code has it: before the losses, in seven batches of ten, the common features change owners among the
reals and among the fakes. Inference needs the forgery encoder and the common head alone.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor

from dfl.detectors.base import Losses
from dfl.detectors.disentangle.parts import DisentangledOutputs, Disentangling
from dfl.networks import About


class Ucf(Disentangling):
    """Two encoders, common and specific forgery features, and a decoder that swaps contents between pairs.

    Args:
        shuffle: Chance that common features are shuffled in a batch.
        specific_weight: Weight of the cross-entropy of methods.
        reconstruction_weight: Weight of the reconstruction.
        contrastive_weight: Weight of the contrastive loss.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Disentangling`.
    """

    about = About("disentanglement and fairness", "Yan et al.", 2023)

    def __init__(
        self,
        shuffle: float = 0.7,
        specific_weight: float = 0.1,
        reconstruction_weight: float = 0.3,
        contrastive_weight: float = 0.05,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=2e-4, weight_decay=5e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(optimizer=optimizer, **kwargs)
        self.build(("encoder_f", "encoder_c"), specific=True)
        self.shuffle = shuffle
        self.loss_weights = (specific_weight, reconstruction_weight, contrastive_weight)
        self.load_published()

    def forward(self, image: Tensor) -> DisentangledOutputs:
        """Return ``logit`` (N,), ``logits`` (N, 2), ``feature`` (N, dim / 2); in training all that the losses need."""
        if self.training:
            out = self.encode(image)
        else:
            out = DisentangledOutputs()
            out["common_logits"], out["common"] = self.head_sha(self.block_sha(self.encoder_f(self.normalize(image))))
        logits = out["common_logits"]
        return out | {"logit": logits[:, 1] - logits[:, 0], "logits": logits, "feature": out["common"]}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` and its parts ``common``, ``specific``, ``reconstruction``, ``contrastive``."""
        parts = self.paired_losses(out, batch, mix=self.shuffle)
        named = ("specific", "reconstruction", "contrastive")
        total = parts["common"] + sum(w * parts[name] for w, name in zip(self.loss_weights, named, strict=True))
        return {"loss": total, **parts}
