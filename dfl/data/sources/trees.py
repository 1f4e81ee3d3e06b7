"""What most layouts are made of: class folders, lists of files, frames of videos."""

import json
import os
import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.decoding import DecodeError, read_file
from dfl.data.formats import VIDEO_SUFFIXES, taken
from dfl.data.locators import locate, split
from dfl.data.sources.base import Source, images_in, names_in
from dfl.data.sources.names import label_of
from dfl.errors import UserError, near

#: What a path of Windows begins with that is not relative: a drive, or a share.
_DRIVE = re.compile(r"^([A-Za-z]:[\\/]|[\\/]{2})")
Missing = Literal["raise", "skip"]
Row = dict[str, Any]
T = TypeVar("T")
J = TypeVar("J", list[Any], dict[str, Any])


def read_json(file: Path, kind: type[J]) -> J:
    """Return the content of a JSON file that must hold a list or a mapping.

    Raises:
        UserError: If it cannot be read, or holds something else.
    """
    try:
        content = json.loads(read_file(str(file)))
    except (ValueError, DecodeError, RecursionError) as e:
        raise UserError(f"cannot read the JSON file {file}: {getattr(e, 'reason', e)}") from e
    if not isinstance(content, kind):
        raise UserError(f"{file} holds a {type(content).__name__}; expected a {kind.__name__}")
    return content


def subfolders(folder: Path) -> dict[str, Path]:
    """Return the visible folders in a folder by name, sorted; none where the folder is not there."""
    if not folder.is_dir():
        return {}
    return {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")}


def images_right_in(folder: Path) -> list[Path]:
    """Return the image files right in a folder, none of its subfolders, sorted."""
    names = [entry.name for entry in os.scandir(folder) if entry.is_file()]
    return sorted(folder / name for name in taken(str(folder), names))


def first_folder(*folders: Path) -> Path | None:
    """Return the first of some folders that is there."""
    return next((f for f in folders if f.is_dir()), None)


def chosen(there: Sequence[str], wanted: Sequence[str] | None, argument: str, source: Source) -> list[str]:
    """Return the wanted names, or all; a wanted name that is not there is an error.

    Raises:
        UserError: Naming the argument and what comes near.
    """
    if wanted is None:
        return list(there)
    for name in wanted:
        if name not in there:
            raise UserError(f"{source!r} has no {name!r} (argument {argument})" + near(name, list(there)))
    return [name for name in there if name in set(wanted)]


def class_folders(source: Source, folder: Path, seen: set[str] | None = None) -> list[tuple[Path, int]]:
    """Return the folders of real and fake images below a folder, at any depth, with their labels.

    Args:
        source: Who asks.
        folder: Where to look.
        seen: Real paths of folders that were looked at: links may lead there again.

    Raises:
        UserError: If some branch has none of them, or only one of the two.
    """
    seen = {os.path.realpath(folder)} if seen is None else seen
    all_subs = subfolders(folder)
    subs = {name: path for name, path in all_subs.items() if os.path.realpath(path) not in seen}
    if all_subs and not subs:
        return []
    seen.update(map(os.path.realpath, subs.values()))
    leaves = [(path, label) for name, path in subs.items() if (label := label_of(name)) is not None]
    if len({label for _, label in leaves}) == 1:
        raise source.expected("a folder of real and one of fake images", folder)
    for path in (p for name, p in subs.items() if label_of(name) is None):
        leaves += class_folders(source, path, seen)
    return source.found(leaves, "folders of real and fake images (0_real and 1_fake, nature and ai, ...)", folder)


def class_rows(source: Source, folder: Path, **shared: Any) -> list[Row]:
    """Return the rows of ``class_folders``, see ``plain_rows``."""
    return [row for leaf, label in class_folders(source, folder) for row in plain_rows(leaf, label, **shared)]


def plain_rows(folder: Path, label: int, **shared: Any) -> list[Row]:
    """Return a row for each image in a folder; generator, family and method are those of fakes alone."""
    if label == 0:
        shared = {name: value for name, value in shared.items() if name not in ("generator", "family", "method")}
    return [{"path": name, "label": label, **shared} for name in names_in(folder)]


def evenly(items: Sequence[T], count: int | None) -> list[T]:
    """Return ``count`` of the items at even spacing, the middles of equal parts; all where there are not more."""
    if count is None or len(items) <= count:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def video_rows(path: Path, frames: int, mask: Path | None = None, mask_rule: str = "", **shared: Any) -> list[Row]:
    """Return the rows of one video: of a file by share of its length, of a folder of images by their names.

    Args:
        path: The video, or the folder of its frames.
        frames: How many frames to take, at even spacing.
        mask: The video of its masks, or the folder of them.
        mask_rule: How to read the masks.
        **shared: What all rows share.
    """
    rows: list[Row] = []
    if path.is_dir():
        for image in evenly(images_in(path), frames):
            row = {"path": str(image), "frame": int(image.stem) if image.stem.isdigit() else -1, **shared}
            area = mask and mask / f"{image.stem}.png"
            rows.append(row | ({"mask": str(area), "mask_rule": mask_rule} if area and area.is_file() else {}))
        return rows
    for i in range(frames):
        area_at = {"mask": locate(mask, at=f"{i}/{frames}"), "mask_rule": mask_rule} if mask else {}
        rows.append({"path": locate(path, at=f"{i}/{frames}"), **shared, **area_at})
    return rows


def videos_in(folder: Path) -> dict[str, Path]:
    """Return the videos right in a folder by name without suffix: files, or folders that hold their frames."""
    if not folder.is_dir():
        return {}
    return {
        p.stem if p.is_file() else p.name: p
        for p in sorted(folder.iterdir())
        if not p.name.startswith(".") and (p.is_dir() or p.suffix.lower() in VIDEO_SUFFIXES)
    }


def present(source: Source, rows: list[Row], where: Path, change: str, missing: Missing = "raise") -> list[Row]:
    """Return the rows whose file is there. One listing for each folder, not one question for each file.

    Args:
        source: Who asks.
        rows: Rows of a list that came with the set.
        where: That list.
        change: What to do where files are missing.
        missing: Whether missing files are an error, or left out with one warning.

    Raises:
        UserError: If files are missing, or if none is there.
    """
    listings: dict[str, set[str]] = {}

    def there(locator: str) -> bool:
        folder, name = os.path.split(split(locator)[0])
        if folder not in listings:
            try:
                listings[folder] = set(os.listdir(folder))
            except OSError:
                listings[folder] = set()
        return name in listings[folder] or os.path.basename(locator) in listings[folder]

    left = [row for row in rows if there(row["path"])]
    if len(left) < len(rows):
        first = next(row["path"] for row in rows if not there(row["path"]))
        text = f"{where} lists {len(rows)} images, and {len(rows) - len(left)} are not there, the first {first}"
        if missing == "raise" or not left:
            raise UserError(f"{type(source).__name__}: {text}; {change}")
        warnings.warn(f"{type(source).__name__}: {text}; they are left out", stacklevel=2)
    return left


def relocate(paths: Sequence[str], root: Path) -> list[str]:
    """Turn paths that another machine wrote to paths below a folder.

    Backslashes become slashes, and the fewest leading folders are cut for which a path is there. If none is there
    under any cut, paths are taken as relative to the folder.
    """
    clean = [p.replace("\\", "/") for p in paths]
    clean = [p[2:] if p.startswith("./") else p for p in clean]
    for path in evenly(clean, 20):
        parts = path.split("/")
        for cut in range(len(parts)):
            if (root / "/".join(parts[cut:])).exists():
                return [str(root / "/".join(p.split("/")[cut:])) for p in clean]
    return [str(root / p) for p in clean]


def relocated(rows: list[Row], root: Path) -> list[Row]:
    """Return rows whose images and masks are relocated."""
    for column in ("path", "mask"):
        filled = [row for row in rows if row.get(column)]
        for row, path in zip(filled, relocate([row[column] for row in filled], root), strict=True):
            row[column] = path
    return rows


def from_windows(paths: pa.ChunkedArray, root: Path, file: Path) -> pa.ChunkedArray:
    """Return paths with slashes for backslashes, and below a folder where they begin with a drive or a share.

    A path that is there as it is written keeps its backslashes: here they may be a part of a name.

    Args:
        paths: Text (n,).
        root: The folder.
        file: Where they stand.

    Raises:
        UserError: If they are of another machine, and nothing of their name is below the folder.
    """
    at = pc.index(pc.match_substring(paths, "\\"), True).as_py()
    text = paths[at].as_py() if at >= 0 else ""
    first = text or (str(paths[0].as_py()) if len(paths) else "")
    if os.sep == "\\" or not (text or _DRIVE.match(first)) or (text and (root / text).exists()):
        return paths
    paths = pc.replace_substring(paths, "\\", "/")
    foreign = pc.match_substring_regex(paths, _DRIVE.pattern)
    if not pc.any(foreign).as_py():
        return paths
    there = relocate(paths.filter(foreign).to_pylist(), root)
    if not os.path.exists(split(there[0])[0]):
        raise UserError(
            f"{file} names images of another machine, such as {first}, and nothing of that name is below {root}; "
            "set root to the folder that holds them"
        )
    return pc.replace_with_mask(paths, foreign.combine_chunks(), pa.array(there, pa.string()))


def masked(
    source: Source,
    rows: list[Row],
    masks: dict[str, str],
    rule: str,
    missing: Missing = "raise",
    by: Callable[[Path], str] = lambda path: path.stem,
) -> list[Row]:
    """Give tampered images their masks.

    Args:
        source: Who asks.
        rows: Rows of tampered images.
        masks: Masks by the key that ``by`` gives for their image.
        rule: How to read the masks.
        missing: Whether an image without mask is an error, or stays without one, with one warning.
        by: Key of an image; by default its name without suffix.

    Raises:
        UserError: If a mask is not there.
    """
    bare = [row["path"] for row in rows if by(Path(row["path"])) not in masks]
    if bare:
        text = f"{type(source).__name__}: {len(bare)} of {len(rows)} tampered images have no mask, the first {bare[0]}"
        if missing == "raise":
            raise UserError(f"{text}; expected a mask named after {by(Path(bare[0]))!r}; unpack the masks, or set root")
        warnings.warn(f"{text}; they are given without one", stacklevel=2)
    out: list[Row] = []
    for row in rows:
        mask = masks.get(by(Path(row["path"])))
        out.append(row | {"class_label": 2} | ({"mask": mask, "mask_rule": rule} if mask else {}))
    return out
