"""The attention maps of FFD (Dang et al., CVPR 2020): one number for each place, by which features are multiplied."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.models.xception import Block
from torch import Tensor, nn

from dfl.errors import UserError

#: Side of the templates, in cells: of the maps of Xception's middle flow at 299 px.
SIDE = 19


class Regression(nn.Module):
    """Direct regression: a separable 3 x 3 convolution to one channel, without bias; of 728, 7,280 parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, C, h, w) to the map and its log-odds, (N, 1, h, w) each."""
        logit = self.pointwise(self.conv1(feature))
        return logit.sigmoid(), logit.float()


class Appearance(nn.Module):
    """Manipulation appearance model: a weighted sum of fixed templates; 1,079,634 parameters of 728 channels.

    The sum is not kept in [0, 1]; as a probability it is clamped. Maps of another size than 19 x 19, on which the
    published code stops, get the templates resized.

    Args:
        channels: of the features.
        templates: (K, 19, 19) float32 in [0, 1].
    """

    templates: Tensor

    def __init__(self, channels: int, templates: Tensor) -> None:
        super().__init__()
        self.block = Block(channels, channels // 2, 2, 2, start_with_relu=True, grow_first=False)
        self.linear = nn.Linear(channels // 2, len(templates))
        self.register_buffer("templates", templates)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, C, h, w) to the map and its log-odds as a probability, (N, 1, h, w) each."""
        weight = self.linear(F.relu(self.block(feature)).mean((2, 3)))
        size = (feature.shape[2], feature.shape[3])
        shape = self.templates[None]
        if tuple(shape.shape[2:]) != size:
            shape = F.interpolate(shape, size, mode="bilinear", antialias=True, align_corners=False)
        value = torch.einsum("nk,khw->nhw", weight.float(), shape[0])[:, None]
        return value, value.clamp(1e-6, 1 - 1e-6).logit()


def read_templates(folder: str | None) -> Tensor:
    """Return templates (K, 19, 19) float32 in [0, 1] from the PNG files of a folder, by name; ours by default.

    FFD's own, ten with an all-black and an all-white one, are means of the masks of its training set and come with its
    code. Ours stand in for them where they are not at hand: nothing, everything, the halves, and soft discs.

    Raises:
        UserError: If the folder holds no PNG of 19 x 19 pixels.
    """
    if folder is None:
        y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
        halves = [(a > 0).float() for a in (y, -y, x, -x)]
        places = ((0.0, 0.0, 0.6), (-0.35, -0.4, 0.35), (-0.35, 0.4, 0.35), (0.45, 0.0, 0.4))  # face, eyes, mouth
        discs = [(-((y - a) ** 2 + (x - b) ** 2) / (2 * r**2)).exp() for a, b, r in places]
        return torch.stack([torch.zeros_like(x), torch.ones_like(x), *halves, *discs])
    files = sorted(Path(folder).expanduser().glob("*.png"))
    images = [np.asarray(Image.open(file).convert("L"), dtype=np.float32) / 255 for file in files]
    if not images or any(image.shape != (SIDE, SIDE) for image in images):
        raise UserError(f"templates {folder!r} must be a folder of PNG files of {SIDE}x{SIDE} pixels")
    return torch.from_numpy(np.stack(images))
