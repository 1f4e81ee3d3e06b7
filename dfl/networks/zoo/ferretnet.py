"""FerretNet: what a pixel has beyond its neighbours, classified by a small network (NeurIPS 2025, arXiv 2509.20890).

    image -> x - median of its eight neighbours and 0 -> two convolutions -> four blocks -> 1 x 1 -> average -> linear

A generator's up-sampling makes neighbours depend on each other in its own way; scenery, which a median follows, does
not tell real from fake, so it is taken away first. The median is of normalised values, where 0 is the mean colour.

Names and shapes are those of the public code (Apache-2.0), so its files load as they are. Convolutions in a block are
grouped by input channel: one of neighbours, one of pixels two apart, summed; then a depthwise-separable one.
"""

from typing import Any

import torch.nn.functional as F
from timm.data import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from dfl.networks.about import About
from dfl.networks.median import median_3x3
from dfl.networks.zoo.headed import Headed

about = About("image classifiers", "Liang et al.", 2025)


class _TwoReaches(nn.Module):
    """3 x 3 convolutions of neighbours and of pixels two apart, summed, and mixed by a 1 x 1."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, 1, inner, bias=False)
        self.conv2 = nn.Conv2d(inner, outer, 3, stride, 2, 2, inner, bias=False)
        self.conv3 = nn.Conv2d(outer, outer, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv1(x) + self.conv2(x))


class _Separable(nn.Module):
    """A depthwise 3 x 3 convolution and a 1 x 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth_wise = nn.Conv2d(width, width, 3, 1, 1, 1, width, bias=False)
        self.point_wise = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.point_wise(self.depth_wise(x))


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(_TwoReaches(inner, outer, stride), nn.BatchNorm2d(outer), nn.ReLU()),
            *(_Separable(outer), nn.BatchNorm2d(outer)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inner != outer:
            self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


class FerretNet(Headed):
    """FerretNet with the median of 3 x 3.

    Args:
        stem_width: Channels after the two first convolutions, D / 4; 32 is S, 96 is B.
        num_classes: Outputs; 1 as published, the log-odds of synthetic.
        drop_rate: Dropout before the last layer.
        in_chans: Channels of the images.
        global_pool: ``avg``, or none.
    """

    last = "logit.1"

    def __init__(
        self,
        stem_width: int = 32,
        num_classes: int = 1,
        drop_rate: float = 0.2,
        in_chans: int = 3,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = 4 * stem_width
        self.global_pool = global_pool
        self.feature_info = [{"num_chs": self.num_features, "reduction": 8, "module": "feature.2"}]
        self.cbr1 = _convolution(in_chans, stem_width // 2, 1)
        self.cbr2 = _convolution(stem_width // 2, stem_width, 2)
        stages = [nn.Sequential(_Block(w, 2 * w, 2), _Block(2 * w, 2 * w, 1)) for w in (stem_width, 2 * stem_width)]
        self.feature = nn.Sequential(*stages, nn.Conv2d(self.num_features, self.num_features, 1, bias=False))
        self.logit = nn.Sequential(nn.Dropout(drop_rate), nn.Identity())
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to (N, D, ceil(H / 8), ceil(W / 8))."""
        return self.feature(self.cbr2(self.cbr1(x - median_3x3(x, centre=0.0))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map feature maps to outputs (N, num_classes), or to what the last layer gets (N, D)."""
        x = self.logit[0](x.mean((2, 3)) if self.global_pool else x)
        return x if pre_logits else self.logit[1](x)


def _convolution(inner: int, outer: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU())


_CFG = {
    "input_size": (3, 256, 256),  # the centre of an image, as the public code tests; it trains on 224
    "num_classes": 1,
    "mean": OPENAI_CLIP_MEAN,
    "std": OPENAI_CLIP_STD,
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "first_conv": "cbr1.0",
    "classifier": "logit.1",
}
default_cfgs = generate_default_cfgs({"ferretnet_s": _CFG, "ferretnet_b": _CFG})


@register_model
def ferretnet_s(pretrained: bool = False, **kwargs: Any) -> FerretNet:
    """FerretNet-S, 126,289 parameters: the one whose weights are public."""
    return build_model_with_cfg(FerretNet, "ferretnet_s", pretrained, **{"stem_width": 32} | kwargs)


@register_model
def ferretnet_b(pretrained: bool = False, **kwargs: Any) -> FerretNet:
    """FerretNet-B, 1,057,777 parameters: the one of the paper's tables."""
    return build_model_with_cfg(FerretNet, "ferretnet_b", pretrained, **{"stem_width": 96} | kwargs)
