"""Networks and parts that two detectors or more use."""

from dfl.networks.backbone import create_backbone, is_convolutional, load_named, without_weights
from dfl.networks.grad_cam import find_layer, grad_cam, stretch
from dfl.networks.lora import add_lora, merge_lora
from dfl.networks.whitening import whiten_patch_embed
from dfl.networks.xception import TruncatedXception

__all__ = [
    "TruncatedXception",
    "add_lora",
    "create_backbone",
    "find_layer",
    "grad_cam",
    "is_convolutional",
    "load_named",
    "merge_lora",
    "stretch",
    "whiten_patch_embed",
    "without_weights",
]
