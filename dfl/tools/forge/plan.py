"""Which pictures are real, which split each is in, and which pictures give regions to which.

Every random choice about more than one picture is drawn here, in one process; what remains is a job for each picture
that depends on nothing else.
"""

import hashlib
import json
import os
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dfl.data.locators import split
from dfl.data.mask_sets import MOST, of_masks, with_mask_rules
from dfl.data.sources.base import SPLIT_NAMES, TIES
from dfl.data.splits import components, split_column
from dfl.errors import UserError
from dfl.tools.forge.shapes import Kind, files_in

#: Donors that are drawn for each fake: the next is taken where one cannot be used.
DONORS = 4


@dataclass(frozen=True)
class Picture:
    """A real picture.

    Attributes:
        path: Its locator.
        name: Its name in the set: the path below the folder that holds all pictures.
        split: train, val or test.
        mask: File of its given mask or segments; ''.
        rule: How a given mask is read.
        columns: Of its row, for the table: identity, video, group, and caption if it has one.
        bits: Those of its row (``dfl/data/depths.py``).
    """

    path: str
    name: str
    split: str
    mask: str
    rule: str
    columns: dict[str, str]
    bits: int = -1

    @property
    def person(self) -> str:
        """Who is seen (identity, or the video), '' where that is not known."""
        return self.columns.get("identity") or self.columns.get("video") or ""


@dataclass(frozen=True)
class Job:
    """One picture, and the makers and possible donors of its fakes.

    Attributes:
        counts: Of each fake, how many its maker makes before it.
    """

    number: int
    picture: Picture
    fakes: tuple[tuple[str, tuple[Picture, ...]], ...]
    counts: tuple[int, ...]

    @property
    def stems(self) -> list[str]:
        """Names of the files of each fake, without suffix."""
        generators = [name.rpartition(".")[2] for name, _ in self.fakes]
        count = [generators[: k + 1].count(name) for k, name in enumerate(generators)]
        same = [f"_{n}" if n > 1 else "" for n in count]
        return [f"{self.number:06d}_{name}{n}" for name, n in zip(generators, same, strict=True)]


def pictures(table: pa.Table, shapes: Kind, masks: str | None, shares: dict[str, float], seed: int) -> list[Picture]:
    """Return the real pictures of a table of rows, each in a split; rows of unknown label count as real.

    Rows without a split are shared out, unless they lie in folders called train, val and test; rows tied by identity,
    video or source stay together.

    Raises:
        UserError: If there is none, or a picture is in two splits.
    """
    if shapes == "segments" and masks is None:
        raise UserError("--shapes segments needs --masks FOLDER, which holds the segments")
    if shapes == "given" and masks is None:
        table = with_mask_rules(table, "the pictures")
    rows = [row for row in table.to_pylist() if row["label"] != 1]
    if len(rows) < len(table):
        print(f"{len(table) - len(rows):,} of {len(table):,} images are fakes already and are left out")
    if not rows:
        raise UserError("forge needs real images, and the sources hold fakes only")
    files = [os.path.abspath(split(row["path"])[0]) for row in rows]
    top = os.path.commonpath([os.path.dirname(file) for file in files])
    names = [
        Path(os.path.relpath(file, top)).as_posix() + row["path"][len(split(row["path"])[0]) :]
        for file, row in zip(files, rows, strict=True)
    ]
    if masks is not None and shapes in ("given", "segments"):
        mask_files = files_in(masks, shapes)
        rule = of_masks(list(mask_files.values())[:MOST], masks) if shapes == "given" else ""
        for row, file, name in zip(rows, files, names, strict=True):
            row["mask"], row["mask_rule"] = mask_files.get(Path(file).stem), rule
            if row["mask"] == "":
                stem = Path(name).stem
                raise UserError(f"--masks {masks!r} holds two files for {stem}: name a folder with one of each")
    return [
        Picture(
            row["path"],
            name,
            side,
            row["mask"] or "",
            row["mask_rule"],
            {key: row[key] for key in ("identity", "video", "group")}
            | ({"caption": row["caption"]} if row["caption"] else {}),
            row["bits"],
        )
        for row, name, side in zip(rows, names, _splits(rows, names, shares, seed), strict=True)
    ]


def _splits(rows: list[dict[str, Any]], names: list[str], shares: dict[str, float], seed: int) -> list[str]:
    """Return a split for each row."""
    splits = [row["split"] for row in rows]
    blank = [i for i, side in enumerate(splits) if not side]
    folders = {i: SPLIT_NAMES.get(names[i].split("/")[0].lower(), "") for i in blank if "/" in names[i]}
    if blank and len(folders) == len(blank) and all(folders.values()):
        for i in blank:
            splits[i] = folders[i]
    elif blank:
        shares = {name: share for name, share in shares.items() if share}
        table = pa.table({key: [rows[i][key] for i in blank] for key in ("label", *TIES)})
        for i, side in zip(blank, split_column(table, shares, seed, by=TIES).to_pylist(), strict=True):
            splits[i] = side
    side_of: dict[int, str] = {}
    for i, tie in enumerate(components([[row["path"] for row in rows], [row["source"] for row in rows]])):
        if side_of.setdefault(int(tie), splits[i]) != splits[i]:
            raise UserError(
                f"{names[i]} is in {side_of[int(tie)]} and in {splits[i]}: fakes of one photo in two splits would be "
                "learnt by heart; `dfl data split` makes splits that keep what belongs together"
            )
    return splits


def jobs(pictures: list[Picture], needs_donor: dict[str, bool], per_image: int, seed: int) -> list[Job]:
    """Return a job for each picture. Makers take turns in a drawn order; donors come from the split of the picture.

    Args:
        pictures: The real pictures.
        needs_donor: By the name of each maker, whether it takes from another picture.
        per_image: Fakes of each.
        seed: Seed.

    Raises:
        UserError: If a maker needs a donor and a split has one picture alone.
    """
    names = list(needs_donor)
    sides: dict[str, list[int]] = {}
    for i, picture in enumerate(pictures):
        sides.setdefault(picture.split, []).append(i)
    lonely = next((side for side, members in sides.items() if len(members) < 2), None)
    name = next((name for name in names if needs_donor[name]), None)
    if lonely and name:
        raise UserError(f"{name} takes from another picture of the split, and {lonely} has one picture only")
    turns = np.empty(len(pictures), int)  # shuffled: a set that lists its persons in a rhythm would tie makers to them
    for side, members in sorted(sides.items()):
        turns[members] = np.random.default_rng([seed, *side.encode()]).permutation(len(members))
    out, made = [], Counter[str]()
    for i, picture in enumerate(pictures):
        fakes, counts = [], []
        for k in range(per_image):
            turn = (int(turns[i]) * per_image + k) % len(names)
            rng = np.random.default_rng([seed, i, k, 0])
            donors = _donors(sides[picture.split], i, rng) if needs_donor[names[turn]] else []
            fakes.append((names[turn], tuple(replace(pictures[donor], columns={}) for donor in donors)))
            counts.append(made[names[turn]])
            made[names[turn]] += 1
        out.append(Job(i, picture, tuple(fakes), tuple(counts)))
    return out


def _donors(members: list[int], own: int, rng: np.random.Generator) -> list[int]:
    """Draw pictures of a split (ascending numbers) for one of its own; not a permutation of all for every picture."""
    place, n = bisect_left(members, own), len(members) - 1
    draws = rng.choice(n, min(DONORS, n), replace=False) if n < 1024 else rng.integers(n, size=DONORS)
    return [members[int(draw) + (draw >= place)] for draw in draws]


def facts(jobs: list[Job], prompts: list[str]) -> dict[str, Any]:
    """Return the number of pictures, and a hash of what is to be made of which files, without where they lie."""
    whole = hashlib.sha256()
    for job in jobs:
        names = [(maker, [donor.name for donor in donors]) for maker, donors in job.fakes]
        one = job.picture
        picture: dict[str, Any] = {"path": "", "name": one.name, "split": one.split, "mask": Path(one.mask).name}
        picture |= {"rule": one.rule, "known": one.columns}
        whole.update(json.dumps([picture, names, _bytes(one.path), _bytes(one.mask)]).encode())
    if prompts:
        whole.update(json.dumps(prompts).encode())
    return {"images": len(jobs), "digest": whole.hexdigest()}


def _bytes(locator: str) -> int:
    try:
        return os.path.getsize(split(locator)[0]) if locator else 0
    except OSError:  # polygons, and files that are not there, which the job reports
        return -1
