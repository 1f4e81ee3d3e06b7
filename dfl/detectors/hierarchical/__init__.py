"""Hierarchical: real or fake, which family, which generator."""

from dfl.detectors.hierarchical.detector import Hierarchical

__all__ = ["Hierarchical"]
