"""Backbones of a few thousand parameters, for checkpoints that are kept in the repository."""

from typing import Any

from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer


def _own(words: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments without those that timm has for pretrained weights."""
    return {key: value for key, value in words.items() if not key.startswith(("pretrained", "cache_dir"))}


@register_model
def micro_resnet(pretrained: bool = False, **words: Any) -> ResNet:
    """A residual network of four blocks."""
    return ResNet(BasicBlock, layers=(1, 1, 1, 1), channels=(8, 8, 8, 8), stem_type="deep", stem_width=8, **_own(words))


@register_model
def micro_vit(pretrained: bool = False, **words: Any) -> VisionTransformer:
    """A vision transformer of two blocks."""
    return VisionTransformer(
        **{"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2} | _own(words)
    )
