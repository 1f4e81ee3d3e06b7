"""Detectors: one file, or folder, for each paper. Importing one here is what makes it known by its short name."""

from dfl.detectors.attention_xception import AttentionXception
from dfl.detectors.base import Detector
from dfl.detectors.classifier import Baseline, Classifier
from dfl.detectors.disentangle import FairDisentangle, Ucf
from dfl.detectors.grad_cam import GradCam
from dfl.detectors.loading import load
from dfl.detectors.patch_forensics import PatchForensics
from dfl.detectors.sida import Sida
from dfl.detectors.vit_scl import VitScl

__all__ = [
    "AttentionXception",
    "Baseline",
    "Classifier",
    "Detector",
    "FairDisentangle",
    "GradCam",
    "PatchForensics",
    "Sida",
    "Ucf",
    "VitScl",
    "load",
]
