"""Networks and parts that two detectors or more use."""

from dfl.networks.backbone import create_backbone, is_convolutional, read_state, wants_file, without_weights
from dfl.networks.disentangle import ConditionalDecoder, ConvBlock, PooledHead, adain
from dfl.networks.lora import add_lora, merge_lora
from dfl.networks.whitening import whiten_patch_embed
from dfl.networks.xception import BackboneEncoder, XceptionEncoder

__all__ = [
    "BackboneEncoder",
    "ConditionalDecoder",
    "ConvBlock",
    "PooledHead",
    "XceptionEncoder",
    "adain",
    "add_lora",
    "create_backbone",
    "is_convolutional",
    "merge_lora",
    "read_state",
    "wants_file",
    "whiten_patch_embed",
    "without_weights",
]
