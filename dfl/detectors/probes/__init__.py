"""Probes: classifiers that are fitted to the features of a frozen foundation model."""

from dfl.detectors.probes.linear import LinearProbe

__all__ = ["LinearProbe"]
