"""Explanations that were written for images afterwards and lie apart from them, joined by the image's id.

The id is the image's file name without its suffix, or the column ``img_id`` of a shard. Where the texts say which class
an image has, only an image of that class is joined: ids may repeat between classes.
"""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from dfl.data.formats import IMAGE_SUFFIXES
from dfl.data.sources.base import SPLIT_NAMES, Source
from dfl.data.sources.shards import cells, opened
from dfl.data.sources.trees import Row, read_json, subfolders
from dfl.errors import UserError

#: Class of an image by the name of its folder, and of its file of texts, ``<class>_GT.json``.
CLASSES = {"real": 0, "full_synthetic": 1, "tampered": 2}
#: Text by class (-1 where the texts do not say) and id.
Texts = dict[tuple[int, str], str]


def image_id(name: str) -> str:
    """Return the id that an image's name or path holds."""
    path = Path(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def read(place: Path, split: str, source: Source) -> Texts:
    """Return the texts of a split.

    Args:
        place: A JSON file that maps names of images to texts; a folder of such files, ``{real,full_synthetic,
            tampered}_GT.json``; the description set, which has such folders as ``{train,validation}/description``; or
            its shards ``data/{train,validation}-*.parquet`` with the columns img_id, label and description.
        split: ``train``, ``val`` or ``test``. Texts that name no split are given for each.
        source: Who asks.

    Raises:
        UserError: If there are no texts, or they cannot be read.
    """
    if place.is_file():
        return _merged([place], source)
    folder = split_folder(place, split) or place / split
    if files := sorted(p for f in (place, place / "description", folder / "description") for p in f.glob("*.json")):
        return _merged(files, source)
    name = "validation" if split == "val" else split
    shards = {n: sorted({*place.glob(f"data/{n}-*.parquet"), *place.glob(f"{n}-*.parquet")}) for n in ("*", name)}
    if shards["*"]:
        return _merged(shards[name], source)
    if any(f.glob("description/*.json") for f in subfolders(place).values() if f.name.lower() in SPLIT_NAMES):
        return {}  # of other splits
    raise source.expected("<split>/description/{real,full_synthetic,tampered}_GT.json", place, "set descriptions")


def split_folder(place: Path, split: str) -> Path | None:
    """Return the folder of a split, by any of its names; None if there is none."""
    return next((f for n, f in subfolders(place).items() if SPLIT_NAMES.get(n.lower()) == split), None)


def _merged(files: Iterable[Path], source: Source) -> Texts:
    """Return the texts of files together; of an image that has two, the first, with a warning."""
    texts: Texts = {}
    repeated: list[str] = []
    for file in files:
        for key, text in _of_shard(file) if file.suffix == ".parquet" else _of_json(file):
            if text and texts.setdefault(key, text) != text:
                repeated.append(key[1])
    if repeated:
        some = f"{len(repeated)} images have two descriptions, such as {repeated[0]}; the first is taken"
        warnings.warn(f"{type(source).__name__}: {some}", stacklevel=2)
    return texts


def _of_json(file: Path) -> Iterator[tuple[tuple[int, str], str]]:
    kind = CLASSES.get(file.stem.lower().removesuffix("_gt"), -1)
    for name, text in read_json(file, dict).items():
        if not isinstance(text, str):
            raise UserError(f"{file}: the description of {name!r} is a {type(text).__name__}; expected text")
        yield (kind, image_id(name)), text.strip()


def _of_shard(file: Path) -> Iterator[tuple[tuple[int, str], str]]:
    for entry in cells(file, ["img_id", "label", "description"], []):
        yield (int(entry["label"]), image_id(str(entry["img_id"]))), str(entry["description"] or "").strip()


def has_descriptions(shard: Path) -> bool:
    """Whether a shard of images holds their descriptions itself."""
    with opened(shard) as file:
        return "description" in file.schema_arrow.names


def joined(rows: list[Row], texts: Texts, source: Source, where: str) -> list[Row]:
    """Return rows with the ``explanation`` of their image, where it has one.

    Args:
        rows: With ``id`` and ``class_label``.
        texts: By class and id.
        source: Who asks.
        where: Where the texts are, and of which split, in words.

    Raises:
        UserError: If there are texts and none is of these images.
    """
    used: set[tuple[int, str]] = set()
    out: list[Row] = []
    for row in rows:
        key = next(
            (k for k in ((row.get("class_label", row["label"]), row["id"]), (-1, row["id"])) if k in texts), None
        )
        out.append(row if key is None else row | {"explanation": texts[key]})
        used |= set() if key is None else {key}
    name, left = type(source).__name__, [key for key in texts if key not in used]
    if not texts:
        warnings.warn(f"{name}: no descriptions in {where}", stacklevel=3)
    elif not used:
        raise UserError(
            f"{name}: none of the {len(texts):,} descriptions in {where} is of an image there: the first is of "
            f"{left[0][1]!r}, the first image is {rows[0]['id'] if rows else 'none'!r}; set descriptions to the texts "
            "of these images"
        )
    elif left:
        some = ", ".join(key[1] for key in left[:3]) + (", ..." if len(left) > 3 else "")
        text = f"{len(left):,} of the {len(texts):,} descriptions in {where} are of no image there: {some}"
        warnings.warn(f"{name}: {text}", stacklevel=3)
    return out
