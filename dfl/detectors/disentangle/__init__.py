"""Detectors that take an image apart into content, forgery and who is in it: UCF and PG-FDD."""

from dfl.detectors.disentangle.pg_fdd import FairDisentangle
from dfl.detectors.disentangle.ucf import Ucf

__all__ = ["FairDisentangle", "Ucf"]
