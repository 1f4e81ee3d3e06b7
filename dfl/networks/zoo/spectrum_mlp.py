"""The multilayer perceptron on spectra of Abdullah et al. (IEEE S&P 2024): N -> 512 -> 32 -> outputs, with ReLU.

Their code calls it LogisticRegression. Most of its parameters are in the first layer: 134 million for 512 x 512 values.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from dfl.networks.about import About
from dfl.networks.zoo.headed import Headed

about = About("frequency", "Abdullah et al.", 2024)


class SpectrumMlp(Headed):
    """A multilayer perceptron on maps of one size.

    Args:
        img_size: Side S of the maps, or height and width.
        in_chans: How many maps.
        num_classes: Outputs.
        hidden: Widths of the hidden layers.
        drop_rate: Dropout after each of them.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 512,
        in_chans: int = 1,
        num_classes: int = 2,
        hidden: Sequence[int] = (512, 32),
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        height, width = to_2tuple(img_size)
        widths = [in_chans * height * width, *hidden]
        layers = [
            nn.Sequential(nn.Linear(inner, outer), nn.ReLU(), nn.Dropout(drop_rate))
            for inner, outer in pairwise(widths)
        ]
        self.layers = nn.Sequential(*layers)
        self.num_features = self.head_hidden_size = widths[-1]
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map z-scored maps (N, C, S, S) to (N, D)."""
        return self.layers(x.flatten(1))


_CFG = {"input_size": (1, 512, 512), "fixed_input_size": True, "num_classes": 2, "crop_pct": 1.0}
default_cfgs = generate_default_cfgs({"spectrum_mlp": _CFG | {"first_conv": "layers.0.0", "classifier": "head"}})


@register_model
def spectrum_mlp(pretrained: bool = False, **kwargs: Any) -> SpectrumMlp:
    """The multilayer perceptron of Abdullah et al."""
    return build_model_with_cfg(SpectrumMlp, "spectrum_mlp", pretrained, **kwargs)
