"""Layers by their names: which one a method takes by default, and how many channels it gives."""

from typing import Any

import torch
from torch import Tensor, nn

from dfl.errors import UserError, near


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return a module by its dotted name.

    Raises:
        UserError: If there is none.
    """
    layers = dict(model.named_modules())
    if not name or name not in layers:
        raise UserError(f"layer is {name!r}, and the backbone has none of that name{near(name, list(layers))}")
    return layers[name]


def usual_layer(model: Any, of_xception: str) -> str:
    """Return the layer that a paper takes of Xception, and of a timm CNN that has none of that name its last stage."""
    return of_xception if hasattr(model, of_xception) else str(model.feature_info[-1]["module"])


def layer_width(model: nn.Module, name: str) -> int:
    """Return how many channels the feature maps of a layer have, by a look at an image of 64 px.

    Raises:
        UserError: If there is no such layer, or it gives no feature maps.
    """
    widths: list[int] = []

    def look(module: nn.Module, args: Any, out: Any) -> None:
        if not isinstance(out, Tensor) or out.ndim != 4:
            raise UserError(f"layer {name!r} gives no feature maps (N, C, h, w); choose another one")
        widths.append(out.shape[1])

    handle = find_layer(model, name).register_forward_hook(look)
    training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, 64, 64))
    finally:
        handle.remove()
        model.train(training)
    if not widths:
        raise UserError(f"layer {name!r} is not run by the backbone; choose another one")
    return widths[0]
