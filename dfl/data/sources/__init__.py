"""Sources: one public data set layout per file. Importing one here is what makes it known by its short name."""

from dfl.data.sources.base import ROW_SCHEMA, Source, to_table
from dfl.data.sources.folder import Folder
from dfl.data.sources.kaggle140k import Kaggle140k
from dfl.data.sources.paths import Paths
from dfl.data.sources.table import Table

__all__ = ["ROW_SCHEMA", "Folder", "Kaggle140k", "Paths", "Source", "Table", "to_table"]
