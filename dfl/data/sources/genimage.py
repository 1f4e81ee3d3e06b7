"""GenImage (Zhu et al., NeurIPS 2023): eight generators of the ImageNet classes. Tiny-GenImage has the same tree."""

import re
from pathlib import Path
from typing import Any

from dfl.data.sources.base import TrainTest
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Row, chosen, class_rows, subfolders

_NAME = re.compile(r"imagenet_(?:ai_)?(?:\d{4}_)?(.+)\Z")


class GenImage(TrainTest):
    """``<Generator>/imagenet_ai_MMDD_<generator>/{train,val}/{ai,nature}``; the middle folder may be absent.

    The set's ``val`` is what the field tests on, so it is the split ``test`` here; ``val`` is taken out of ``train``.
    Beware: nature images are JPEG of any size, generated ones PNG of one size. The label leaks through the format.

    Args:
        root: The folder that holds the generators, or one generator.
        generators: Generators to take, by their names without date, such as adm or sdv5; None takes all.
    """

    get = "get it from github.com/GenImage-Dataset/GenImage, unpack all volumes of its zip files there, or set root"

    def __init__(self, root: str, generators: list[str] | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.generators = generators

    def rows(self, split: str) -> list[Row]:
        folders = self._generators()
        rows: list[Row] = []
        for name in chosen(list(folders), self.generators, "generators", self):
            folder = folders[name] / ("val" if split == "test" else "train")
            self.require(folder.name, below=folders[name])
            rows += class_rows(self, folder, **made_by(name, "synthesis"))
        return rows

    def _generators(self) -> dict[str, Path]:
        """Folders that hold train and val, by name of the generator."""
        folders: dict[str, Path] = {}
        tops = {self.root.name: self.root} | subfolders(self.root)
        for top, folder in tops.items():
            for name, path in ({top: folder} | (subfolders(folder) if folder != self.root else {})).items():
                if (path / "train").is_dir() or (path / "val").is_dir():
                    match = _NAME.match(name) or _NAME.match(top)
                    folders.setdefault((match[1] if match else name).lower(), path)
        return self.found(folders, "<Generator>/imagenet_ai_<date>_<generator>/{train,val}/{ai,nature}", self.root)
