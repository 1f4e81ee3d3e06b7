"""Parts of the disentangling detectors UCF (Yan et al., ICCV 2023) and PG-FDD (Lin et al., CVPR 2024).

Names of parameters are those of the published codes, so that their weights load as they are.
"""

import torch
import torch.nn.functional as F
from timm.models.xception import Xception
from torch import Tensor, nn

from dfl.networks import load_named


class XceptionEncoder(Xception):
    """Xception as UCF and PG-FDD cut it: no ReLU after the last norm, and a 1x1 convolution to fewer channels.

    Maps images (N, 3, H, W) to (N, dim, H/32, W/32), rounded up; parameter names are timm's and the published ones.

    Args:
        dim: Channels of the maps.
    """

    def __init__(self, dim: int = 512) -> None:
        super().__init__(num_classes=0)
        self.act4: nn.Module = nn.Identity()  # type: ignore[assignment]
        self.adjust_channel = adjust_channel(self.num_features, dim)

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps."""
        return self.adjust_channel(self.forward_features(image))


class BackboneEncoder(nn.Module):
    """The same of any timm network whose features are maps.

    Args:
        network: Its ``forward_features`` gives (N, num_features, h, w).
        dim: Channels of the maps.
    """

    def __init__(self, network: nn.Module, dim: int = 512) -> None:
        super().__init__()
        self.network = network
        self.adjust_channel = adjust_channel(int(network.num_features), dim)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps."""
        return self.adjust_channel(self.network.forward_features(image))  # type: ignore[operator]


def adjust_channel(inner: int, outer: int) -> nn.Sequential:
    """Return the layer after the backbone."""
    return nn.Sequential(nn.Conv2d(inner, outer, 1), nn.BatchNorm2d(outer), nn.ReLU())


def load_cadene(encoder: XceptionEncoder, state: dict[str, Tensor], source: str) -> None:
    """Load ImageNet weights of Xception as Cadene and FaceForensics give them; what follows the backbone stays.

    Their pointwise weights may lack the two dimensions of size 1; their classifier, ``fc`` or ``last_linear``, is left.

    Raises:
        UserError: If names or shapes do not fit.
    """
    state = {key: value for key, value in state.items() if not key.startswith("adjust_channel.")}
    load_named(encoder, source, spare=("fc.",), fresh=("adjust_channel.",), state=state)


def adain(x: Tensor, y: Tensor) -> Tensor:
    """Return x with the mean and deviation of y in each sample and channel (Huang and Belongie, ICCV 2017, eq. 8).

    The spatial mean of the result is that of y, whatever x is.

    Args:
        x: (N, C, h, w), any float dtype; computed in float32. At least two pixels, or the deviation is not defined.
        y: (N, C, h', w').

    Returns:
        (N, C, h, w) float32.
    """
    x, y = x.float(), y.float()  # and so is what follows: autocast leaves these operations alone
    eps = 1e-5  # added to the variance, which is the unbiased one
    x_var, x_mean = torch.var_mean(x, (2, 3), keepdim=True)
    y_var, y_mean = torch.var_mean(y, (2, 3), keepdim=True)
    return (x - x_mean) * ((y_var + eps) / (x_var + eps)).sqrt() + y_mean


class ConvBlock(nn.Module):
    """Three 1x1 convolutions with leaky ReLU between them: (N, inner, h, w) to (N, outer, h, w)."""

    def __init__(self, inner: int, hidden: int, outer: int) -> None:
        super().__init__()
        self.conv2d = nn.Sequential(
            nn.Conv2d(inner, hidden, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(hidden, outer, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map features."""
        return self.conv2d(x)


class PooledHead(nn.Module):
    """Global average, two linear layers, dropout on the logits: (N, inner, h, w) to logits (N, K) and means (N, inner).

    Dropout after the last layer is the published code's.
    """

    def __init__(self, inner: int, hidden: int, classes: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(inner, hidden), nn.LeakyReLU(inplace=True), nn.Linear(hidden, classes))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and pooled features."""
        pooled = x.mean((2, 3))
        return self.dropout(self.mlp(pooled)), pooled


class ConditionalDecoder(nn.Module):
    """Make an image of a content map, conditioned on a map of how it was forged; its side is 32 times the maps'.

    At each of three levels the content takes the condition's statistics (:func:`adain`), and both are enlarged and
    convolved by the same weights. No skip, no adversary.

    Args:
        dim: Channels of both maps.
    """

    def __init__(self, dim: int = 512) -> None:
        super().__init__()
        self.dconv_up3, self.dconv_up2, self.dconv_up1 = (_double(dim // k, dim // k // 2) for k in (1, 2, 4))
        self.conv_last = nn.Conv2d(dim // 8, 3, 1)
        self.dropout = nn.Dropout(0.3)  # before the convolutions of each level

    def forward(self, condition: Tensor, content: Tensor) -> Tensor:
        """Return images (N, 3, 32 h, 32 w) in [-1, 1] of two maps (N, dim, h, w)."""
        for level in (self.dconv_up3, self.dconv_up2):
            content = level(self._enlarge(adain(content, condition)))
            condition = level(self._enlarge(condition))
        content = self.dconv_up1(self._enlarge(adain(content, condition)))
        return _larger(self.conv_last(content), 4).tanh()

    def _enlarge(self, x: Tensor) -> Tensor:
        return self.dropout(_larger(x, 2))


def _double(inner: int, outer: int) -> nn.Sequential:
    convs = (nn.Conv2d(inner, outer, 3, padding=1), nn.Conv2d(outer, outer, 3, padding=1))
    return nn.Sequential(convs[0], nn.ReLU(inplace=True), convs[1], nn.ReLU(inplace=True))


def _larger(x: Tensor, factor: int) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True)
