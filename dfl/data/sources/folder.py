"""Plain folders of images: class folders with explicit names, with or without split folders above them."""

from pathlib import Path

import pyarrow as pa

from dfl.data.sources.base import SPLIT_NAMES, Source, images_in, part, to_table
from dfl.data.sources.names import label_of
from dfl.errors import UserError


class Folder(Source):
    """Images in ``root/{train,val,test}/{real,fake}/**`` or in ``root/{real,fake}/**``.

    Class folders are known by name, whatever their case (real, 0_real, nature, ... and fake, 1_fake, ai, ...);
    an unknown folder is an error, never a guess. Without split folders, ``fractions`` makes the splits.

    Args:
        root: The folder.
        real: More names of folders that hold real images.
        fake: More names of folders that hold fake images.
        fractions: Share of train, val and test where the set has no split folders. None puts all images
            in every split that is asked for, which suits a set that is only tested on.
        seed: Seed of the split by fraction.
        generator: Name of what made the fakes, kept with each row.
        family: Its family, for example gan or diffusion.
        limit: At most so many images, in all splits or by split.
        limit_seed: Seed of that draw.
    """

    def __init__(
        self,
        root: str,
        real: list[str] | None = None,
        fake: list[str] | None = None,
        fractions: dict[str, float] | None = None,
        seed: int = 0,
        generator: str = "",
        family: str = "",
        limit: int | dict[str, int] | None = None,
        limit_seed: int = 0,
    ) -> None:
        super().__init__(limit, limit_seed)
        self.root = Path(root).expanduser()
        self.real, self.fake = real or [], fake or []
        self.label_told = bool(self.real or self.fake)
        self.fractions, self.seed, self.generator, self.family = fractions, seed, generator, family

    def items(self, split: str) -> pa.Table:
        """Return the rows of a split."""
        if not self.root.is_dir():
            raise self.missing("folder", self.root)
        folders = sorted(p for p in self.root.iterdir() if p.is_dir() and not p.name.startswith("."))
        splits = {SPLIT_NAMES[p.name.lower()]: p for p in folders if p.name.lower() in SPLIT_NAMES}
        if splits:
            if split not in splits:
                raise UserError(f"{self.root} has the splits {', '.join(sorted(splits))}, and none for {split!r}")
            return to_table(self._rows(splits[split], split))
        table = to_table(self._rows(self.root, ""))
        return part(table, split, self.fractions, self.seed)

    def _rows(self, folder: Path, split: str) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
        if not classes:
            raise UserError(f"{folder} has no class folders; expected names such as real and fake")
        for sub in classes:
            label = label_of(sub.name, self.real, self.fake)
            if label is None:
                raise UserError(
                    f"{folder} holds {', '.join(p.name for p in classes)}: {sub.name!r} is neither real nor fake; "
                    f"say which with real: [{sub.name}] or fake: [{sub.name}]"
                )
            for path in images_in(sub):
                made_by = {"generator": self.generator, "family": self.family} if label else {}
                rows.append({"path": str(path), "label": label, "split": split, "class_label": label, **made_by})
        return rows
