"""Which images may be frames of one video, by folders and names alone, where a set does not say it.

Frames of one video are nearly the same picture. On both sides of a split they are a test on what was learned by heart.
Where a set has no column for it, two habits tell: a folder for each video, and names that are numbered by frame. Both
can be wrong (a folder for each generator), so a warning says what follows from them, and they can be turned off.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from dfl.data.sources.base import SPLIT_NAMES
from dfl.data.sources.names import label_of

#: What tells the videos of images: sub-folders, numbered names, both as far as they tell something, or nothing.
Telling = Literal["folders", "names", "none"]
_NUMBER = re.compile(r"[\W_]*\d+\W*\Z")


def videos(names: Sequence[str], by: Telling | None = None) -> list[str]:
    """Return the video of each image, '' for those that seem to stand alone.

    Args:
        names: Files of one class, relative to its folder.
        by: ``folders``: images of one sub-folder are of one video. ``names``: in each folder, names that differ in
            their last number alone (``clip7_0001.png``; with several faces in a frame ``clip7_0001_0.png``) are. None:
            folders, where there are several of them, and names for images that lie right in the class's folder (or in
            its only sub-folder), where they tell several videos apart.
    """
    folders = [os.path.dirname(name) for name in names]
    if by == "none":
        return [""] * len(names)
    if by == "folders":
        return folders
    if by is None and len(set(folders)) > 1:
        loose = [i for i, folder in enumerate(folders) if not folder]
        for i, clip in zip(loose, _clips([names[i] for i in loose]), strict=True):
            folders[i] = clip
        return folders
    return _clips(names, least=1 if by == "names" else 2)


def _clips(names: Sequence[str], least: int = 2) -> list[str]:
    """Return the part of each name before its number where that makes at least so many groups of several images."""
    stems = [os.path.splitext(name)[0] for name in names]
    for _ in range(2):  # a number of the frame, or one of the frame and one of the face in it
        stems = [_NUMBER.sub("", stem) if _NUMBER.search(stem) else "" for stem in stems]
        count = Counter(stem for stem in stems if os.path.basename(stem))
        several = {stem for stem, n in count.items() if n > 1}
        if sum(count[stem] for stem in several) * 2 >= count.total():
            break
    else:
        return [""] * len(names)
    return [stem if stem in several and len(several) >= least else "" for stem in stems]


def videos_of_classes(names: Sequence[str], tops: Sequence[str], by: Telling | None = None) -> list[str]:
    """Return the video of each image, named after its class's folder; '' for those that seem to stand alone.

    Args:
        names: Files, relative to ``tops``.
        tops: Folder of each file's class, or any other name of its class.
        by: See ``videos``.
    """
    places: dict[str, list[int]] = {}
    for i, top in enumerate(tops):
        places.setdefault(top, []).append(i)
    result = [""] * len(names)
    for top, rows in places.items():
        for i, video in zip(rows, videos([names[i] for i in rows], by), strict=True):
            result[i] = f"{top}/{video}" if video else ""
    return result


def by_paths(table: pa.Table) -> list[str]:
    """Return the video of each row by what its path tells; '' for those that seem to stand alone.

    A class is what lies below a folder named like one, whatever split stands above it; else what has one label.
    """
    names, tops = [], []
    for path, label in zip(table["path"].to_pylist(), table["label"].to_pylist(), strict=True):
        *folders, name = path.split("/")
        folders = [folder for folder in folders if folder.lower() not in SPLIT_NAMES]
        below = next((i for i in range(len(folders), 0, -1) if label_of(folders[i - 1]) is not None), 0)
        names.append("/".join([*folders[below:], name]))
        tops.append("/".join(folders[:below]) or str(label))
    return videos_of_classes(names, tops)
