"""The residual network of face recognition: Deng et al., ArcFace (CVPR 2019); Duta et al., Improved Residual Networks.

    face -> 3 x 3 convolution -> four stages, each halving the sides -> (512, H/16, W/16) -> linear -> embedding, 512-d

A block is BN, convolution, BN, PReLU, convolution, BN, and nothing after the sum. Names and shapes are those of the
public files of ArcFace, so these load as they are. An embedding needs faces of 112 px; maps can be had of any size.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from dfl.networks.about import About
from dfl.networks.zoo.headed import Headed

about = About("others", "Deng et al.", 2019)

WIDTHS = (64, 128, 256, 512)


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inner, eps=1e-5)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer, eps=1e-5)
        self.prelu = nn.PReLU(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer, eps=1e-5)
        self.downsample: nn.Module | None = None
        if stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(y)) + (x if self.downsample is None else self.downsample(x))


class IResNet(Headed):
    """IResNet.

    Args:
        layers: Blocks of the four stages.
        num_classes: Length of the embedding; 0 has none, and maps alone.
        in_chans: Channels of the images.
        global_pool: As timm passes it on; not used.
    """

    last = "fc"

    def __init__(
        self, layers: tuple[int, ...] = (3, 13, 30, 3), num_classes: int = 512, in_chans: int = 3, global_pool: str = ""
    ) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = WIDTHS[-1]
        self.conv1 = nn.Conv2d(in_chans, WIDTHS[0], 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(WIDTHS[0], eps=1e-5), nn.PReLU(WIDTHS[0])
        inner = WIDTHS[0]
        for i, (width, count) in enumerate(zip(WIDTHS, layers, strict=True), 1):
            blocks = [_Block(inner, width, 2), *(_Block(width, width, 1) for _ in range(count - 1))]
            self.add_module(f"layer{i}", nn.Sequential(*blocks))
            inner = width
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new head in place; none for 0 classes."""
        self.num_classes, width = num_classes, WIDTHS[-1]
        self.bn2: nn.Module = nn.BatchNorm2d(width, eps=1e-5) if num_classes else nn.Identity()
        self.fc: nn.Module = nn.Linear(width * 7 * 7, num_classes) if num_classes else nn.Identity()
        self.features: nn.Module = nn.BatchNorm1d(num_classes, eps=1e-5) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        """Map normalised images (N, 3, H, W) to (N, 512, ceil(H / 16), ceil(W / 16))."""
        x = self.prelu(self.bn1(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))  # type: ignore[operator]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map maps (N, 512, 7, 7) to embeddings, or to what their layer gets."""
        x = self.bn2(x).flatten(1)
        return x if pre_logits else self.features(self.fc(x))


default_cfgs = generate_default_cfgs(
    {
        "iresnet100": {
            "input_size": (3, 112, 112),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "num_classes": 512,
            "first_conv": "conv1",
            "classifier": ("bn2", "fc", "features"),
        }
    }
)


@register_model
def iresnet100(pretrained: bool = False, **kwargs: Any) -> IResNet:
    """Build the 100-layer network of ArcFace; its weights come from a local file."""
    return build_model_with_cfg(IResNet, "iresnet100", pretrained, **kwargs)
