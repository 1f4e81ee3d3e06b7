"""Data: sources of rows, decoding, transforms, samplers, and the module that makes batches of them.

Names are imported when they are asked for: the toy set and the data tools start without torch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfl.data.batch import Batch
    from dfl.data.datamodule import DataModule
    from dfl.data.dataset import ImageDataset
    from dfl.data.sources import Folder, Kaggle140k, Paths, Source, Table, Toy
    from dfl.data.transforms import Transform

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # albumentations would ask the package index when it is imported

_FILES = {"Batch": "batch", "DataModule": "datamodule", "ImageDataset": "dataset", "Transform": "transforms"}

__all__ = [
    "Batch",
    "DataModule",
    "Folder",
    "ImageDataset",
    "Kaggle140k",
    "Paths",
    "Source",
    "Table",
    "Toy",
    "Transform",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in __all__:
        raise AttributeError(f"module 'dfl.data' has no attribute {name!r}")
    return getattr(import_module(f"dfl.data.{_FILES.get(name, 'sources')}"), name)
