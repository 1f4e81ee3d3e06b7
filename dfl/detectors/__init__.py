"""Detectors: one file, or folder, for each paper. Importing one here is what makes it known by its short name."""

from dfl.detectors.attention import AttentionXception
from dfl.detectors.base import Detector
from dfl.detectors.cam import GradCam
from dfl.detectors.classifier import Baseline, Classifier
from dfl.detectors.dct import Dct
from dfl.detectors.disentangle import FairDisentangle, Ucf
from dfl.detectors.fitted import FittedDetector
from dfl.detectors.loading import load
from dfl.detectors.patches import PatchForensics
from dfl.detectors.probes import ForestProbe, LinearProbe, NearestNeighbour
from dfl.detectors.sida import Sida
from dfl.detectors.vit_scl import VitScl

__all__ = [
    "AttentionXception",
    "Baseline",
    "Classifier",
    "Dct",
    "Detector",
    "FairDisentangle",
    "FittedDetector",
    "ForestProbe",
    "GradCam",
    "LinearProbe",
    "NearestNeighbour",
    "PatchForensics",
    "Sida",
    "Ucf",
    "VitScl",
    "load",
]
