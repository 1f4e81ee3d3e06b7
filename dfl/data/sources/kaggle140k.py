"""140k Real and Fake Faces (Kaggle, xhlulu): 70,000 FFHQ photos and 70,000 StyleGAN faces, 256 px JPEG."""

from pathlib import Path
from typing import Any

from dfl.data import csv_files
from dfl.data.sources.base import WithSplits, images_in
from dfl.data.sources.contradictions import Contradiction
from dfl.data.sources.generators import made_by
from dfl.data.sources.names import label_of
from dfl.data.sources.trees import Row
from dfl.errors import UserError

#: The set's own names of our splits.
FOLDERS = {"train": "train", "val": "valid", "test": "test"}


class Kaggle140k(WithSplits):
    """As it is unpacked: ``{train,valid,test}.csv`` beside ``real_vs_fake/real-vs-fake/<split>/{real,fake}``.

    The label of its CSV files is 1 for real and 0 for fake, so the column ``label_str`` is read instead, and it
    must agree with the folder. Without the CSV files the folders alone are read.

    Args:
        root: The folder that holds ``real_vs_fake``.
    """

    get = "get it from kaggle.com/datasets/xhlulu/140k-real-and-fake-faces, unpack it there, or set root"

    def __init__(self, root: str = "data/140k", **options: Any) -> None:
        super().__init__(root, **options)

    def rows(self, split: str) -> list[Row]:
        places = (self.root / "real_vs_fake" / "real-vs-fake", self.root / "real-vs-fake", self.root)
        base = next((place for place in places if (place / "train").is_dir()), None)
        if base is None:
            raise self.missing("folder real_vs_fake/real-vs-fake/train", self.root)
        name = FOLDERS[split]
        file = self.root / f"{name}.csv"
        paths = self._listed(file, base) if file.is_file() else images_in(base / name)
        rows: list[Row] = []
        for path in paths:
            label = label_of(path.parent.name)
            if label is None:
                raise UserError(f"{path}: its folder is neither real nor fake")
            maker = made_by("stylegan") if label else {}
            rows.append({"path": str(path), "label": label, **maker})
        return rows

    def _listed(self, file: Path, base: Path) -> list[Path]:
        table = csv_files.read_columns(file, ("path", "label_str"))
        paths = [base / p.replace("\\", "/") for p in table["path"].to_pylist()]
        for path, word in zip(paths, table["label_str"].to_pylist(), strict=True):
            if label_of(path.parent.name) != label_of(word):
                raise Contradiction(
                    f"{file} calls {path.parent.name}/{path.name} {word!r}: "
                    "the table and the folders do not belong together"
                )
        return paths
