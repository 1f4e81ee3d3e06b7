"""The diffusion sets of UniversalFakeDetect (Ojha et al., CVPR 2023): eight generators that share two sets of reals."""

from pathlib import Path
from typing import Any

from dfl.data.sources.base import Unsplit
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Row, chosen, class_folders, first_folder, plain_rows, subfolders

#: The set of reals that belongs to a generator; all others are compared with LAION.
REALS = {"guided": "imagenet"}


class UniversalFakeDetect(Unsplit):
    """``<generator>/1_fake`` beside the shared ``laion/0_real`` and ``imagenet/0_real``.

    The reals that two generators share are given once. In re-packs (``test3_Ojha/test/<generator>/{0_real,1_fake}``)
    each generator has a copy of the reals; of copies with the same name for the same set of reals the first is given.

    Args:
        root: The folder that holds the generators.
        generators: Generators to take; None takes all.
    """

    get = "get it from github.com/WisconsinAIVision/UniversalFakeDetect, unpack it there, or set root"

    def __init__(self, root: str, generators: list[str] | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.generators = generators

    def rows(self) -> list[Row]:
        base = first_folder(self.root / "test") or self.root
        folders = subfolders(base)
        shared = {name: folders.pop(name) for name in ("laion", "imagenet") if name in folders}
        names = chosen(list(folders), self.generators, "generators", self)
        self.found(names, "a folder for each generator", base)
        rows: list[Row] = []
        for real in sorted({REALS.get(name, "laion") for name in names}):
            mine = [name for name in names if REALS.get(name, "laion") == real]
            if not shared:
                rows += self._copies([folders[name] for name in mine])
            elif real in shared:
                rows += self._leaf(shared[real], 0)
            else:
                raise self.expected(f"{real}/0_real, the reals of {', '.join(mine)}", base)
        for name in names:
            rows += self._leaf(folders[name], 1, **made_by(name, "synthesis"))
        return rows

    def _leaf(self, folder: Path, label: int, **maker: str) -> list[Row]:
        leaf = "1_fake" if label else "0_real"
        self.require(leaf, below=folder)
        return plain_rows(folder / leaf, label, **maker)

    def _copies(self, folders: list[Path]) -> list[Row]:
        first: dict[str, Row] = {}
        for leaf in (leaf for folder in folders for leaf, label in class_folders(self, folder) if label == 0):
            for row in plain_rows(leaf, 0):
                first.setdefault(Path(row["path"]).name, row)
        return list(first.values())
