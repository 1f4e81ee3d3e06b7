"""A pretrained ViT of which little is trained: its last layer, its LayerNorms, its last singular directions, or LoRA.

    image -> ViT, frozen but for what `tune` names -> feature [-> unit length] -> new last layer -> logit

Trained on the fakes of one generator in full, a network forgets what it knew of natural images, and overfits. The
recipes here keep that knowledge, and differ in what may move:

    linear      nothing: UnivFD (Ojha et al., CVPR 2023), a linear layer on CLIP's projection
    layernorm   weights and biases of LayerNorms: GenD (WACV 2026), with features of unit length (`UniformAligned`)
    svd         the last k singular directions of attention's matrices: Effort (Yan et al., ICML 2025)
    lora        a product of two thin matrices beside some layers (Hu et al. 2021), as in `VitScl`
"""

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, optim

from dfl.detectors.classifier import Classifier
from dfl.errors import UserError
from dfl.networks import About, add_lora, add_svd, load_weights, train_layer_norms
from dfl.networks.backbone import skips_weights

#: Rank and layers where none are given.
USUAL: dict[str, tuple[int, tuple[str, ...]]] = {"lora": (16, ("qkv",)), "svd": (1, ("qkv", "proj"))}


class Tuned(Classifier):
    """A frozen timm backbone with a trained last layer, and with what ``tune`` names.

    Args:
        backbone: timm name.
        tune: What is trained beside the last layer, see the top of this file.
        rank: Of LoRA's update, by default 16; or how many singular directions of each matrix are trained, by default 1.
        alpha: LoRA's scale is alpha / rank.
        dropout: Dropout before LoRA's first matrix.
        targets: Ends of the names of the linear layers that are tuned; by default ``qkv`` with LoRA, ``qkv`` and
            ``proj``, all of attention, with svd.
        unit_length: Features are divided by their Euclidean length before the last layer.
        head_weights: File of a trained last layer, with ``weight`` (outputs, D) and ``bias``: UnivFD's fc_weights.pth.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Classifier`; frozen BatchNorm keeps its statistics.

    Raises:
        UserError: For arguments that contradict each other, and a file that is not there or does not fit.
    """

    about = About("foundation models")

    places: ClassVar[tuple[str, ...]] = ("weights", "head_weights")

    def __init__(
        self,
        backbone: str = "vit_large_patch14_clip_quickgelu_224.openai",
        tune: Literal["linear", "layernorm", "svd", "lora"] = "linear",
        rank: int | None = None,
        alpha: int = 32,
        dropout: float = 0.1,
        targets: tuple[str, ...] | None = None,
        unit_length: bool = False,
        head_weights: str | None = None,
        optimizer: OptimizerCallable = lambda p: optim.AdamW(p, lr=1e-4, weight_decay=0.0),
        **kwargs: Any,
    ) -> None:
        if tune not in USUAL and not (rank is None and targets is None):
            raise UserError(f"rank and targets are of tune: {' and '.join(USUAL)}, not of {tune}: leave them out")
        super().__init__(backbone=backbone, optimizer=optimizer, **kwargs)
        self.unit_length, self.norm_eval = unit_length, True
        if tune == "linear":
            self.network.requires_grad_(False)
        elif tune == "layernorm":
            train_layer_norms(self.network)
        else:
            size, layers = rank or USUAL[tune][0], targets or USUAL[tune][1]
            if tune == "lora":
                add_lora(self.network, size, alpha, dropout, layers)
            else:
                add_svd(self.network, size, layers)
        head = self.network.get_classifier().requires_grad_(True)
        if head_weights is not None and not skips_weights():
            load_weights(head, head_weights)

    def merged(self) -> Classifier:
        """Return a ``Tuned`` of which nothing but the last layer is trained, with LoRA added into its weights."""
        if self.hparams["tune"] != "lora":
            return self
        return self._with_lora_added(Tuned, tune="linear", rank=None, targets=None)

    def features(self, image: Tensor) -> Tensor:
        """Return the input of the last layer, (N, D)."""
        feature = super().features(image)
        return F.normalize(feature.float(), dim=1) if self.unit_length else feature
