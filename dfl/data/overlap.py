"""What is on both sides of a split: the same path, frames of one video, copies of one file.

The same path is an error. The others are a warning before anything is trained: frames of a video may have been shared
out on purpose, and copies by another name are few in most sets. ``dfl data check`` looks closer (near copies, all
splits).

Copies are found exactly, and without reading the set: files of one size on both sides, of these the ones with the same
bytes in the middle, of these the ones with the same SHA-256. Where this is not done (very many images, images inside
other files), a warning says so.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pytorch_lightning.utilities.rank_zero import rank_zero_only, rank_zero_warn

from dfl.data.locators import shared_paths, split
from dfl.data.sources.base import Source
from dfl.errors import UserError

#: Rows of both sides together up to which names and files are looked at, and bytes that are read to prove copies.
MOST_ROWS, MOST_BYTES = 200_000, 1 << 31
#: Threads that ask, and bytes from the middle of a file.
_AT_ONCE, _MIDDLE = 8, 256
T = TypeVar("T")


def same_paths(name: str, trained: pa.ChunkedArray, tested: pa.ChunkedArray) -> None:
    """Raise if images of a domain, ``split/domain``, are trained on too.

    Raises:
        UserError: Naming one of them.
    """
    if both := shared_paths(trained, tested):
        raise UserError(
            f"{len(both)} images of {name} are trained on too, such as {both[0]}; "
            "set fractions to split the set, or allow_overlap"
        )


class Videos:
    """The videos that are trained on, by source; the same source under another split may hold more of their frames."""

    def __init__(self) -> None:
        self._trained: dict[str, set[str]] = {}

    def add(self, source: Source, table: pa.Table) -> None:
        """Remember the videos of a source's training rows."""
        self._trained.setdefault(repr(source), set()).update(_videos(source, table))

    def check(self, name: str, source: Source, table: pa.Table) -> None:
        """Warn if a domain, ``split/domain``, of a source that is trained on holds frames of the same videos."""
        trained = self._trained.get(repr(source))
        if trained and (both := trained & _videos(source, table)):
            guess = "" if _column(table) else ", by folders and numbered names alone"
            guess += " (videos: none, if they mislead)" if guess and hasattr(source, "telling") else ""
            rank_zero_warn(
                f"{len(both):,} videos have frames in train and in {name}, such as {min(both)}{guess}: "
                f"scores on {name} will be too good; `dfl data split` keeps videos whole"
            )


def _column(table: pa.Table) -> set[str]:
    return set(pc.unique(table["video"]).to_pylist()) - {""}


def _videos(source: Source, table: pa.Table) -> set[str]:
    return _column(table) or (set(source.videos(table)) - {""} if len(table) <= MOST_ROWS else set())


@rank_zero_only
def same_content(trained: pa.ChunkedArray, tested: Mapping[str, pa.ChunkedArray]) -> None:
    """Warn of files that are trained on and, under another name, evaluated on, and where this was not checked.

    Args:
        trained: Paths of the training images.
        tested: Paths by name of the domain, ``split/domain``.
    """
    if len(trained) + sum(map(len, tested.values())) > MOST_ROWS:
        rank_zero_warn(
            f"more than {MOST_ROWS:,} images: no one looked whether images under other names are copies of training "
            "images; `dfl data check` does"
        )
        return
    own = _files(trained)
    for name, paths in tested.items():
        files = _files(paths)
        copies, whole = copies_of(files, own)
        if copies:
            path, of = copies[0]
            n = len(copies)
            rank_zero_warn(
                f"{n:,} image{'s' * (n > 1)} of {name} {'are copies' if n > 1 else 'is a copy'} of training images "
                f"under other names, such as {path} of {of}: scores on {name} will be too good; "
                "`dfl data check` lists them"
            )
        if not whole or len(files) < len(paths):
            why = "too many are alike" if not whole else f"{len(paths) - len(files):,} of them lie inside other files"
            rank_zero_warn(
                f"not all images of {name} were compared with the training images, whether they are copies: {why}; "
                "`dfl data check` compares them"
            )


def _files(paths: pa.ChunkedArray) -> list[str]:
    """Return the paths that are whole files, not places inside one."""
    return [path for path in paths.to_pylist() if not split(path)[1]]


def copies_of(files: list[str], others: list[str]) -> tuple[list[tuple[str, str]], bool]:
    """Find the files that have the same content as one of the others.

    Returns:
        Pairs of a file and the first of the others that is its copy, in the order of ``files``; and whether all were
        compared, within ``MOST_BYTES`` of reading. A file that cannot be read is no copy; neither is an empty one.
    """
    mine, theirs = files, others
    for ask in (_size, _middle):
        facts, of_theirs = _each(ask, mine), _each(ask, theirs)
        both = set(facts) & set(of_theirs) - {None, 0}
        mine = [file for file, fact in zip(mine, facts, strict=True) if fact in both]
        theirs = [file for file, fact in zip(theirs, of_theirs, strict=True) if fact in both]
    left, hashes = MOST_BYTES, dict[str, str]()
    for path in [*theirs, *mine]:
        if left > 0:
            left -= _size(path) or 0
            hashes[path] = _sha256(path)
    by_hash = {hashes[path]: path for path in reversed(theirs) if path in hashes}
    copies = [(path, by_hash[hashes[path]]) for path in mine if hashes.get(path) in by_hash]
    return copies, left > 0


def _each(ask: Callable[[str], T], files: list[str]) -> list[T]:
    """Return the answer for each file, in order; several are asked at once, since some disks answer late."""
    pieces = [files[at : at + 256] for at in range(0, len(files), 256)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [answer for answers in pool.map(lambda piece: [*map(ask, piece)], pieces) for answer in answers]


def _size(path: str) -> int | None:
    """Return the bytes of a regular file, None of anything else."""
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def _middle(path: str) -> tuple[int, bytes] | None:
    """Return the size of a file and some bytes of its middle: formats begin alike, and often end alike."""
    try:
        with open(path, "rb", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size // 2 - _MIDDLE // 2))
            return size, file.read(_MIDDLE)
    except (OSError, ValueError):
        return None


def _sha256(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return path  # its own: a copy of nothing
