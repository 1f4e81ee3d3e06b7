"""Training: the trainer's verbs, and callbacks that make runs repeatable, resumable and visible."""

from dfl.training.checkpoint import AtomicCheckpointIO
from dfl.training.determinism import KeyedRandomness
from dfl.training.finite import FiniteLoss
from dfl.training.last import KeepLast
from dfl.training.monitored import Monitored
from dfl.training.preemption import Preemption
from dfl.training.sam import SAM
from dfl.training.same_run import SameRun

__all__ = [
    "SAM",
    "AtomicCheckpointIO",
    "FiniteLoss",
    "KeepLast",
    "KeyedRandomness",
    "Monitored",
    "Preemption",
    "SameRun",
]
