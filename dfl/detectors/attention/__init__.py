"""FFD: an attention map in the middle of an Xception."""

from dfl.detectors.attention.attention_xception import AttentionXception

__all__ = ["AttentionXception"]
