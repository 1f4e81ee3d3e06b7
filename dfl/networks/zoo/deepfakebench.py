"""Networks as DeepfakeBench has them (Yan et al., NeurIPS 2023), where timm's differ, for its released weights.

Its EfficientNet-B4 is that of the package efficientnet_pytorch: TensorFlow's padding, fixed for images of 380 px
whatever their size, so that at 256 px borders lie otherwise than in timm's ``tf_efficientnet_b4``. As a detector of its
own it has another first convolution, without padding; as encoder of LSDA it has the package's. Its Xception, and the
ResNet-34 of its CNN-Aug, are timm's ``legacy_xception`` and ``resnet34``.
"""

from typing import Any

import torch.nn.functional as F
from timm.models import generate_default_cfgs, get_pretrained_cfg, register_model
from timm.models.efficientnet import EfficientNet, tf_efficientnet_b4
from torch import Tensor, nn

from dfl.networks.about import About

about = About("image classifiers", "Yan et al.", 2023)
_CFG = {
    "hf_hub_id": "timm/tf_efficientnet_b4.aa_in1k",
    "num_classes": 1000,
    "input_size": (3, 256, 256),
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "first_conv": "conv_stem",
    "classifier": "classifier",
}
default_cfgs = generate_default_cfgs({"dfb_efficientnet_b4.aa_in1k": _CFG, "dfb_lsda_efficientnet_b4.aa_in1k": _CFG})
#: What is put before and after rows and columns at the convolutions of stride 2, by stage: TensorFlow's of 380 px.
_BORDERS = {1: (0, 1), 2: (2, 2), 3: (0, 1), 5: (1, 2)}


class _Bordered(nn.Conv2d):
    """A convolution with its own number of rows and columns before and after.

    Args:
        like: What it takes the place of.
        before: Rows above and columns on the left.
        after: Rows below and columns on the right.
    """

    def __init__(self, like: nn.Conv2d, before: int, after: int) -> None:
        size, stride = like.kernel_size[0], like.stride[0]
        super().__init__(like.in_channels, like.out_channels, size, stride, groups=like.groups, bias=False)
        self.weight = like.weight
        self.border = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps of maps."""
        return super().forward(F.pad(x, self.border))


@register_model
def dfb_efficientnet_b4(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """EfficientNet-B4 with DeepfakeBench's paddings; pretrained: ImageNet, with AutoAugment."""
    return _bordered("dfb_efficientnet_b4", pretrained, (0, 0), **kwargs)


@register_model
def dfb_lsda_efficientnet_b4(pretrained: bool = False, **kwargs: Any) -> EfficientNet:
    """The EfficientNet-B4 of its LSDA, whose first convolution is padded too; pretrained as the other."""
    return _bordered("dfb_lsda_efficientnet_b4", pretrained, (0, 1), **kwargs)


def _bordered(name: str, pretrained: bool, stem: tuple[int, int], **kwargs: Any) -> EfficientNet:
    kwargs["pretrained_cfg"] = kwargs.get("pretrained_cfg") or get_pretrained_cfg(name)
    model = tf_efficientnet_b4(pretrained, **kwargs)
    model.conv_stem = _Bordered(model.conv_stem, *stem)
    for stage, (before, after) in _BORDERS.items():
        block = model.blocks[stage][0]
        block.conv_dw = _Bordered(block.conv_dw, before, after)
    return model
