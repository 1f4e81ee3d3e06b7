"""A pretrained ViT, adapted with LoRA, trained with cross-entropy and the single-center loss.

The loss: Li et al., CVPR 2021. With LoRA on a ViT: Kong et al., MIPR 2023 (arXiv 2303.00917). The backbone stays
frozen, so what it knows of natural images is kept; LoRA changes how its tokens look at each other; the loss draws real
faces to one point and leaves fakes free to be anywhere farther out.

Two heads. ``two_way`` (recommended): a new two-way head, trained. ``frozen``: the construction whose numbers,
589,824 trainable of 87,157,480, are often quoted: the ImageNet head of 1,000 classes stays, frozen, and its classes 0
and 1 stand for real and fake.
"""

from typing import Any, Literal

import numpy as np
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn, optim

from dfl.detectors.baseline import Baseline
from dfl.errors import UserError
from dfl.losses.single_center import Center, EmptyClass
from dfl.networks import add_lora, merge_lora, whiten_patch_embed


class VitScl(Baseline):
    """ViT with LoRA, cross-entropy and the single-center loss.

    Args:
        backbone: timm name of a ViT.
        pretrained: Start from pretrained weights.
        weights: Where from: a local file, or a timm tag. None takes timm's default.
        input_size: Side of the images in pixels; by default the backbone's own.
        timm_args: More arguments of ``timm.create_model``.
        rank: Rank of LoRA's update.
        alpha: LoRA's scale is alpha / rank.
        dropout: Dropout before LoRA's first matrix.
        targets: Ends of the names of the layers that LoRA adapts.
        train_also: Patterns of backbone parameters that are trained in full, for example ``norm*``.
        whiten: Number of training images whose patches the patch embedding whitens before the first step; 0 leaves it
            as it is. A start for a backbone without pretrained weights.
        head: ``two_way`` or ``frozen``, see the top of this file.
        scl_weight: Weight of the single-center loss; 0 leaves it out.
        scl_feature: What it looks at: the input of the head, or its logits.
        scl_margin: Its margin.
        scl_margin_mode: ``sqrt_dim`` multiplies the margin by the square root of the feature's dimensions.
        scl_center: How its center is found.
        scl_empty_class: What it gives for a batch with one class.
        optimizer: Makes the optimizer from the trainable parameters.
        scheduler: Makes the learning-rate scheduler from the optimizer; stepped after each epoch.
    """

    def __init__(
        self,
        backbone: str = "vit_base_patch16_224",
        pretrained: bool = True,
        weights: str | None = None,
        input_size: int | None = None,
        timm_args: dict[str, Any] | None = None,
        rank: int = 16,
        alpha: int = 32,
        dropout: float = 0.1,
        targets: tuple[str, ...] = ("qkv",),
        train_also: tuple[str, ...] = (),
        whiten: int = 0,
        head: Literal["two_way", "frozen"] = "two_way",
        scl_weight: float = 0.5,
        scl_feature: Literal["pre_logits", "logits"] = "pre_logits",
        scl_margin: float = 0.3,
        scl_margin_mode: Literal["sqrt_dim", "absolute"] = "sqrt_dim",
        scl_center: Center = "learnable",
        scl_empty_class: EmptyClass = "real_only",
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=1e-3),
        scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        if head == "frozen":
            timm_args = {"num_classes": 1000} | (timm_args or {})
        super().__init__(
            backbone,
            pretrained,
            weights,
            input_size,
            timm_args=timm_args,
            scl_weight=scl_weight,
            scl_feature=scl_feature,
            scl_margin=scl_margin,
            scl_margin_mode=scl_margin_mode,
            scl_center=scl_center,
            scl_empty_class=scl_empty_class,
            optimizer=optimizer,
            scheduler=scheduler,
        )
        if whiten and (pretrained or weights):
            raise UserError("whiten is a start without pretrained weights: set model.pretrained=false, or whiten=0")
        self.whiten = whiten
        add_lora(self.network, rank, alpha, dropout, targets, train_also)
        if head == "two_way":
            self.network.get_classifier().requires_grad_(True)

    def setup(self, stage: str) -> None:
        """Whiten the patch embedding; a checkpoint's weights come after this."""
        super().setup(stage)
        if stage == "fit" and self.whiten:
            data = self.trainer.datamodule.sets["train"]["train"]  # type: ignore[attr-defined]
            rows = np.linspace(0, len(data) - 1, min(self.whiten, len(data))).astype(int)
            image = self.normalise(torch.stack([data[int(row)]["image"] for row in rows]))
            whiten_patch_embed(self.network.patch_embed.proj, image)

    def merged(self) -> nn.Module:
        """Return a plain timm network with LoRA added into its weights, for export: the same outputs, no extra cost."""
        return merge_lora(self.network)
