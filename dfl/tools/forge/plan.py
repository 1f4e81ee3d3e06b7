"""What is to be made: which pictures are real, which split each is in, who gives to whom.

Everything that chance decides about more than one picture is decided here, in one process; what remains is a job for
each picture that depends on nothing else.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dfl.data.locators import split
from dfl.data.mask_sets import MOST, of_masks, with_mask_rules
from dfl.data.sources.base import SPLIT_NAMES, TIES
from dfl.data.splits import assign, components
from dfl.errors import UserError
from dfl.tools.forge import makers
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
        known: What else its row says, for the table.
        bits: Those of its row (``dfl/data/depths.py``).
    """

    path: str
    name: str
    split: str
    mask: str
    rule: str
    known: dict[str, str]
    bits: int = -1


@dataclass(frozen=True)
class Job:
    """One picture, and the makers and possible donors of its fakes."""

    number: int
    picture: Picture
    fakes: tuple[tuple[str, tuple[Picture, ...]], ...]


def pictures(table: pa.Table, shapes: Kind, masks: str | None, shares: dict[str, float], seed: int) -> list[Picture]:
    """Return the real pictures of a table of rows, each in a split; rows of unknown label count as real.

    Rows without a split are shared out, unless they lie in folders called train, val and test; rows tied by identity,
    video or source stay together.

    Raises:
        UserError: If there is none, or a picture is in two splits.
    """
    if shapes == "given" and masks is None:
        table = with_mask_rules(table, "the pictures")
    rows = [row for row in table.to_pylist() if row["label"] != 1]
    if len(rows) < len(table):
        print(f"{len(table) - len(rows):,} of {len(table):,} images are fakes already and are left out")
    if not rows:
        raise UserError("forge needs real images, and the sources hold fakes only")
    names = _names([row["path"] for row in rows])
    splits = _splits(rows, names, shares, seed)
    files = files_in(masks, shapes) if masks is not None and shapes in ("given", "segments") else None
    given = of_masks(list(files.values())[:MOST], str(masks)) if files is not None and shapes == "given" else ""
    found = []
    for row, name, side in zip(rows, names, splits, strict=True):
        mask = row["mask"] if files is None else files.get(Path(split(row["path"])[0]).stem)
        if mask == "" and files is not None:
            raise UserError(f"--masks {masks!r} holds two files for {Path(name).stem}: name a folder with one of each")
        known = {key: row[key] for key in ("identity", "video", "group")}
        rule = row["mask_rule"] if files is None else given
        found.append(Picture(row["path"], name, side, mask or "", rule, known, row["bits"]))
    if shapes == "segments" and files is None:
        raise UserError("--shapes segments needs --masks FOLDER, which holds the segments")
    return found


def _names(paths: list[str]) -> list[str]:
    files = [os.path.abspath(split(path)[0]) for path in paths]
    top = os.path.commonpath([os.path.dirname(file) for file in files])
    inside = [path[len(split(path)[0]) :] for path in paths]
    return [Path(os.path.relpath(file, top)).as_posix() + more for file, more in zip(files, inside, strict=True)]


def _splits(rows: list[dict[str, Any]], names: list[str], shares: dict[str, float], seed: int) -> list[str]:
    """Return a split for each row."""
    splits = [row["split"] for row in rows]
    blank = [i for i, side in enumerate(splits) if not side]
    folders = {i: SPLIT_NAMES.get(names[i].split("/")[0].lower(), "") for i in blank if "/" in names[i]}
    if blank and len(folders) == len(blank) and all(folders.values()):
        for i in blank:
            splits[i] = folders[i]
    elif blank:
        table = pa.table({key: [rows[i][key] for i in blank] for key in ("label", *TIES)})
        for i, side in zip(blank, assign(table, shares, seed, by=TIES), strict=True):
            splits[i] = side
    side_of: dict[int, str] = {}
    for i, tie in enumerate(components([[row["path"] for row in rows], [row["source"] for row in rows]])):
        if side_of.setdefault(int(tie), splits[i]) != splits[i]:
            raise UserError(
                f"{names[i]} is in {side_of[int(tie)]} and in {splits[i]}: fakes of one photo in two splits would be "
                "learnt by heart; `dfl data split` makes splits that keep what belongs together"
            )
    return splits


def jobs(found: list[Picture], shapes: Kind, names: list[str], per_image: int, seed: int) -> list[Job]:
    """Return a job for each picture. Makers take turns in a drawn order, and donors come from the split of the picture.

    Raises:
        UserError: If a maker needs a donor and a split has one picture alone.
    """
    makes = [makers.find(name) for name in names]
    sides: dict[str, list[int]] = {}
    for i, picture in enumerate(found):
        sides.setdefault(picture.split, []).append(i)
    lonely = next((side for side, members in sides.items() if len(members) < 2), None)
    if lonely and any(make.donor for make in makes):
        needs = next(name for name, make in zip(names, makes, strict=True) if make.donor)
        raise UserError(f"{needs} takes from another picture of the split, and {lonely} has one picture only")
    turns = np.empty(len(found), int)  # shuffled: a set that lists its persons in a rhythm would tie makers to them
    for side, members in sorted(sides.items()):
        turns[members] = np.random.default_rng([seed, *side.encode()]).permutation(len(members))
    out = []
    for i, picture in enumerate(found):
        fakes = []
        for k in range(per_image):
            turn = (int(turns[i]) * per_image + k) % len(names)
            own = np.random.default_rng([seed, i, k, 0])
            donors = _donors(sides[picture.split], i, own) if makes[turn].donor else ()
            # a donor's row says more than its job needs
            fakes.append((names[turn], tuple(replace(found[d], known={}) for d in donors)))
        out.append(Job(i, picture, tuple(fakes)))
    return out


def _donors(members: list[int], own: int, rng: np.random.Generator) -> Iterator[int]:
    # a few draws, not a permutation of the split for every picture; itself is passed over
    place = members.index(own) if len(members) < 64 else int(np.searchsorted(members, own))
    n = len(members) - 1
    for draw in rng.choice(n, min(DONORS, n), replace=False) if n < 1024 else rng.integers(n, size=DONORS):
        yield members[int(draw) + (draw >= place)]


def digest(work: list[Job]) -> str:
    """Return a hash of what is to be made of which files, without where they lie."""
    whole = hashlib.sha256()
    for job in work:
        names = [(maker, [donor.name for donor in donors]) for maker, donors in job.fakes]
        known = asdict(job.picture) | {"path": "", "mask": Path(job.picture.mask).name}
        known.pop("bits")  # follows from the files
        whole.update(json.dumps([known, names, _bytes(job.picture.path), _bytes(job.picture.mask)]).encode())
    return whole.hexdigest()


def _bytes(locator: str) -> int:
    try:
        return os.path.getsize(split(locator)[0]) if locator else 0
    except OSError:  # polygons, and files that are not there, which the job will say
        return -1


def counted(work: list[Job]) -> str:
    """Say what is to be made, for the terminal."""
    sides = Counter(job.picture.split for job in work)
    return ", ".join(f"{n:,} {side}" for side, n in sides.items())
