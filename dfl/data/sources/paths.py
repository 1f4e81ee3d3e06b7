"""Files and folders named by hand, without labels: what `predict` scores."""

from pathlib import Path

import pyarrow as pa

from dfl.data.decoding import on_disk
from dfl.data.sources.base import NO_URLS, Source, images_in, is_url, to_table
from dfl.errors import UserError


class Paths(Source):
    """Images and folders of images; the label of every row is -1 (unknown).

    Args:
        paths: Image files, and folders that are searched with all their subfolders.
    """

    def __init__(self, paths: list[str]) -> None:
        super().__init__()
        self.paths = [Path(on_disk(p)).expanduser() for p in paths]

    def items(self, split: str) -> pa.Table:
        """Return one row for each image, in the order given; the split does not matter."""
        files: list[Path] = []
        for path in self.paths:
            if not path.exists():
                if is_url(path):
                    raise UserError(f"{path} is an address; {NO_URLS}")
                raise UserError(f"no file or folder {str(path)!r} in {Path.cwd()}")
            files += images_in(path) if path.is_dir() else [path]
        if not files:
            raise UserError(f"no image in {', '.join(map(str, self.paths))}")
        return to_table({"path": str(f), "label": -1} for f in files)

    def __repr__(self) -> str:
        return f"Paths({', '.join(map(str, self.paths))})"
