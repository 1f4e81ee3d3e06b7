"""A pretrained ViT, adapted with LoRA, trained with cross-entropy and the single-center loss.

The loss: Li et al., CVPR 2021. With LoRA on a ViT: Kong et al., MIPR 2023 (arXiv 2303.00917). The backbone stays
frozen, so what it knows of natural images is kept; LoRA changes how its tokens look at each other; the loss draws real
faces to one point and leaves fakes free to be anywhere farther out.

Two heads. ``two_way`` (recommended): a new two-way head, trained. ``frozen``: the construction whose numbers,
589,824 trainable of 87,157,480, are often quoted: the ImageNet head of 1,000 classes stays, frozen, and its classes 0
and 1 stand for real and fake.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor

from dfl.detectors.classifier import Classifier
from dfl.errors import UserError
from dfl.losses import Criterion, SingleCenter
from dfl.networks import About, add_lora, whiten_patch_embed


class VitScl(Classifier):
    """ViT with LoRA, cross-entropy and the single-center loss.

    Args:
        backbone: timm name of a ViT.
        rank: Rank of LoRA's update.
        alpha: LoRA's scale is alpha / rank.
        dropout: Dropout before LoRA's first matrix.
        targets: Ends of the names of the layers that LoRA adapts.
        train_also: Patterns of backbone parameters that are trained in full, for example ``norm*``.
        whiten: Number of training images whose patches the patch embedding whitens before the first step; 0 leaves it
            as it is. A start for a backbone without pretrained weights.
        head: ``two_way`` or ``frozen``, see the top of this file.
        criterion: What it is trained with; None: the single-center loss.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Classifier`.
    """

    about = About("foundation models", "Kong et al.", 2023)

    def __init__(
        self,
        backbone: str = "vit_base_patch16_224",
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.1,
        targets: tuple[str, ...] = ("qkv",),
        train_also: tuple[str, ...] = (),
        whiten: int = 0,
        head: Literal["two_way", "frozen"] = "two_way",
        criterion: Criterion | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.Adam(p, lr=1e-3),
        **kwargs: Any,
    ) -> None:
        if head == "frozen":
            kwargs["timm_args"] = {"num_classes": 1000} | (kwargs.get("timm_args") or {})
        criterion = SingleCenter() if criterion is None else criterion
        super().__init__(backbone=backbone, criterion=criterion, optimizer=optimizer, **kwargs)
        if whiten and (kwargs.get("pretrained", True) or kwargs.get("weights")):
            raise UserError("whiten is a start without pretrained weights: set model.pretrained=false, or whiten=0")
        self.whiten = whiten
        add_lora(self.network, rank, alpha, dropout, targets, train_also)
        if head == "two_way":
            self.network.get_classifier().requires_grad_(True)

    def observe(self, sample: Callable[[int], Tensor], counts: Callable[..., dict[int, int]]) -> None:
        """Whiten the patch embedding."""
        super().observe(sample, counts)
        if self.whiten:
            whiten_patch_embed(self.network.patch_embed.proj, self.normalize(sample(self.whiten)))

    def merged(self) -> Classifier:
        """Return a `Classifier` with LoRA added into its weights."""
        return self._with_lora_added(Classifier)
