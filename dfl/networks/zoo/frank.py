"""The small CNN of Frank et al. (ICML 2020), on z-scored log-DCT maps.

    maps -> conv 3 -> conv 8 -> average of 2 x 2 -> conv 16 -> average of 2 x 2 -> conv 32 -> linear

All convolutions are 3 x 3 and keep the size; ReLU after each. At 128 x 128 x 3 it has 38,885 parameters with one
output and 169,961 with five, as the public Keras code (MIT).
"""

from typing import Any

from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from dfl.networks.about import About
from dfl.networks.zoo.headed import Headed

about = About("frequency", "Frank et al.", 2020)


class FrankCnn(Headed):
    """The CNN for images of one size.

    Args:
        img_size: Side S of the maps, or height and width.
        in_chans: How many maps.
        num_classes: Outputs; 1 is the log-odds of fake.
    """

    def __init__(self, img_size: int | tuple[int, int] = 128, in_chans: int = 3, num_classes: int = 2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in ((in_chans, 3), (3, 8), (8, 16), (16, 32)):
            layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)]
        del layers[-1], layers[2]  # only after the second and the third
        self.features = nn.Sequential(*layers)
        height, width = to_2tuple(img_size)
        self.num_features = self.head_hidden_size = 32 * (height // 4) * (width // 4)
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map z-scored maps (N, C, S, S) to (N, 32, S // 4, S // 4)."""
        return self.features(x)


_CFG = {"input_size": (3, 128, 128), "fixed_input_size": True, "num_classes": 2, "crop_pct": 1.0}
default_cfgs = generate_default_cfgs({"frank_cnn": _CFG | {"first_conv": "features.0", "classifier": "head"}})


@register_model
def frank_cnn(pretrained: bool = False, **kwargs: Any) -> FrankCnn:
    """The CNN of Frank et al.; nobody has published weights of it."""
    return build_model_with_cfg(FrankCnn, "frank_cnn", pretrained, **kwargs)
