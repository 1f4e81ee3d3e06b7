"""Xception cut off after one of its units: only the kept part is built and run, under the names of timm.

timm's ``features_only`` gives other tensors (after the ReLU that begins the next block), knows only some of the cuts,
and keeps all 20.8 million parameters. Weights of the whole network load into the part by name.
"""

import torch.nn.functional as F
from timm.models.xception import Block
from torch import Tensor, nn

from dfl.errors import UserError, near

#: Channels after each unit, in the order in which they run.
WIDTHS = {
    "relu1": 32,
    "relu2": 64,
    "block1": 128,
    "block2": 256,
    **{f"block{i}": 728 for i in range(3, 12)},
    "block12": 1024,
}
#: Beginnings of the names that whole networks have and their parts do not.
BEYOND = ("block", "conv3.", "bn3.", "conv4.", "bn4.", "fc.")


class TruncatedXception(nn.Module):
    """Xception up to a cut, with a 1 x 1 convolution to two classes on top.

    Args:
        cut: Last unit: ``relu1``, ``relu2``, ``block1`` ... ``block12``.
        relu: Whether the convolution sees the ReLU of the cut's output, or the raw sum of the block.

    Raises:
        UserError: For a cut that is none.
    """

    def __init__(self, cut: str = "block2", relu: bool = False) -> None:
        super().__init__()
        if cut not in WIDTHS:
            raise UserError(f"cut is {cut!r}{near(cut, list(WIDTHS))}; choose from {', '.join(WIDTHS)}")
        self.relu = relu
        # the stem is unpadded, unlike in most networks
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32)
        units = list(WIDTHS)[: list(WIDTHS).index(cut) + 1]
        self.deep = "relu2" in units
        if self.deep:
            self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64)
        self.blocks = [name for name in units if name.startswith("block")]
        for before, name in zip(["relu2", *self.blocks], self.blocks, strict=False):
            number = int(name.removeprefix("block"))
            halves = number in (1, 2, 3, 12)
            block = Block(
                WIDTHS[before],
                WIDTHS[name],
                2 if halves else 3,
                2 if halves else 1,
                start_with_relu=number > 1,
                grow_first=number < 12,
            )
            setattr(self, name, block)
        self.convout = nn.Conv2d(WIDTHS[cut], 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits of real and fake (N, 2, h, w)."""
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        if self.deep:
            x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        for name in self.blocks:
            x = getattr(self, name)(x)
        out: Tensor = self.convout(F.relu(x) if self.relu else x)
        return out


def xavier(model: nn.Module, gain: float = 0.02) -> None:
    """Set weights as Patch-Forensics does: Xavier-normal convolutions, BatchNorm around 1 by 0.02, biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight, gain)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
