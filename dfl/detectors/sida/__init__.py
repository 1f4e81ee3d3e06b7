"""SIDA: a vision-language model that says real, synthetic or tampered, draws the mask and explains."""

from dfl.detectors.sida.sida import Sida

__all__ = ["Sida"]
