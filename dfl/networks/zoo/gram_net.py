"""Gram-Net: Liu et al., Global Texture Enhancement for Fake Face Detection in the Wild (CVPR 2020, arXiv 2002.00133).

The texture of a face as a whole tells fakes, and outlasts scaling and compression better than details do. So beside a
ResNet-18 six blocks measure which features come together, anywhere in the image: on the image itself, after the first
convolution, after its pooling, and after three of the four stages.

    features (C, H, W) -> 3x3 convolution to 32 -> G = A A^T / (32 H W), a picture of 32 x 32
                       -> two 3x3 convolutions, stride 2 -> mean -> 32 numbers, times a scale that all blocks share
    512 of the ResNet and 6 x 32 -> linear 512, ReLU, dropout -> linear

Two names: ``gramnet_resnet18`` gets images normalised as ImageNet's; ``gramnet_resnet18_bgr255`` blue, green and red in
0 ... 255, as the published code reads them with OpenCV and does not normalise.
"""

import re
from typing import Any

import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from dfl.networks.about import About

about = About("image classifiers", "Liu et al.", 2020)
_WIDTH = 32
_IMAGENET = {
    "hf_hub_id": "timm/resnet18.tv_in1k",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "conv1",
    "classifier": ("fc", "hidden", "gram"),  # all that a ResNet-18 has not, and that so starts at random
}
default_cfgs = generate_default_cfgs(
    {
        "gramnet_resnet18.tv_in1k": _IMAGENET,
        "gramnet_resnet18_bgr255.tv_in1k": _IMAGENET
        | {"input_size": (3, 512, 512), "mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)},
    }
)
#: What the published code calls the blocks: the convolution on the features, and the two on their Gram matrix.
_BLOCKS = {"i": "0", "0": "1", "1": "2", "2": "3", "3": "4", "4": "5"}
_OFFICIAL = (
    (r"^conv_inter(\w)_0\.(\d)", lambda m: f"gram.{_BLOCKS[m[1]]}.align.{m[2]}"),
    (r"^g_fc([12])r\.(\d)", lambda m: f"gram.2.texture.{int(m[1]) - 1}.{m[2]}"),
    (r"^g([i0234])_fc([12])\.(\d)", lambda m: f"gram.{_BLOCKS[m[1]]}.texture.{int(m[2]) - 1}.{m[3]}"),
    (r"^fcnewr\.0\.", "hidden.0."),
    (r"^fcnewr\.3\.", "fc."),
    (r"^scale\.scale$", "gram.scale"),
)


class GramBlock(nn.Module):
    """Which of 32 features of a map come together, as 32 numbers.

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.align = _convolution(channels, _WIDTH, 1)
        self.texture = nn.Sequential(_convolution(1, 16, 2), _convolution(16, _WIDTH, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 32) of maps (N, C, H, W)."""
        return self.texture(gram(self.align(x))).mean((2, 3))


def gram(x: Tensor) -> Tensor:
    """Return the Gram matrices (N, 1, C, C), float32, of maps (N, C, H, W), divided by C H W."""
    kind = "cpu" if x.is_meta else x.device.type  # autocast knows no device without memory
    with torch.autocast(kind, enabled=False):  # sums over all positions, too large for 16 bits
        rows = x.float().flatten(2)
        return (rows @ rows.mT)[:, None] / rows[0].numel()


class GramNet(ResNet):
    """ResNet-18 with six Gram blocks.

    Args:
        num_classes: Outputs; 0 ends with the 512 features.
        drop_rate: Dropout before the last layer.
        bgr: Turn the colours round first.
        **kwargs: Of timm's ResNet.
    """

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(self, num_classes: int = 2, drop_rate: float = 0.5, bgr: bool = False, **kwargs: Any) -> None:
        block: Any = BasicBlock
        super().__init__(block, (2, 2, 2, 2), num_classes=0, zero_init_last=False, **kwargs)
        self.bgr = bgr
        widths = (3, 64, 64, 64, 128, 256)
        self.gram = nn.ModuleList(GramBlock(width) for width in widths)
        self.gram.scale = nn.Parameter(torch.ones(1))  # one for all blocks
        joined = self.num_features + _WIDTH * len(widths)
        self.num_features = self.head_hidden_size = 512
        self.hidden = nn.Sequential(nn.Linear(joined, 512), nn.ReLU(), nn.Dropout(drop_rate))
        self.reset_classifier(num_classes)
        self.init_weights(zero_init_last=False)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Make a new last layer."""
        self.num_classes = num_classes
        self.fc = nn.Linear(512, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Return (N, 704): of the ResNet 512, of every Gram block 32."""
        image = x.flip(1) if self.bgr else x
        first = self.act1(self.bn1(self.conv1(image)))
        maps = [image, first, self.maxpool(first)]
        for stage in (self.layer1, self.layer2, self.layer3):
            maps.append(stage(maps[-1]))
        textures = [block(x) * self.gram.scale for block, x in zip(self.gram, maps, strict=True)]
        return torch.cat([self.layer4(maps[-1]).mean((2, 3)), *textures], 1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the outputs, or what the last layer gets, (N, 512)."""
        hidden = self.hidden(x)
        return hidden if pre_logits else self.fc(hidden)

    def from_released(self, state: dict[str, Tensor], file: str) -> dict[str, Tensor]:
        """Return a published table under our names; its class 0 is fake, ours is real, so the two change places."""
        if "fcnewr.3.weight" not in state:
            return state
        for pattern, name in _OFFICIAL:
            state = {re.sub(pattern, name, key): value for key, value in state.items()}
        return state | {key: state[key].flip(0) for key in ("fc.weight", "fc.bias")}


def _convolution(channels: int, width: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


def _build(variant: str, pretrained: bool, **kwargs: Any) -> GramNet:
    return build_model_with_cfg(GramNet, variant, pretrained, pretrained_strict=False, **kwargs)


@register_model
def gramnet_resnet18(pretrained: bool = False, **kwargs: Any) -> GramNet:
    """Gram-Net on images normalised as ImageNet's; pretrained: its ResNet-18."""
    return _build("gramnet_resnet18", pretrained, **kwargs)


@register_model
def gramnet_resnet18_bgr255(pretrained: bool = False, **kwargs: Any) -> GramNet:
    """Gram-Net on blue, green and red in 0 ... 255, as the published code has it; pretrained: its ResNet-18."""
    return _build("gramnet_resnet18_bgr255", pretrained, bgr=True, **kwargs)
