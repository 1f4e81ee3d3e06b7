"""Files and folders named by hand, without labels: what `predict` scores."""

import os
import sys
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path

import pyarrow as pa

from dfl.data.decoding import on_disk
from dfl.data.formats import IMAGE_SUFFIXES, VIDEO_SUFFIXES, advice_on, leave_out
from dfl.data.locators import below, locate, split
from dfl.data.sources.base import NO_URLS, Source, images_in, is_url, to_table
from dfl.data.sources.table import Table, texts
from dfl.errors import NothingDone, UserError

#: How a list of images is written.
_LISTS = "a list of images is a .csv or .parquet with a column path, or a .txt with a path in each line"
#: The word for a path in each line of standard input.
STANDARD_INPUT = "-"
_LIKE_LISTS = frozenset([".tsv", ".json", ".jsonl", ".xlsx", ".ods", ".yaml", ".yml"])


class Paths(Source):
    """Images, folders of images and lists of them; the label of every row is -1 (unknown).

    Args:
        paths: Image files; places inside files (``clip.mp4#frame=7``); folders, which are searched with all their
            subfolders; patterns (``photos/**/*.jpg``); ``-`` for a path in each line of standard input, which is read
            to its end first; lists: a ``.csv`` or ``.parquet`` with a column ``path``, or a ``.txt`` with a path in
            each line, relative to the list's folder. Of other columns only ``caption`` is read, for detectors that
            take it. A file that a list or standard input names and that is not there cannot be read, as a torn one.
            Videos, archives and other files that hold pictures in a way that is not read are counted in ``left_out``.
        frames: Frames that stand for a video, evenly spread; by default videos are left out.
    """

    def __init__(self, paths: list[str], frames: int | None = None) -> None:
        super().__init__()
        if frames is not None and frames < 1:
            raise UserError(f"--frames {frames} must be at least 1 of each video")
        self.frames = frames
        if "" in paths:
            raise UserError("one of the paths is empty: name images or folders; this folder is .")
        found = [(Path(one), p) for p in paths for one in _meant(os.path.expanduser(on_disk(p)))]
        self.paths = [path for path, _ in found]
        #: Those that standard input names.
        self._listed = dict.fromkeys(path for path, word in found if word == STANDARD_INPUT)
        self._words = ["standard input" if word == STANDARD_INPUT else word for word in paths]

    def items(self, split: str) -> pa.Table:
        """Return one row for each image, in the order given; the split does not matter.

        Raises:
            UserError: If a path is not there; of those that standard input names, as of those in a list, if none is.
            NothingDone: If there is no image.
        """
        listed = [str(path) for path in self._listed]
        if listed and not any(map(_exists, listed)):
            raise _no_list("standard input", listed)
        taken = VIDEO_SUFFIXES if self.frames else frozenset[str]()
        others = {str(p) for p in self.paths if advice_on(str(p)) and p.suffix.lower() not in taken and p.is_file()}
        absent = {path for path in self._listed if not _exists(str(path))}  # cannot be read, and are counted so
        images = [
            (frame, caption)
            for path in self.paths
            if str(path) not in others
            for file, caption in ([(str(path), "")] if path in absent else _images(path, taken))
            for frame in self._frames(file, taken)
        ]
        leave_out("", others)
        if not images:
            empty = "" if self.paths else ", which is empty"
            named = f"no image in {', '.join(self._words)}{empty}"
            raise NothingDone("; ".join(filter(None, (named, str(self.left_out)))))
        return to_table(
            {"path": file, "label": -1, "caption": caption, "video": _video(file)} for file, caption in images
        )

    def _frames(self, file: str, taken: frozenset[str]) -> list[str]:
        """Return the frames that stand for a video; of any other file itself."""
        if Path(file).suffix.lower() not in taken:
            return [file]
        return [locate(file, at=f"{i}/{self.frames}") for i in range(self.frames or 0)]

    def __repr__(self) -> str:
        return f"Paths({', '.join(self._words)})"


def _meant(word: str) -> list[str]:
    """Return the paths that a word stands for: itself, or the lines of standard input, or what fits a pattern.

    Raises:
        UserError: If nothing fits it.
    """
    if word == STANDARD_INPUT:
        lines = [line.rstrip("\r\n") for line in sys.stdin]
        return [line for line in lines if line]
    if not has_magic(word) or os.path.lexists(split(word)[0]) or is_url(Path(word)):
        return [word]
    if not (found := sorted(glob(word, recursive=True))):
        raise UserError(f"nothing in {Path.cwd()} fits the pattern {word!r}")
    return found


def _video(locator: str) -> str:
    """Return the video that a frame is of; '' for an image."""
    file, inside = split(locator)
    return file if inside.keys() & {"frame", "at"} else ""


def _images(path: Path, videos: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield the images that a word means, each with its caption, '' for none; and files with suffixes of videos."""
    file, inside = split(str(path))
    if not Path(on_disk(file)).exists() and path.is_file():  # all of it is a name
        file, inside = str(path), {}
    suffix = Path(file).suffix.lower()
    if not Path(on_disk(file)).exists():
        if is_url(path):
            raise UserError(f"{path} is an address; {NO_URLS}; predict --ray reads addresses")
        raise UserError(f"no file or folder {file!r} in {Path.cwd()}")
    if path.is_dir():
        yield from ((str(file), "") for file in images_in(path, IMAGE_SUFFIXES | videos if videos else IMAGE_SUFFIXES))
    elif inside:
        yield str(path), ""
    elif suffix in (".csv", ".parquet"):
        yield from PathList(str(path)).images()
    elif suffix == ".txt":
        yield from ((file, "") for file in _lines(path))
    elif suffix in _LIKE_LISTS:
        raise UserError(f"{path} is no image; {_LISTS}; a data config goes with --data")
    else:
        yield str(path), ""


def lines_of(path: Path) -> list[str]:
    """Return the lines of a text file, without those that are empty.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from error
    return [line for line in lines if line]


def _lines(path: Path) -> Iterator[str]:
    """Yield the paths in a text file; relative ones start from its folder."""
    files = [below(path.parent, line) for line in lines_of(path)]
    if not any(map(_exists, files)):
        raise _no_list(path, files)
    yield from files


def _exists(locator: str) -> bool:
    """Whether there is the file of a place, or one of which all of it is the name."""
    return any(os.path.exists(on_disk(name)) for name in (split(locator)[0], locator))


def _no_list(what: str | Path, files: list[str]) -> UserError:
    """Return the error for a list of which no line names a file."""
    reason = f"none of its {len(files):,} lines names a file, the first {files[0]!r}" if files else "it is empty"
    return UserError(f"{what} is no list of images: {reason}; {_LISTS}")


class PathList(Table):
    """A table that says of images where they are, and perhaps what is to be seen."""

    needed = ("path",)

    def images(self) -> Iterator[tuple[str, str]]:
        """Yield path and caption of all rows; relative paths start from the table's folder."""
        paths, captions = self._columns()
        yield from zip(self._below(paths).to_pylist(), captions, strict=True)

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield path and caption of all rows, paths as they are written."""
        paths, captions = self._columns()
        yield from zip(paths.to_pylist(), captions, strict=True)

    def _columns(self) -> tuple[pa.ChunkedArray, list[str]]:
        raw = self._read()
        columns = self._names(raw.column_names)
        paths, captions = (
            texts(raw[columns[name]], self._where(columns[name])) if name in columns else None
            for name in ("path", "caption")
        )
        return paths, [""] * len(raw) if captions is None else captions.to_pylist()
