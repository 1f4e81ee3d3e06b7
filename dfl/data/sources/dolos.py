"""Dolos (Tantaru et al., WACV 2024): faces with one region painted in by diffusion and other models, with masks."""

from pathlib import Path
from typing import Any

from dfl.data.sources.base import WithSplits
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Row, chosen, plain_rows, subfolders
from dfl.errors import UserError

FOLDERS = {"train": "train", "val": "valid", "test": "test"}


class Dolos(WithSplits):
    """``{celebahq,ffhq}/real/<split>``, ``.../fake/p2/<split>``, ``.../fake/<generator>/{images,masks}/<split>``.

    Validation is called ``valid``. An image and its mask share their name. p2 are whole generated faces without masks.

    Args:
        root: The folder ``data`` that holds ``celebahq`` and ``ffhq``.
        dataset: Which faces.
        generators: Generators to take, such as repaint-p2-9k, ldm, lama, pluralistic; None takes all that are there.
        reals: Whether real images are taken too.
    """

    get = "get it from github.com/bit-ml/dolos, unpack it there, or set root"

    def __init__(
        self,
        root: str,
        dataset: str = "celebahq",
        generators: list[str] | None = None,
        reals: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.dataset, self.generators, self.reals = dataset, generators, reals

    def rows(self, split: str) -> list[Row]:
        base = self.root / self.dataset
        self.require(f"{self.dataset}/real/{FOLDERS[split]}")
        rows = plain_rows(base / "real" / FOLDERS[split], 0) if self.reals else []
        folders = subfolders(base / "fake")
        for name in chosen(list(folders), self.generators, "generators", self):
            rows += self._fakes(folders[name], name, FOLDERS[split])
        # the same original was painted in by all generators
        return [row | {"source": f"{self.dataset}/{Path(row['path']).stem}"} for row in rows]

    def _fakes(self, folder: Path, name: str, split: str) -> list[Row]:
        if (folder / split).is_dir():
            return plain_rows(folder / split, 1, **made_by(name, "synthesis"))
        images, masks = folder / "images" / split, folder / "masks" / split
        if not images.is_dir():
            if (self.dataset, name, split) == ("ffhq", "repaint-p2", "test"):
                return []  # the set has none
            raise self.expected(f"images/{split} and masks/{split}", folder)
        there = {p.name for p in masks.iterdir()} if masks.is_dir() else set()
        # of the gray values between its code takes the dark half in training and validation, and all in the test
        rule = "r<255" if split == "test" else "r<128"
        rows: list[Row] = []
        for row in plain_rows(images, 1, **made_by(name, "inpainting")):
            file = Path(row["path"]).name
            if file not in there:
                raise UserError(
                    f"Dolos: no mask for {row['path']}; expected {masks / file}; unpack the masks, or set root"
                )
            rows.append(row | {"class_label": 2, "mask": str(masks / file), "mask_rule": rule})
        return rows
