"""Networks and parts that two detectors or more use."""

from dfl.networks import zoo  # networks of papers become known to timm
from dfl.networks.about import About
from dfl.networks.backbone import (
    TIMM,
    backbone_and_view,
    create_backbone,
    is_convolutional,
    wants_file,
    without_weights,
)
from dfl.networks.encoder import Encoder
from dfl.networks.layers import find_layer, keep_projection, layer_width, projection_width, usual_layer
from dfl.networks.lora import add_lora, merge_lora, train_layer_norms
from dfl.networks.normalize import Normalize
from dfl.networks.spectrum import LogDct, ZScore
from dfl.networks.svd import add_svd
from dfl.networks.weights import load_named, load_weights, read_state
from dfl.networks.whitening import whiten_patch_embed

__all__ = [
    "TIMM",
    "About",
    "Encoder",
    "LogDct",
    "Normalize",
    "ZScore",
    "add_lora",
    "add_svd",
    "backbone_and_view",
    "create_backbone",
    "find_layer",
    "is_convolutional",
    "keep_projection",
    "layer_width",
    "load_named",
    "load_weights",
    "merge_lora",
    "projection_width",
    "read_state",
    "train_layer_norms",
    "usual_layer",
    "wants_file",
    "whiten_patch_embed",
    "without_weights",
    "zoo",
]
