"""Networks and parts that two detectors or more use."""

from dfl.networks.backbone import (
    TIMM,
    backbone_and_view,
    create_backbone,
    is_convolutional,
    load_named,
    read_state,
    wants_file,
    without_weights,
)
from dfl.networks.encoder import Encoder
from dfl.networks.layers import find_layer, layer_width, usual_layer
from dfl.networks.lora import add_lora, merge_lora
from dfl.networks.normalize import Normalize
from dfl.networks.whitening import whiten_patch_embed

__all__ = [
    "TIMM",
    "Encoder",
    "Normalize",
    "add_lora",
    "backbone_and_view",
    "create_backbone",
    "find_layer",
    "is_convolutional",
    "layer_width",
    "load_named",
    "merge_lora",
    "read_state",
    "usual_layer",
    "wants_file",
    "whiten_patch_embed",
    "without_weights",
]
