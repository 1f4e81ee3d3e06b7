"""What a source is: one public data set layout, read as it lies on disk, given as a table of rows.

A source answers one question: which images are there, and what is known of each. It never opens an image.
Labels are normalised here and nowhere later: 0 real, 1 fake. So is the meaning of masks: where a set's mask files do
not say 255 = manipulated, the row carries the rule that turns them (``dfl/data/masks.py``).

Bases for the ways in which sets are split: ``WithSplits`` (the set has train, val and test), ``TrainTest`` (train and
test; validation is taken out of train), ``Unsplit`` (it has no splits), ``Splittable`` (it may have them). They alone
know ``limit``, ``fractions``, ``val_share`` and their seeds: a source hands its ``**options`` on to its base.
"""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.decoding import escaped
from dfl.data.formats import IMAGE_SUFFIXES, LeftOut, taken
from dfl.data.locators import shared_paths
from dfl.data.sources.contradictions import Contradiction, Evidence, contradiction, find_contradiction
from dfl.data.splits import split_column
from dfl.errors import UserError, near

T = TypeVar("T")
SPLITS = ("train", "val", "test")
#: Names that other people give to our splits.
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

#: What to tell of an address in place of a folder; Path makes one slash of two.
NO_URLS = "data are read from this machine alone: mount the bucket, or copy it, with your own tool (docs/data.md, Pack)"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/{1,2}\S")

#: The columns of every table of rows. Absent: -1 for numbers, '' for text.
ROW_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # file of the image, or a place inside a file (dfl/data/locators.py)
        ("label", pa.int8()),  # 0 real, 1 fake
        ("split", pa.string()),  # train, val, test; '' when the set has none
        ("mask", pa.string()),  # file of the mask, a place inside one, or polygons
        ("mask_rule", pa.string()),  # how to read the mask; '' for 255 = manipulated (dfl/data/masks.py)
        ("class_label", pa.int8()),  # 0 real, 1 synthetic, 2 tampered
        ("generator", pa.string()),  # name of what made it; '' for real
        ("family", pa.string()),  # of the generator: gan, diffusion, edit, ...
        ("method", pa.string()),  # what was done: face-swap, synthesis, inpainting, splice, ...
        ("group", pa.string()),  # demographic group or intersection
        ("video", pa.string()),
        ("frame", pa.int32()),  # number of the frame in its video, from 0
        ("identity", pa.string()),  # person who is seen
        ("source", pa.string()),  # original that it was made from; an original names itself
        ("compression", pa.string()),  # c23, c40, raw, jpeg75, ...
        ("caption", pa.string()),
        ("explanation", pa.string()),
        ("bits", pa.int8()),  # how many a 16-bit gray image holds that does not say so itself (dfl/data/depths.py)
    ]
)
#: A column more, of rows whose images are degraded once they are decoded (dfl/data/sources/degraded.py): how, or ''.
DEGRADATION = pa.field("degradation", pa.dictionary(pa.int32(), pa.string()))
#: Text that hardly repeats; all other text is names, which may be kept once each (Arrow dictionaries).
PLAIN = ("path", "mask", "caption", "explanation")
#: Rows that share a name in one of these columns belong on the same side of a split.
TIES = ("identity", "video", "source")
#: Rows up to which each path is looked for among those of the other class; of more, a sixteenth of so many, evenly.
MOST_PATHS = 1 << 21
_DEFAULTS: dict[str, Any] = {f.name: "" if pa.types.is_string(f.type) else -1 for f in ROW_SCHEMA}


def is_url(where: str | Path) -> bool:
    """Tell whether a path was meant as an address."""
    return bool(_URL.match(str(where)))


def to_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Build a table of rows from mappings.

    Keys left out are absent (-1 or ''), but for ``class_label``, which is then the label: a fake is synthetic unless a
    row says that it is an edited image (2). Odd bytes of names are ``escaped``.
    """
    columns: dict[str, list[Any]] = {name: [] for name in _DEFAULTS}
    for row in rows:
        for name, default in _DEFAULTS.items():
            columns[name].append(row.get(name, row.get("label", -1) if name == "class_label" else default))
    try:
        return pa.table(columns, schema=ROW_SCHEMA)
    except UnicodeEncodeError:
        texts = {name: list(map(escaped, column)) for name, column in columns.items() if _DEFAULTS[name] == ""}
        return pa.table(columns | texts, schema=ROW_SCHEMA)


def put(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray | list[str]) -> pa.Table:
    """Return a table with one column replaced, or added."""
    column = pa.array(column, pa.string()) if isinstance(column, list) else column
    at = table.schema.get_field_index(name)
    return table.append_column(name, column) if at < 0 else table.set_column(at, name, column)


def with_degradation(table: pa.Table, cells: str | pa.DictionaryArray) -> pa.Table:
    """Return a table whose images are degraded, all in one way, or each in its own."""
    if isinstance(cells, str):
        cells = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(table), np.int32)), pa.array([cells], pa.string()))
    return put(table, DEGRADATION.name, cells)


def joined(tables: list[pa.Table]) -> pa.Table:
    """Return tables of rows as one; where images of some are degraded, the others say that theirs are not."""
    if any(DEGRADATION.name in one.column_names for one in tables):
        tables = [one if DEGRADATION.name in one.column_names else with_degradation(one, "") for one in tables]
    return pa.concat_tables(tables)


def images_in(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[Path]:
    """Return all image files under a folder, sorted by path, whatever the case of their suffix.

    Links are followed, and each real folder is taken once. Names that start with a dot are passed over; a source counts
    what else is no image (``Source.left_out``).
    """
    return [Path(name) for name in names_in(folder, suffixes)]


def names_in(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> list[str]:
    """Return the same as text, which is what millions of images need."""
    names: list[str] = []
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}  # a link that leads up leads out of here
    waiting = [str(folder)]
    for start in waiting:  # links wait, so that a folder is found by its own name before any other
        for top, folders, files in os.walk(start):
            real = os.path.realpath(top)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = [f for f in folders if not f.startswith(".")]
            waiting += sorted(link for f in folders if os.path.islink(link := os.path.join(top, f)))
            names += [os.path.join(top, f) for f in taken(top, files, suffixes)]
    return sorted(names, key=lambda name: name.split(os.sep))


def part(table: pa.Table, split: str, fractions: Mapping[str, float] | None, seed: int) -> pa.Table:
    """Return the rows of one split by fraction; rows tied by identity, video or source stay together.

    Without fractions all rows are given for every split, which suits a set that is only tested on.
    """
    if fractions is None or not len(table):
        return table
    column = split_column(table, fractions, seed, by=TIES)
    table = put(table, "split", column)
    return table.filter(pc.equal(table["split"], split))


class Source(ABC):
    """One data set layout. The constructor touches no disk.

    Args:
        limit: At most so many images of a split; one number for all splits, or one by split. None takes all.
        limit_seed: Seed of that draw.
    """

    #: What to tell a user whose data are not there: where to get them.
    get: str = "point the source to the folder that holds the images"
    #: Whether the user said which label means fake: then nothing else can contradict it.
    user_named_fakes: bool = False

    #: Folder that holds the set, where it has one.
    root: Path

    def __init__(self, limit: int | dict[str, int] | None = None, limit_seed: int = 0) -> None:
        unknown = set(limit) - set(SPLITS) if isinstance(limit, dict) else set()
        if unknown:
            raise UserError(f"limit names no split {unknown.pop()!r}; there are {', '.join(SPLITS)}")
        for number in limit.values() if isinstance(limit, dict) else [limit]:
            if number is not None and number < 1:
                raise UserError(f"limit is {number}: it must be at least 1")
        self.limit, self.limit_seed = limit, limit_seed
        #: Files that the walks of ``load`` met and did not take.
        self.left_out = LeftOut()

    @abstractmethod
    def items(self, split: str) -> pa.Table:
        """Return the rows of a split (``train``, ``val`` or ``test``) with the columns of ``ROW_SCHEMA``.

        Raises:
            UserError: If the set is not there, half unpacked, or holds names this source does not know.
        """

    def prepare(self) -> None:  # noqa: B027  (optional: most sets are on disk already)
        """Make files that must exist before ``items``; called once, on one process."""

    def videos(self, table: pa.Table) -> list[str]:
        """Return the video of each row of this source, n names, '' for none; what no column tells may be a guess."""
        return list(table["video"].to_pylist())

    def load(self, split: str) -> pa.Table:
        """Return ``items(split)``: ``ROW_SCHEMA``, and perhaps ``DEGRADATION``, checked and cut to ``limit``.

        Raises:
            UserError: If the split is unknown or holds no image.
            Contradiction: If folders or classes say the opposite of the labels (``contradictions.py``), or a path has
                both.
        """
        if split not in SPLITS:
            raise UserError(f"no split {split!r}" + near(split, list(SPLITS)))
        with self.left_out.listening():
            table = self.items(split)
        schema = ROW_SCHEMA.append(DEGRADATION) if DEGRADATION.name in table.column_names else ROW_SCHEMA
        table = table.select(schema.names).cast(schema)
        if not len(table):
            raise UserError("; ".join(filter(None, (f"{self!r} has no image in split {split!r}", str(self.left_out)))))
        if not self.user_named_fakes and (
            evidence := find_contradiction(table["label"], table["path"], {"mask": table["mask"]}, table["class_label"])
        ):
            raise contradiction(
                repr(self), "its label", evidence, table["path"][evidence.row].as_py(), self._ways(evidence)
            )
        real, fake = (table["path"].filter(pc.equal(table["label"], label)) for label in (0, 1))
        if len(table) > MOST_PATHS:
            fake = fake.take(np.linspace(0, len(fake) - 1, min(len(fake), MOST_PATHS // 16)).astype(np.int64))
        if both := shared_paths(real, fake):
            raise Contradiction(
                f"{self!r}: {len(both):,} image{'s are' if len(both) > 1 else ' is'} labelled both real and fake, such "
                f"as {both[0]}; take one label out"
            )
        limit = self.limit.get(split) if isinstance(self.limit, dict) else self.limit
        if limit is not None and limit < len(table):
            rng = np.random.default_rng([self.limit_seed, SPLITS.index(split)])
            chosen = np.zeros(len(table), bool)
            chosen[rng.choice(len(table), limit, replace=False)] = True
            table = table.filter(pa.array(chosen))
        return table

    def _ways(self, evidence: Evidence) -> str:
        """Return what to do about labels that something else contradicts."""
        return "mend the list or the folders, or write them as a CSV for Table, whose label_of_fake settles it"

    def missing(self, what: str, where: str | Path) -> UserError:
        """Return the one error for data that are not there: what was looked for, where, and how to get it."""
        if is_url(where):
            return UserError(f"{type(self).__name__}: {where} is an address; {NO_URLS}")
        return UserError(
            f"{type(self).__name__}: no {what} at {Path(where).expanduser().absolute()}; {self.get}; "
            "`make demo` needs no data of yours"
        )

    def require(self, *names: str, below: Path | None = None, change: str = "") -> None:
        """Raise the error of ``expected`` unless there are folders of these names in the set's own, or in another."""
        folder = below or self.root
        for name in names:
            if not (folder / name).is_dir():
                raise self.expected(f"the folder {name}", folder, change)

    def require_file(self, name: str, below: Path | None = None, change: str = "") -> Path:
        """Return a file in the set's own folder, or in another; raise the error of ``expected`` unless it is there."""
        folder = below or self.root
        if not (folder / name).is_file():
            raise self.expected(name, folder, change)
        return folder / name

    def found(self, what: T | None, name: str, where: Path, change: str = "") -> T:
        """Return what was looked for; raise the error of ``expected`` if that is nothing."""
        if not what:
            raise self.expected(name, where, change)
        return what

    def expected(self, what: str, where: str | Path, change: str = "") -> UserError:
        """Return the error for a half unpacked set: what was expected, what was found, which argument to change."""
        folder = Path(where).expanduser().absolute()
        if not folder.is_dir():
            return self.missing(what.removeprefix("the "), where)
        names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir() if not p.name.startswith("."))
        found = ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")
        return UserError(
            f"{type(self).__name__}: expected {what} in {folder}, found {found or 'nothing'}; {change or self.get}"
        )

    def __repr__(self) -> str:
        root = getattr(self, "file", None) or getattr(self, "root", None)
        return f"{type(self).__name__}({str(root) if root else ''})"


class Splittable(Source):
    """A set that has no splits of its own, or need not have them: ``fractions`` makes them.

    Args:
        root: The folder that holds the set.
        fractions: Share of train, val and test, whole identities, videos and originals together, for a set without
            splits. None gives all images for every split that is asked for, which suits a set that is only tested on.
        seed: Seed of the split by fraction.
    """

    def __init__(self, root: str, fractions: dict[str, float] | None = None, seed: int = 0, **options: Any) -> None:
        super().__init__(**options)
        self.root, self.fractions, self.seed = Path(root).expanduser(), fractions, seed


class Unsplit(Splittable):
    """A set without splits of its own, as a list of rows."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return all rows of the set."""

    def items(self, split: str) -> pa.Table:
        """Return the rows of a split."""
        return part(to_table(self.rows()), split, self.fractions, self.seed)


class WithSplits(Source):
    """A set with splits of its own, as lists of rows.

    Args:
        root: The folder that holds the set.
    """

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(**options)
        self.root = Path(root).expanduser()

    @abstractmethod
    def rows(self, split: str) -> list[dict[str, Any]]:
        """Return the rows of a split that the set has; keys as for ``to_table``, ``split`` left out."""

    def items(self, split: str) -> pa.Table:
        """Return the rows of a split."""
        return to_table({**row, "split": split} for row in self.rows(split))


class TrainTest(WithSplits):
    """A set with train and test only, which are what ``rows`` gives; validation images are taken out of train.

    Args:
        root: The folder that holds the set.
        val_share: Share of the training images that become validation images, whole identities, videos and originals
            together. 0 leaves the training set whole, and there is no validation.
        seed: Seed of that draw.
    """

    def __init__(self, root: str, val_share: float = 0.1, seed: int = 0, **options: Any) -> None:
        super().__init__(root, **options)
        self.val_share, self.seed = val_share, seed

    def items(self, split: str) -> pa.Table:
        """Return the rows of a split."""
        if split == "test" or (split == "train" and not self.val_share):
            return super().items(split)
        if not self.val_share:
            raise UserError(f"{self!r} has no validation images: set val_share, or give data.val another source")
        shares = {"train": 1 - self.val_share, "val": self.val_share}
        return part(to_table(self.rows("train")), split, shares, self.seed)


def by_name(sources: list[Source]) -> dict[str, Source]:
    """Name the domains of a mixture that is evaluated on its own: ``same``, or one name for each source."""
    if len(sources) == 1:
        return {"same": sources[0]}
    return {f"{type(source).__name__.lower()}{i}": source for i, source in enumerate(sources)}
