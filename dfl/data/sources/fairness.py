"""Face sets with demographic annotations, by the CSV files of PG-FDD (Lin et al., CVPR 2024) and AI-Face (CVPR 2025).

Their columns changed name and place between releases, so they are read by name. A group is named by its parts, such as
``male,asian``, so that gender and race can be told apart again.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dfl.data import csv_files
from dfl.data.sources.base import Source, TrainTest, WithSplits
from dfl.data.sources.generators import made_by
from dfl.data.sources.trees import Missing, Row, present, relocate
from dfl.errors import UserError

#: Names of the columns in the releases, lower case with underscores.
COLUMNS = {
    "path": ("img_path", "image_path"),
    "label": ("label", "target"),
    "male": ("ismale", "ground_truth_gender", "predicted_gender"),
    "race": ("ground_truth_race", "predicted_race"),
    "asian": ("isasian",),
    "white": ("iswhite",),
    "black": ("isblack",),
    "skin": ("ground_truth_skin_tone", "predicted_skin_tone", "skin_tone"),
    "code": ("intersection", "intersec_label"),
    "specific": ("spe_label", "specific"),
}
RACES = ("asian", "white", "black", "others")
TONES = ("light", "medium", "dark")
#: spe_label of the fakes made from FaceForensics++.
SPECIFIC = dict(enumerate(("deepfakes", "face2face", "faceswap", "neuraltextures", "faceshifter"), 1))


def read_people(source: Source, file: Path, women: str) -> list[dict[str, str]]:
    """Read path, label, group and specific label of each row of a CSV file.

    The group comes from gender and race where the file has them. Otherwise the code of the intersection is read: 0 to 7
    for men and women of four races, or 0 to 5 for women and men of three skin tones where a column's name says so.

    Args:
        source: Who asks.
        file: The CSV file.
        women: How the set calls who is not male.

    Raises:
        UserError: If a column or a group cannot be told.
    """
    table = csv_files.read(source.require_file(file.name, file.parent))
    names = {name.lower().replace(" ", "_"): name for name in table.column_names}
    columns = {k: names[a] for k, aliases in COLUMNS.items() for a in reversed(aliases) if a in names}
    for needed in ("path", "label"):
        if needed not in columns:
            raise UserError(
                f"{file} has none of the columns {', '.join(COLUMNS[needed])}; it has {', '.join(names.values())}"
            )
    csv_files.once(file, table.column_names, columns.values())
    cells = zip(*(table[name].to_pylist() for name in columns.values()), strict=True)
    rows = [dict(zip(columns, map(str.strip, row), strict=True)) for row in cells]
    toned = any("skin" in n for n in names)
    for row in rows:
        if row["label"] not in ("0", "1", "0.0", "1.0"):
            raise UserError(f"{file}: the label {row['label']!r} of {row['path']} is neither 0 (real) nor 1 (fake)")
        row["group"] = _group(row, women, toned)
    return rows


def _group(row: Mapping[str, str], women: str, toned: bool) -> str:
    value = {k: int(float(v)) for k, v in row.items() if k not in ("path", "label", "specific") and v}
    gender = ("male" if value["male"] == 1 else women) if "male" in value else ""
    if gender and "race" in value:
        return f"{gender},{RACES[value['race']]}" if 0 <= value["race"] < 4 else gender
    if gender and "white" in value:
        race = next((name for name in ("asian", "white", "black") if value.get(name) == 1), "others")
        return f"{gender},{race}"
    code = value.get("code", -1)
    if toned and 0 <= code < 6:
        return f"{(women, 'male')[code // 3]},{TONES[code % 3]}"
    if not toned and 0 <= code < 8:
        return f"{('male', women)[code // 4]},{RACES[code % 4]}"
    return gender


class _People(WithSplits):
    """Images that CSV files list.

    Args:
        root: The folder that holds the CSV files.
        images: Folder below which the listed images are, whatever folders stand before them in the list; by default
            ``root``.
        missing: Whether listed images that are not there are an error, or left out with a warning.
    """

    def __init__(self, root: str, images: str | None = None, missing: Missing = "raise", **options: Any) -> None:
        super().__init__(root, **options)
        self.images, self.missing_images = Path(images).expanduser() if images else self.root, missing


class PgFdd(_People):
    """``{fake,real}{train,val}.csv``, ``test.csv`` and the face crops they list.

    A set that has ``test.csv`` alone (DFDC, DFD, Celeb-DF) is for testing only. Names such as
    ``0_Deepfakes_300_304_151.png`` give the video and the frame.
    """

    get = "get it from github.com/Purdue-M2/Fairness-Generalization, or set root and images"

    def rows(self, split: str) -> list[Row]:
        names = ["test.csv"] if split == "test" else [f"{kind}{split}.csv" for kind in ("real", "fake")]
        rows: list[Row] = []
        for file in (self.root / name for name in names):
            people = read_people(self, file, "nonmale")
            paths = relocate([p["path"] for p in people], self.images)
            listed = [_row(p, path) | _named(path, p) for p, path in zip(people, paths, strict=True)]
            rows += present(self, listed, file, "set images, or missing: skip", self.missing_images)
        return rows


class AiFace(_People, TrainTest):
    """``train.csv`` and ``test.csv`` beside one folder of images for each generator; ``val`` is taken out of train.

    Both releases are read: the one with eight groups of gender and race, and the one with six of gender and skin tone.
    """

    get = "ask for it at github.com/Purdue-M2/AI-Face-FairnessBench, or set root and images"

    def rows(self, split: str) -> list[Row]:
        file = self.root / f"{split}.csv"
        people = read_people(self, file, "female")
        rows: list[Row] = []
        for person, path in zip(people, relocate([p["path"] for p in people], self.images), strict=True):
            row = _row(person, path)
            below = Path(path).relative_to(self.images).parts if Path(path).is_relative_to(self.images) else ()
            if row["label"] and len(below) > 1:
                row |= made_by(below[0].lower())
            rows.append(row)
        return present(self, rows, file, "set images, or missing: skip", self.missing_images)


def _row(person: Mapping[str, str], path: str) -> Row:
    label = int(float(person["label"]))
    return {"path": path, "label": label, "group": person["group"]}


def _named(path: str, person: Mapping[str, str]) -> Row:
    """What the name of a crop says: number of the face, video, frame."""
    label = int(float(person["label"]))
    match = re.match(r"\d+_(.+)_(\d+)\Z", Path(path).stem)
    row: Row = {"video": match[1], "frame": int(match[2])} if match else {}
    if label:
        code = person.get("specific", "")
        name = SPECIFIC.get(int(float(code)), "") if code else match[1].split("_")[0].lower() if match else ""
        row |= made_by(name if name in SPECIFIC.values() else "") | {"class_label": 2}
    return row
