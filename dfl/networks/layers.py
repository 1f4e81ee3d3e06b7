"""Layers of a backbone: that which a method takes by default, its number of channels, and a last one that is kept."""

from typing import Any

import timm
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


def projection_width(name: str) -> int:
    """Return the outputs of a timm model's pretrained last layer, such as CLIP's projection.

    Raises:
        UserError: If it has none.
    """
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if config is None or not config.num_classes:
        raise UserError(f"projection: {name} has no pretrained last layer to keep; leave model.projection false")
    return int(config.num_classes)


def keep_projection(model: Any, outputs: int) -> None:
    """Freeze a timm model's last layer as its ``projection``, and put a new one, of so many outputs, in its place.

    Raises:
        UserError: If its last layer is not one linear layer.
    """
    name, last = model.pretrained_cfg.get("classifier"), model.get_classifier()
    if not isinstance(name, str) or not isinstance(last, nn.Linear):
        raise UserError("projection: the backbone's last layer is not one linear layer; leave model.projection false")
    model.projection = last.requires_grad_(False)
    model.set_submodule(name, nn.Linear(last.out_features, outputs))
    if hasattr(model, "at_random"):
        model.at_random = (name,)
