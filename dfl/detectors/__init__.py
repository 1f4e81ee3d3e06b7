"""Detectors: one file, or folder, for each paper. Importing one here is what makes it known by its short name."""

from dfl.detectors.base import Detector
from dfl.detectors.baseline import Baseline
from dfl.detectors.disentangle import FairDisentangle, Ucf
from dfl.detectors.loading import load
from dfl.detectors.vit_scl import VitScl

__all__ = ["Baseline", "Detector", "FairDisentangle", "Ucf", "VitScl", "load"]
