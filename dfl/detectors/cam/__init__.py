"""Grad-CAM as a localizer, and its trained form."""

from dfl.detectors.cam.detector import GradCam

__all__ = ["GradCam"]
