"""ForenSynths (Wang et al., CVPR 2020): trained on ProGAN, tested on thirteen generators. And its re-packs."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from dfl.data.sources.base import Source, to_table
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Row, chosen, class_folders, first_folder, plain_rows, subfolders


class ForenSynths(Source):
    """``train/progan/<class>/{0_real,1_fake}``, ``val`` the same, ``test/<generator>/[<class>/]{0_real,1_fake}``.

    The folder ``progan`` may be absent, as in the packs of NPR and SAFE (``train_ForenSynths/{train,val}/<class>``,
    ``test1_ForenSynths/test/<generator>``): point ``root`` to ``train_ForenSynths`` or to ``test1_ForenSynths``.

    Args:
        root: The folder that holds ``train``, ``val`` and ``test``, or some of them.
        generators: Generators to test on; None takes all.
        classes: LSUN classes to train and validate on, such as car, cat, chair, horse; None takes all.
    """

    get = "get it from github.com/PeterWang512/CNNDetection, unpack it there, or set root"
    citation = "Wang et al., CNN-generated images are surprisingly easy to spot... for now, CVPR 2020"

    def __init__(
        self, root: str, generators: list[str] | None = None, classes: list[str] | None = None, **options: Any
    ) -> None:
        super().__init__(**options)
        self.root, self.generators, self.classes = Path(root).expanduser(), generators, classes

    def items(self, split: str) -> pa.Table:
        names = (split, "CNN_synth_testset") if split == "test" else (split,)
        base = first_folder(*(self.root / name for name in names))
        if base is None:
            raise self.expected(f"the folder {split}", self.root)
        rows: list[Row] = []
        if split == "test":
            folders = subfolders(base)
            for name in chosen(list(folders), self.generators, "generators", self):
                rows += self._rows(folders[name], name)
        else:
            folders = subfolders(first_folder(base / "progan") or base)
            for name in chosen(list(folders), self.classes, "classes", self):
                rows += self._rows(folders[name], "progan")
        return to_table({**row, "split": split} for row in rows)

    def _rows(self, folder: Path, generator: str) -> list[Row]:
        leaves = class_folders(self, folder)
        return [row for leaf, label in leaves for row in plain_rows(leaf, label, **made_by(generator))]
