"""ForenSynths (Wang et al., CVPR 2020): trained on ProGAN, tested on thirteen generators. And its re-packs."""

from typing import Any

from dfl.data.sources.base import WithSplits
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Row, chosen, class_rows, first_folder, subfolders


class ForenSynths(WithSplits):
    """``train/progan/<class>/{0_real,1_fake}``, ``val`` the same, ``test/<generator>/[<class>/]{0_real,1_fake}``.

    The folder ``progan`` may be absent, as in the packs of NPR and SAFE (``train_ForenSynths/{train,val}/<class>``,
    ``test1_ForenSynths/test/<generator>``): point ``root`` to ``train_ForenSynths`` or to ``test1_ForenSynths``.

    Args:
        root: The folder that holds ``train``, ``val`` and ``test``, or some of them.
        generators: Generators to test on; None takes all.
        classes: LSUN classes to train and validate on, such as car, cat, chair, horse; None takes all.
    """

    get = "get it from github.com/PeterWang512/CNNDetection, unpack it there, or set root"

    def __init__(
        self, root: str, generators: list[str] | None = None, classes: list[str] | None = None, **options: Any
    ) -> None:
        super().__init__(root, **options)
        self.generators, self.classes = generators, classes

    def rows(self, split: str) -> list[Row]:
        names = (split, "CNN_synth_testset") if split == "test" else (split,)
        base = self.found(first_folder(*(self.root / name for name in names)), f"the folder {split}", self.root)
        if split == "test":
            folders = subfolders(base)
            makers = {name: name for name in chosen(list(folders), self.generators, "generators", self)}
        else:
            folders = subfolders(first_folder(base / "progan") or base)
            makers = dict.fromkeys(chosen(list(folders), self.classes, "classes", self), "progan")
        return [row for name, by in makers.items() for row in class_rows(self, folders[name], **made_by(by))]
