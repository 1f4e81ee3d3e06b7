"""Training: the trainer's verbs, and callbacks that make runs repeatable and visible."""

from dfl.training.determinism import KeyedRandomness

__all__ = ["KeyedRandomness"]
