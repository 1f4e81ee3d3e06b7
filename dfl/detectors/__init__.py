"""Detectors: one file, or folder, for each paper. Importing one here is what makes it known by its short name."""

from dfl.detectors.attention import AttentionXception
from dfl.detectors.base import Detector
from dfl.detectors.cam import GradCam
from dfl.detectors.classifier import Baseline, Classifier
from dfl.detectors.dct import Dct, DctNetwork
from dfl.detectors.de_fake import DeFake
from dfl.detectors.disentangle import FairDisentangle, Ucf
from dfl.detectors.ensemble import Ensemble
from dfl.detectors.fitted import FittedDetector
from dfl.detectors.fusion import Fusion
from dfl.detectors.hierarchical import Hierarchical
from dfl.detectors.loading import load
from dfl.detectors.lsda import Lsda
from dfl.detectors.patches import PatchForensics
from dfl.detectors.probes import ForestProbe, LinearProbe, NearestNeighbour
from dfl.detectors.resynthesis import Resynthesis, SuperResolution
from dfl.detectors.sida import Sida
from dfl.detectors.tuned import Tuned
from dfl.detectors.vit_scl import VitScl

__all__ = [
    "AttentionXception",
    "Baseline",
    "Classifier",
    "Dct",
    "DctNetwork",
    "DeFake",
    "Detector",
    "Ensemble",
    "FairDisentangle",
    "FittedDetector",
    "ForestProbe",
    "Fusion",
    "GradCam",
    "Hierarchical",
    "LinearProbe",
    "Lsda",
    "NearestNeighbour",
    "PatchForensics",
    "Resynthesis",
    "Sida",
    "SuperResolution",
    "Tuned",
    "Ucf",
    "VitScl",
    "load",
]
