"""Re-synthesis: what a super-resolution network of real images cannot restore."""

from dfl.detectors.resynthesis.detector import Resynthesis
from dfl.detectors.resynthesis.super_resolution import SuperResolution

__all__ = ["Resynthesis", "SuperResolution"]
