"""Lists in the form of other frameworks: IMDL-BenCo and ForensicHub JSON, SPAI CSV."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dfl.data import csv_files
from dfl.data.sources.base import SPLIT_NAMES, Unsplit, images_in, part, to_table
from dfl.data.sources.names import label_of
from dfl.data.sources.trees import Missing, Row, masked, present, read_json, relocated
from dfl.errors import UserError


class _List(Unsplit):
    """A list of images.

    Args:
        file: The list.
        root: Folder below which the listed images are, whatever folders of another machine stand before them; by
            default the list's own.
        missing: Whether listed images that are not there are an error, or left out with a warning.
    """

    def __init__(self, file: str, root: str | None = None, missing: Missing = "raise", **options: Any) -> None:
        super().__init__(root or str(Path(file).parent), **options)
        self.file, self.missing_images = Path(file).expanduser(), missing

    def items(self, split: str) -> pa.Table:
        if not (self.file.is_file() or self.file.is_dir()):
            raise self.missing("list", self.file)
        rows = self.rows()
        rows = present(self, relocated(rows, self.root), self.file, "set root, or missing: skip", self.missing_images)
        table = part(to_table(rows), split, self.fractions, self.seed)
        return table.filter(pc.equal(table["split"], split)) if any(row.get("split") for row in rows) else table


class ImdlBenco(_List):
    """A JSON list ``[[image, mask or "Negative"], ...]``, or a folder with ``Tp``, ``Gt`` and perhaps ``Au``.

    ``Negative`` is an authentic image. In a folder, masks have the name of their image, with or without ``_gt``.
    """

    get = "make the list as github.com/scu-zjz/IMDLBenCo says, or set file"

    def rows(self) -> list[Row]:
        if self.file.is_dir():
            self.root = self.file
            return self._folder()
        rows: list[Row] = []
        for entry in read_json(self.file, list):
            if not (isinstance(entry, list) and len(entry) == 2 and all(isinstance(v, str) for v in entry)):
                raise UserError(f'{self.file}: expected [image, mask] or [image, "Negative"], found {str(entry)[:80]}')
            fake = entry[1] != "Negative"
            row: Row = {"path": entry[0], "label": int(fake), "class_label": 2 * fake}
            rows.append(row | ({"mask": entry[1], "mask_rule": "mean>127"} if fake else {}))
        return rows

    def _folder(self) -> list[Row]:
        self.require("Tp", "Gt", change="set file to a JSON list, or to Tp and Gt")
        fakes: list[Row] = [{"path": str(p), "label": 1} for p in images_in(self.file / "Tp")]
        masks = {p.stem.removesuffix("_gt"): str(p) for p in images_in(self.file / "Gt")}
        real: list[Row] = [{"path": str(p), "label": 0} for p in images_in(self.file / "Au")]
        rows = real + masked(self, fakes, masks, "mean>127")
        for row in rows:  # as the list would say it
            for column in ("path", "mask"):
                if row.get(column):
                    row[column] = str(Path(row[column]).relative_to(self.file))
        return rows


class ForensicHub(_List):
    """A JSON list ``[{"path": ..., "label": 0 or 1}, ...]``."""

    get = "make the list as github.com/scu-zjz/ForensicHub says, or set file"

    def rows(self) -> list[Row]:
        rows: list[Row] = []
        for entry in read_json(self.file, list):
            if not (isinstance(entry, dict) and isinstance(entry.get("path"), str) and entry.get("label") in (0, 1)):
                raise UserError(f'{self.file}: expected {{"path": ..., "label": 0 or 1}}, found {str(entry)[:80]}')
            rows.append({"path": entry["path"], "label": entry["label"]})
        return rows


class Spai(_List):
    """A CSV file with the columns ``image``, ``class`` (0 real, 1 fake) and ``split``."""

    get = "make the list as github.com/mever-team/spai says, or set file"

    def rows(self) -> list[Row]:
        rows: list[Row] = []
        table = csv_files.read_columns(self.file, ("image", "class"), ("split",))
        splits = table["split"].to_pylist() if "split" in table.column_names else [""] * len(table)
        entries = zip(table["image"].to_pylist(), table["class"].to_pylist(), splits, strict=True)
        for image, name, split in entries:
            label = {"0": 0, "1": 1}.get(name, label_of(name))
            if label is None or (split and split.lower() not in SPLIT_NAMES):
                raise UserError(f"{self.file}: cannot read the class or split of {image}: {name!r}, {split!r}")
            rows.append({"path": image, "label": label, "split": SPLIT_NAMES.get(split.lower(), "")})
        return rows
