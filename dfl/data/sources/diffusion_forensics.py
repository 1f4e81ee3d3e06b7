"""DiffusionForensics (Wang et al., ICCV 2023): images of diffusion models, their reconstructions and DIRE maps."""

from typing import Any, Literal

from dfl.data.sources.base import WithSplits
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Row, chosen, first_folder, plain_rows, subfolders


class DiffusionForensics(WithSplits):
    """``{images,recons,dire}/{train,val,test}/{lsun_bedroom,imagenet,celebahq}/{real,<generator>}/**``.

    Any folder but ``real`` is a generator. Beware: the published ``dire`` maps keep real ones as JPEG and fake ones as
    PNG, so the label leaks through the format.

    Args:
        root: The folder that holds ``images``, or ``images`` itself.
        kind: Pictures to read.
        subsets: Subsets to take; None takes all.
        generators: Generators to take; None takes all.
    """

    get = "get it from github.com/ZhendongWang6/DIRE, unpack it there, or set root"

    def __init__(
        self,
        root: str,
        kind: Literal["images", "recons", "dire"] = "images",
        subsets: list[str] | None = None,
        generators: list[str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.kind, self.subsets, self.generators = kind, subsets, generators

    def rows(self, split: str) -> list[Row]:
        base = first_folder(self.root / self.kind / split, self.root / split)
        folders = subfolders(self.found(base, f"{self.kind}/{split}", self.root))
        rows: list[Row] = []
        for subset in chosen(list(folders), self.subsets, "subsets", self):
            classes = subfolders(folders[subset])
            self.require("real", below=folders[subset])
            there = [name for name in classes if name != "real"]
            wanted = [g for g in self.generators if g in there] if self.generators else there
            rows += plain_rows(classes["real"], 0)
            names = ", ".join(self.generators or ["generators"])
            for name in self.found(wanted, f"folders of {names}", folders[subset]):
                rows += plain_rows(classes[name], 1, **made_by(name, "synthesis"))
        return rows
