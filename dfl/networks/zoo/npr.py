"""NPR: Tan et al., Rethinking the Up-Sampling Operations in CNN-based Generative Network for Generalizable Deepfake
Detection (CVPR 2024, arXiv 2312.10461).

A generator doubles its maps towards the end, so neighbouring pixels of a fake depend on each other. What is left of an
image when every block of 2 x 2 pixels loses the value of its first pixel shows it, and little of the content.

    image -> x - up2(down2(x)), nearest -> x 2/3 -> ResNet-50 with a 3x3 first convolution, to its second stage
          -> mean, 512 -> linear
"""

from typing import Any

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn

from dfl.networks.about import About

about = About("image classifiers", "Tan et al.", 2024)
default_cfgs = generate_default_cfgs(
    {
        "npr_resnet50.untrained": {
            "num_classes": 1,
            "input_size": (3, 224, 224),
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": "conv1",
            "classifier": "fc",
        }
    }
)


def residual(x: Tensor) -> Tensor:
    """Return images (N, C, H, W) less the first pixel of every block of 2 x 2; an odd last row or column goes."""
    height, width = x.shape[-2] // 2 * 2, x.shape[-1] // 2 * 2
    x = x[..., :height, :width]
    return x - F.interpolate(x[..., ::2, ::2], scale_factor=2.0, mode="nearest")


class Npr(ResNet):
    """The first two stages of a ResNet-50 on the residual.

    Args:
        num_classes: Outputs.
        **kwargs: Of timm's ResNet.
    """

    layer1: nn.Module
    layer2: nn.Module

    def __init__(self, num_classes: int = 1, **kwargs: Any) -> None:
        block: Any = Bottleneck
        stages: dict[str, Any] = {"channels": (64, 128), "zero_init_last": False}
        super().__init__(block, (3, 4), num_classes=num_classes, **stages | kwargs)
        self.add_module("conv1", nn.Conv2d(3, 64, 3, 2, 1, bias=False))
        self.init_weights(zero_init_last=False)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return maps (N, 512, H / 8, W / 8)."""
        x = self.maxpool(self.act1(self.bn1(self.conv1(residual(x) * 2.0 / 3.0))))
        return self.layer2(self.layer1(x))

    def from_released(self, state: dict[str, Tensor], file: str) -> dict[str, Tensor]:
        """Return a published table under our names; the ``fc`` that its training code adds is never used."""
        if "fc1.weight" not in state:
            return state
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        return {key.replace("fc1.", "fc."): value for key, value in state.items()}


@register_model
def npr_resnet50(pretrained: bool = False, **kwargs: Any) -> Npr:
    """NPR; trained from scratch, so pretrained has no weights."""
    return build_model_with_cfg(Npr, "npr_resnet50", pretrained, **kwargs)
