"""Patch-Forensics: a truncated Xception that scores every patch."""

from dfl.detectors.patches.patch_forensics import PatchForensics

__all__ = ["PatchForensics"]
