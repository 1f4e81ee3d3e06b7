"""LSDA: a student that learns from latents of teachers, moved and mixed beyond the forgeries that were seen."""

from dfl.detectors.lsda.lsda import Lsda

__all__ = ["Lsda"]
