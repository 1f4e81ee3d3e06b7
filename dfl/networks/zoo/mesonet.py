"""MesoNet: Afchar et al., MesoNet: a Compact Facial Video Forgery Detection Network (WIFS 2018, arXiv 1809.00888).

Between noise, which video compression destroys, and meaning lie mesoscopic traces; four small convolutions find them.

    image 256 px in [0, 1] -> 4 x [convolution, ReLU, BatchNorm, maximum of 2 x 2, the last time 4 x 4] -> (16, 8, 8)
                           -> dropout -> linear 16, leaky ReLU -> dropout -> linear 1

``mesoinception4`` has, in place of the first two convolutions, four branches that see 1, 3, 5 and 7 pixels at once.

Written after the authors' Keras code, so its weights give its numbers: BatchNorm with epsilon 1e-3 and momentum 0.99,
and features flattened by row, column, channel. There 1 is real; here the output is the log-odds of fake, and weights
are turned round where they are read. One of the layers is disputed: see ``docs/detectors/mesonet.md``.
"""

import re
from typing import Any

import torch
from timm.layers import to_2tuple
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from dfl.errors import UserError
from dfl.networks.about import About
from dfl.networks.zoo.headed import Headed

_CONFIG = {
    "num_classes": 1,
    "input_size": (3, 256, 256),
    "fixed_input_size": True,
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "classifier": "fc2",
}
about = About("image classifiers", "Afchar et al.", 2018)
default_cfgs = generate_default_cfgs({"meso4.untrained": _CONFIG, "mesoinception4.untrained": _CONFIG})
_SHRINKS = 32


class Inception(nn.Module):
    """Four branches side by side: 1x1; and 1x1, then 3x3 at dilation 1, 2 and 3.

    Args:
        channels: Of the input.
        widths: Channels of the branches.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_convolution(channels, widths[0], 1)])
        for dilation, width in enumerate(widths[1:], 1):
            self.branches.append(
                nn.Sequential(_convolution(channels, width, 1), _convolution(width, width, 3, dilation))
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return the branches' maps, one after the other, (N, sum of widths, H, W)."""
        return torch.cat([branch(x) for branch in self.branches], 1)


class MesoNet(Headed):
    """Four convolutions and two linear layers.

    Args:
        convolutions: With their activations, each with its number of channels.
        num_classes: Outputs; 1 as published, the log-odds of fake.
        img_size: Side of the images in pixels; at least 32, and 256 for the published weights.
        drop_rate: Dropout before each linear layer.
    """

    last = "fc2"

    def __init__(
        self,
        convolutions: list[tuple[nn.Module, int]],
        num_classes: int = 1,
        img_size: int | tuple[int, int] = 256,
        drop_rate: float = 0.5,
    ) -> None:
        super().__init__()
        rows, columns = (side // _SHRINKS for side in to_2tuple(img_size))
        if not rows * columns:
            raise UserError(f"MesoNet shrinks images by {_SHRINKS}: input_size is at least that, got {img_size}")
        pools = (2, 2, 2, 4)
        stages = [
            nn.Sequential(convolution, nn.BatchNorm2d(width, eps=1e-3, momentum=0.01), nn.MaxPool2d(pool))
            for (convolution, width), pool in zip(convolutions, pools, strict=True)
        ]
        self.stages = nn.Sequential(*stages)
        self.num_features, self.head_hidden_size = 16 * rows * columns, 16
        self.dropout = nn.Dropout(drop_rate)
        self.fc1, self.activation = nn.Linear(self.num_features, 16), nn.LeakyReLU(0.1)
        self.reset_classifier(num_classes)
        for module in self.modules():  # as Keras starts
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.get_parameter("bias"))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return maps (N, 16, H / 32, W / 32)."""
        return self.stages(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the outputs, or what the last layer gets, (N, 16)."""
        x = self.fc1(self.dropout(x.permute(0, 2, 3, 1).flatten(1)))
        x = self.dropout(self.activation(x))
        return x if pre_logits else self.get_classifier()(x)

    def from_released(self, state: dict[str, Tensor], file: str) -> dict[str, Tensor]:
        """Return the table of a Keras file under our names.

        Its layers are known by kind and number, ``conv2d_5`` before ``conv2d_6``, in the order in which they were made.

        Raises:
            UserError: If it is of the PyTorch port, which is another network.
        """
        if "bn1.weight" in state or "backbone.bn1.weight" in state:
            raise UserError(
                f"{file} holds a PyTorch port of MesoNet (HongguLiu, DeepfakeBench), which is another network: it has "
                "no biases, and layers share their BatchNorm; the Keras files (.h5) of DariusAf/MesoNet fit"
            )
        layers = sorted({key.partition(".")[0] for key in state if "." in key}, key=_kind_and_number)
        if not any(name.startswith("conv2d") for name in layers):
            return state
        places: dict[str, list[str]] = {"conv2d": [], "batch_normalization": [], "dense": []}
        for name, module in self.named_modules():
            kind = {nn.Conv2d: "conv2d", nn.BatchNorm2d: "batch_normalization", nn.Linear: "dense"}.get(type(module))
            if kind:
                places[kind].append(name)
        table = {key: v for key, v in state.items() if _kind_and_number(key.partition(".")[0])[0] not in places}
        for kind, ours in places.items():
            theirs = [layer for layer in layers if _kind_and_number(layer)[0] == kind]
            for number, layer in enumerate(theirs):
                place = ours[number] if number < len(ours) else layer
                table |= {
                    f"{place}.{w}": _turned(state[k]) for word, w in _WORDS.items() if (k := f"{layer}.{word}") in state
                }
        return table | {key: -table[key] for key in ("fc2.weight", "fc2.bias") if key in table}


#: What Keras calls the tensors of its layers.
_WORDS = {
    **{"kernel": "weight", "gamma": "weight", "bias": "bias", "beta": "bias"},
    **{"moving_mean": "running_mean", "moving_variance": "running_var"},
}


def _turned(value: Tensor) -> Tensor:
    """Return a kernel as torch has it: Keras has the outputs last."""
    n = value.ndim
    return value.permute(n - 1, n - 2, *range(n - 2)) if n > 1 else value


def _kind_and_number(layer: str) -> tuple[str, int]:
    kind, _, number = layer.rpartition("_")
    return (kind, int(number)) if re.fullmatch(r"\d+", number) else (layer, 0)


def _convolution(channels: int, width: int, size: int, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (size // 2)
    return nn.Sequential(nn.Conv2d(channels, width, size, padding=padding, dilation=dilation), nn.ReLU())


def _build(variant: str, pretrained: bool, first: list[tuple[nn.Module, int]], **kwargs: Any) -> MesoNet:
    """Return the network with these two convolutions and the two that both variants have."""
    words: dict[str, Any] = {"kwargs_filter": ("in_chans", "global_pool")}  # timm gives them to every network
    last: list[tuple[nn.Module, int]] = [(_convolution(first[1][1], 16, 5), 16), (_convolution(16, 16, 5), 16)]
    return build_model_with_cfg(MesoNet, variant, pretrained, convolutions=first + last, **words | kwargs)


@register_model
def meso4(pretrained: bool = False, **kwargs: Any) -> MesoNet:
    """Meso-4; weights from the authors' .h5 files, none from a hub."""
    return _build("meso4", pretrained, [(_convolution(3, 8, 3), 8), (_convolution(8, 8, 5), 8)], **kwargs)


@register_model
def mesoinception4(pretrained: bool = False, **kwargs: Any) -> MesoNet:
    """MesoInception-4; weights from the authors' .h5 files, none from a hub."""
    first, second = Inception(3, (1, 4, 4, 2)), Inception(11, (2, 4, 4, 2))
    return _build("mesoinception4", pretrained, [(first, 11), (second, 12)], **kwargs)
