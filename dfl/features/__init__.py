"""Features of frozen encoders, kept on disk: an image is encoded once, not once an epoch or a run."""

from dfl.features.store import FeatureStore

__all__ = ["FeatureStore"]
