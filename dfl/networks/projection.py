"""A backbone's pretrained last layer, such as the projection of CLIP, as a frozen part of it."""

from typing import Any

import timm
from torch import nn

from dfl.errors import UserError


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
