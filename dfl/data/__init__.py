"""Data: sources of rows, decoding, transforms, samplers, and the module that makes batches of them."""

from dfl.data.batch import Batch
from dfl.data.datamodule import DataModule
from dfl.data.dataset import ImageDataset
from dfl.data.sources import Folder, Kaggle140k, Paths, Source, Table
from dfl.data.transforms import Transform

__all__ = ["Batch", "DataModule", "Folder", "ImageDataset", "Kaggle140k", "Paths", "Source", "Table", "Transform"]
