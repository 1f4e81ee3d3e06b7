"""Probes: classifiers that are fitted to the features of a frozen foundation model."""

from dfl.detectors.probes.encoded import LinearProbe
from dfl.detectors.probes.forest import ForestProbe
from dfl.detectors.probes.neighbour import NearestNeighbour

__all__ = ["ForestProbe", "LinearProbe", "NearestNeighbour"]
