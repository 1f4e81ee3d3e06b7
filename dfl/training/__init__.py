"""Training: the trainer's verbs, and callbacks that make runs repeatable, resumable and visible."""

from dfl.runs.checkpoint import AtomicCheckpointIO
from dfl.runs.last import KeepLast
from dfl.runs.same_run import SameRun
from dfl.training.averaged import EMA, SWA
from dfl.training.determinism import KeyedRandomness
from dfl.training.finite import FiniteLoss
from dfl.training.monitored import Monitored
from dfl.training.preemption import Preemption
from dfl.training.sam import SAM
from dfl.training.stand_still import StandStill

__all__ = [
    "EMA",
    "SAM",
    "SWA",
    "AtomicCheckpointIO",
    "FiniteLoss",
    "KeepLast",
    "KeyedRandomness",
    "Monitored",
    "Preemption",
    "SameRun",
    "StandStill",
]
