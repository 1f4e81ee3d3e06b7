"""Train, compare and explain deepfake detectors. `python -m dfl --help` shows the verbs."""

__version__ = "0.1.0"
