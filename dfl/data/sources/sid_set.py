"""SID-Set (Huang et al., CVPR 2025): real, fully synthetic and tampered pictures as social media hold them."""

import warnings
from pathlib import Path
from typing import Any

from dfl.data.locators import locate
from dfl.data.sources import descriptions as written
from dfl.data.sources.base import WithSplits
from dfl.data.sources.generators import made_by
from dfl.data.sources.shards import cells
from dfl.data.sources.trees import Row, images_right_in, plain_rows, subfolders
from dfl.errors import UserError

_FLUX = made_by("flux", "synthesis")


class SidSet(WithSplits):
    """``{train,validation,test}/{real,full_synthetic,tampered,masks}``, or ``data/{train,validation}-*.parquet``.

    Three classes (``class_label``), and a binary label: synthetic and tampered are fake. A tampered image without mask
    is given without one. Beware: as folders, real images are JPEG and the others PNG; the label leaks.

    The description set (``text_label_images.zip``, or saberzl/SID_Set_description) says of 3,000 of the images why they
    are what they are. It has images of its own in the same layout, so it may be the root itself; or the root is
    SID-Set, and ``descriptions`` says where the texts are. They become ``explanation``, joined by the image's id.

    Args:
        root: The folder that holds ``data`` or the splits.
        descriptions: The folder of the description set, or a JSON file of texts by names of images. None takes those
            that lie in the root: ``<split>/description/{real,full_synthetic,tampered}_GT.json``, or a column
            ``description`` of the shards.
    """

    get = "get saberzl/SID_Set from the Hugging Face hub (the test as a zip from github.com/hzlsaber/SIDA), or set root"

    def __init__(self, root: str, descriptions: str | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.descriptions = None if descriptions is None else Path(descriptions).expanduser()

    def rows(self, split: str) -> list[Row]:
        folder = written.split_folder(self.root, split)
        if folder is not None and folder.name != "data":
            return self._explained(self._folder(folder), split, (folder / "description").is_dir())
        name = "validation" if split == "val" else split
        shards = sorted(self.root.glob(f"data/{name}-*.parquet")) or sorted(self.root.glob(f"{name}-*.parquet"))
        self.found(shards, f"{name}/{{real,full_synthetic,tampered,masks}} or data/{name}-*.parquet", self.root)
        _check_count(shards)
        rows = [row for file in shards for row in self._shard(file)]
        return self._explained(rows, split, written.has_descriptions(shards[0]))

    def _explained(self, rows: list[Row], split: str, own: bool) -> list[Row]:
        """Return rows with their explanations, of ``descriptions`` or of the root's own."""
        place = self.descriptions or (self.root if own else None)
        if place is None:
            return rows
        return written.joined(rows, written.read(place, split, self), self, f"{place} for {split}")

    def _folder(self, folder: Path) -> list[Row]:
        subs = subfolders(folder)
        self.require(*written.CLASSES, "masks", below=folder)
        unknown = [name for name in subs if name not in (*written.CLASSES, "masks", "description")]
        if unknown:
            raise self.expected(f"nothing but {', '.join(written.CLASSES)} and masks", folder, f"take {unknown[0]} out")
        masks = {p.name: str(p) for p in images_right_in(subs["masks"])}
        rows = plain_rows(subs["real"], 0) + plain_rows(subs["full_synthetic"], 1, **_FLUX)
        for row in plain_rows(subs["tampered"], 1):
            mask = masks.get(f"{Path(row['path']).stem}_mask.png", "")
            rows.append(row | {"class_label": 2, "mask": mask, "method": "tampering"})
        return [row | {"id": written.image_id(row["path"])} for row in rows]

    def _shard(self, file: Path) -> list[Row]:
        rows: list[Row] = []
        explained = self.descriptions is not None or written.has_descriptions(file)
        columns = ["label", "img_id"] if explained else ["label"]
        for i, entry in enumerate(cells(file, columns, ["image", "mask"])):
            kind = int(entry["label"])
            if kind not in written.CLASSES.values():
                raise UserError(f"{file}: row {i} has the label {kind}; expected 0, 1 or 2")
            row: Row = {"path": locate(file, column="image", row=i), "label": int(kind > 0), "class_label": kind}
            if kind == 2:
                row |= {"mask": locate(file, column="mask", row=i), "method": "tampering"}
            name = written.image_id(str(entry.get("img_id", "")))
            rows.append(row | {"id": name} | (_FLUX if kind == 1 else {}))
        return rows


def _check_count(shards: list[Path]) -> None:
    """A name such as ``train-00003-of-00249.parquet`` says how many there should be."""
    last = shards[-1].stem.split("-of-")
    if len(last) == 2 and last[1].isdigit() and int(last[1]) != len(shards):
        text = f"{shards[-1].parent} has {len(shards)} of {int(last[1])} shards such as {shards[-1].name}"
        warnings.warn(f"SidSet: {text}; only these are read", stacklevel=3)
