"""Realistic tampering with masks: NIST16, IMD2020, Korus."""

from pathlib import Path
from typing import Any

from dfl.data import csv_files
from dfl.data.masks import check_rule
from dfl.data.sources.base import Unsplit
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Missing, Row, first_folder, images_right_in, masked, present, subfolders


class Nist16(Unsplit):
    """``NC2016_Test0601`` as released: ``probe``, ``world`` and ``reference/<task>/NC2016-<task>-ref.csv``.

    The tables have ``|`` between their fields. A probe that several tasks list is given once, as fake if any says so.
    For the re-pack with Tp and Gt (NIST16_1024) take ``ImdlBenco``.

    Args:
        root: The folder ``NC2016_Test0601``, or the one that holds it.
        tasks: Tasks to take.
        mask_rule: How to read its masks (``dfl/data/masks.py``): black = tampered is recalled, not yet seen.
        missing: Whether listed images that are not there are an error, or left out with a warning.
    """

    get = "ask NIST for the Nimble Challenge 2016 set, unpack it there, or set root"

    def __init__(
        self,
        root: str,
        tasks: list[str] | None = None,
        mask_rule: str = "max<128",
        missing: Missing = "raise",
        **options: Any,
    ) -> None:
        super().__init__(root, **options)
        self.tasks = tasks or ["manipulation", "removal", "splice"]
        self.mask_rule, self.missing_images = check_rule(mask_rule), missing

    def rows(self) -> list[Row]:
        base = first_folder(self.root / "NC2016_Test0601") or self.root
        by_path: dict[str, Row] = {}
        for task in self.tasks:
            name = f"reference/{task}/NC2016-{task}-ref.csv"
            table = self.require_file(name, base, "unpack it, or set tasks or root")
            needed = ("ProbeFileName", "ProbeMaskFileName", "IsTarget")
            for entry in csv_files.read_columns(table, needed, ("BaseFileName",)).to_pylist():
                row = self._row(base, task, entry)
                if row["label"] or row["path"] not in by_path:
                    by_path[row["path"]] = row
        change = "unpack the rest, or set missing: skip"
        return present(self, list(by_path.values()), base / "reference", change, self.missing_images)

    def _row(self, base: Path, task: str, entry: dict[str, str]) -> Row:
        fake = entry["IsTarget"] == "Y"
        row: Row = {"path": str(base / entry["ProbeFileName"]), "label": int(fake), "class_label": 2 * fake}
        original = entry.get("BaseFileName") or ("" if fake else entry["ProbeFileName"])
        row["source"] = f"nist16/{Path(original).stem}" if original else ""
        if fake:
            row |= made_by("manual", task)
            if entry["ProbeMaskFileName"]:
                row |= {"mask": str(base / entry["ProbeMaskFileName"]), "mask_rule": self.mask_rule}
        return row


class Imd2020(Unsplit):
    """One folder for each original: ``*_orig.jpg``, its edits, and ``<edit>_mask.png``."""

    get = "get the real-life set from staff.utia.cas.cz/novozada/db, unpack it there, or set root"

    def rows(self) -> list[Row]:
        real: list[Row] = []
        fakes: list[Row] = []
        masks: dict[str, str] = {}
        for name, folder in subfolders(self.root).items():
            shared = {"source": f"imd2020/{name}"}
            for path in images_right_in(folder):
                if path.stem.endswith("_mask"):
                    masks[f"{name}/{path.stem.removesuffix('_mask')}"] = str(path)
                elif path.stem.endswith("_orig"):
                    real.append({"path": str(path), "label": 0, **shared})
                else:
                    fakes.append({"path": str(path), "label": 1, **shared, **made_by("manual")})
        if not real or not fakes:
            raise self.expected("folders with *_orig.jpg, edits and *_mask.png", self.root)
        return real + masked(self, fakes, masks, "max>0", by=lambda path: f"{path.parent.name}/{path.stem}")


class Korus(Unsplit):
    """``<camera>/{pristine,tampered-realistic}/*.TIF`` and ``<camera>/ground-truth/*.PNG``; masks have three levels."""

    get = "get the realistic tampering set from pkorus.pl/downloads/dataset-realistic-tampering, or set root"

    def rows(self) -> list[Row]:
        cameras = {n: p for n, p in subfolders(self.root).items() if (p / "pristine").is_dir()}
        self.found(cameras, "<camera>/{pristine,tampered-realistic,ground-truth}", self.root)
        rows: list[Row] = []
        for name, folder in cameras.items():
            self.require("tampered-realistic", "ground-truth", below=folder)
            masks = {p.stem: str(p) for p in images_right_in(folder / "ground-truth")}
            fakes: list[Row] = []
            for label, sub, out in ((0, "pristine", rows), (1, "tampered-realistic", fakes)):
                for path in images_right_in(folder / sub):
                    shared = {"source": f"korus/{name}/{path.stem}", **(made_by("manual") if label else {})}
                    out.append({"path": str(path), "label": label, **shared})
            rows += masked(self, fakes, masks, "max>10")
        return rows
