"""The parts of re-synthesis: a residual dense network, a distance by VGG19, and a ResNet with the strides of the paper.

Parameters have the names of the published code, so that its files fit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfl.errors import UserError
from dfl.networks.vgg import Vgg

#: Side of an image over that of what it is made anew from.
SCALE = 4
#: Of VGG19's stages in losses.
WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


class _DenseLayer(nn.Module):
    """A 3 x 3 convolution whose output is put beside its input."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(x).relu()], 1)


class _DenseBlock(nn.Module):
    """Dense layers, fused to the width of the input and added to it."""

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(_DenseLayer(dim * (1 + i), dim) for i in range(layers)))
        self.lff = nn.Conv2d(dim * (1 + layers), dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.lff(self.layers(x))


class Rdn(nn.Module):
    """Residual dense network, four times the size (Zhang et al., CVPR 2018): 22,271,107 parameters by default.

    Args:
        dim: Channels of the features, and those that a dense layer adds.
        depth: Blocks.
        layers: Dense layers of a block.
    """

    def __init__(self, dim: int = 64, depth: int = 16, layers: int = 8) -> None:
        super().__init__()
        self.sfe1, self.sfe2 = nn.Conv2d(3, dim, 3, padding=1), nn.Conv2d(dim, dim, 3, padding=1)
        self.rdbs = nn.ModuleList(_DenseBlock(dim, layers) for _ in range(depth))
        self.gff = nn.Sequential(nn.Conv2d(dim * depth, dim, 1), nn.Conv2d(dim, dim, 3, padding=1))
        twice = [(nn.Conv2d(dim, 4 * dim, 3, padding=1), nn.PixelShuffle(2)) for _ in range(2)]
        self.upscale = nn.Sequential(*(layer for both in twice for layer in both))
        self.output = nn.Conv2d(dim, 3, 3, padding=1)

    def forward(self, small: Tensor) -> Tensor:
        """Return images (N, 3, 4h, 4w) of small ones (N, 3, h, w) in [0, 1]; nothing keeps them in [0, 1]."""
        first = self.sfe1(small)
        x, found = self.sfe2(first), []
        for block in self.rdbs:
            x = block(x)
            found.append(x)
        return self.output(self.upscale(self.gff(torch.cat(found, 1)) + first))


def downscaled(image: Tensor) -> Tensor:
    """Return the mean of each 4 x 4 pixels, (N, 3, H / 4, W / 4)."""
    return F.avg_pool2d(image, SCALE)


def distance(made: Tensor, image: Tensor, vgg: Vgg | None, weight: float, squared: bool) -> Tensor:
    """Return how far each image is from the one it was made from, (N,) float32.

    Mean absolute error of pixels, and ``weight`` x the sum over VGG's stages of their mean error times `WEIGHTS`. VGG
    gets images in [0, 1] as they are: the published code does not normalise them.

    Args:
        made: (N, 3, H, W).
        image: The same, of which gradients are not wanted.
        vgg: None leaves its part out.
        weight: Of VGG's part.
        squared: Square VGG's errors (pretraining), or take them as they are (auxiliary tasks).
    """
    each = (made.float() - image.float()).abs().flatten(1).mean(1)
    if vgg is None:
        return each
    with torch.no_grad():
        wanted = vgg(image)
    for share, one, other in zip(WEIGHTS, vgg(made), wanted, strict=True):
        error = (one.float() - other.float()).abs()
        each = each + weight * share * (error.square() if squared else error).flatten(1).mean(1)
    return each


def published_strides(network: Any) -> None:
    """Give a ResNet with a stem of three convolutions the strides of the published code, in place.

    The stem's second convolution and layer1 have stride 2, layer3 and layer4 stride 1: 1/32 as ever, but 1/8 after the
    stem and its pooling, where others have 1/4.

    Raises:
        UserError: If the network is no such ResNet.
    """
    stem = getattr(network, "conv1", None)
    if not isinstance(stem, nn.Sequential) or not hasattr(network, "layer4"):
        raise UserError(
            "model.strides is published, which a ResNet with a deep stem has, such as resnet50s; take usual"
        )
    strided: list[tuple[Any, int]] = [(stem[3], 2)]
    for name, stride in (("layer1", 2), ("layer3", 1), ("layer4", 1)):
        block = getattr(network, name)[0]
        strided.append((block.conv2 if hasattr(block, "conv3") else block.conv1, stride))
        if block.downsample is not None:
            strided.append((block.downsample[0], stride))
    for layer, stride in strided:
        layer.stride = (stride, stride)
