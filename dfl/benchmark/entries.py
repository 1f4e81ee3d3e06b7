"""Files of predictions as entries of a table: who scored what, and the images of a domain that all of them scored.

Predictions of other people's detectors (`dfl.evaluation.scores`) stand beside those of the store.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.benchmark.spec import STORED, safe
from dfl.benchmark.store import PART, Predictions
from dfl.benchmark.units import joined, unit_names
from dfl.data.rows import common_folder
from dfl.errors import UserError
from dfl.evaluation import scores
from dfl.metrics.calibration import logit


class Scored(Protocol):
    """Predictions: facts, and columns (n,) by name."""

    facts: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        ...

    def column(self, name: str) -> pa.Array:
        """Return a column (n,)."""
        ...

    def parts(self, name: str) -> Iterator[pa.Array]:
        """Yield a column, up to ``PART`` rows at once."""
        ...


@dataclass
class Columns:
    """Predictions in memory."""

    facts: dict[str, Any]
    columns: Mapping[str, pa.Array]

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return list(self.columns)

    def column(self, name: str) -> pa.Array:
        """Return a column (n,)."""
        return self.columns[name]

    def parts(self, name: str) -> Iterator[pa.Array]:
        """Yield a column, up to ``PART`` rows at once."""
        column = self.columns[name]
        for start in range(0, len(column), PART):
            yield column[start : start + PART]


@dataclass
class Entry:
    """The predictions of one seed of a method on one variant of a domain."""

    method: str
    seed: int
    domain: str
    variant: str
    #: ``within``, ``cross``, ``reals`` or ``val``: what the domain is to the method.
    role: str
    scored: Scored = field(repr=False)

    @property
    def threshold(self) -> float:
        """The threshold that was chosen on validation data; NaN for none."""
        value = self.scored.facts.get("threshold")
        return math.nan if value is None else float(value)

    @property
    def title(self) -> str:
        """Who it is, for messages."""
        return f"{self.method}/{self.seed} on {self.domain} ({self.variant})"


def of_store(file: Path) -> Entry:
    """Return a file of the store as what it says of itself."""
    one = Predictions(file)
    facts = {"seed": 0, "variant": STORED, "role": "cross"} | one.facts
    said: dict[str, Any] = {name: facts[name] for name in ("method", "seed", "domain", "variant", "role")}
    return Entry(**said, scored=one)


def of_others(
    file: Path,
    method: str | None = None,
    seed: int = 0,
    role: Callable[[str], str] = lambda domain: "cross",
    trained_on: Sequence[str] = (),
    **options: Any,
) -> list[Entry]:
    """Return a file of scores as entries, one for each of its domains.

    Args:
        file: ``.csv``, ``.jsonl`` or ``.parquet`` with a score (or a logit) and a label for each image.
        method: Whose they are, unless a column ``detector`` names several; by default what that says, or the file.
        seed: Of the training.
        role: Returns what a domain is to them: ``within``, ``cross``, ``reals`` or ``other``.
        trained_on: What they were trained on, in words.
        options: Of `dfl.evaluation.scores.read`.

    Raises:
        UserError: See `dfl.evaluation.scores.read`; and if an image of a domain is in more than one row.
    """
    table = scores.read(file, need_group=False, **options)
    for why, count in table.left_out.items():
        print(f"{file}: {count} rows are left out: {why}")
    names = table.text["detector"]
    if (method is not None and len(set(names.tolist())) < 2) or not any(names):
        names = np.full(len(table.score), method or file.stem, object)
    domains = np.array([safe(one) for one in table.domain.tolist()], object)
    entries = []
    for who, domain in dict.fromkeys(zip(names.tolist(), domains.tolist(), strict=True)):
        rows = np.flatnonzero((names == who) & (domains == domain))
        names_of = ("label", "score", "logit", "video", "group")
        columns = {name: pa.array(getattr(table, name)[rows]) for name in names_of}
        columns |= {name: pa.array(table.text[name][rows], pa.string()) for name in ("path", "generator", "source")}
        named = [path for path in table.text["path"][rows].tolist() if path]
        if len(set(named)) < len(named):
            ((again, count),) = Counter(named).most_common(1)
            raise UserError(
                f"{file}: {again} stands in {count} rows of {domain} by {who}, and an image counts once; keep "
                "one row, name frames apart (a.mp4#frame=7), and give each seed a file of its own"
            )
        if not named:
            columns["path"] = pa.array([f"row {i + 1}" for i in range(len(rows))])
        own = np.unique(table.thresholds[rows])
        facts = {"domain": domain, "threshold": float(own[0]) if len(own) == 1 else math.nan, "external": str(file)}
        facts |= {"method": who, "trained_on": list(trained_on)}
        entries.append(Entry(who, seed, domain, STORED, role(domain), Columns(facts, columns)))
    return entries


class Images:
    """The images of a domain in one variant, which every entry has scored, each once.

    Of millions of images, paths are 400 MB and more: they are read when they are asked for, and not kept.

    Args:
        entries: Of one domain and variant.

    Raises:
        UserError: If entries do not have the same images with the same labels.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = list(entries)
        self._known = own_first(self.entries)
        self.facts: dict[str, Any] = self._known[0].scored.facts
        #: int8 (n,), 0 real, 1 fake.
        self.label = self._known[0].scored.column("label").to_numpy().astype(np.int8)
        self._names: dict[str, tuple[np.ndarray, pa.Array]] = {}
        self._orders = {id(entry): self._order(entry) for entry in self.entries}

    def __len__(self) -> int:
        return len(self.label)

    def _order(self, entry: Entry) -> np.ndarray | None:
        """Return where each image is among an entry's; None where they are in the same order."""
        label, known = entry.scored.column("label").to_numpy(), self._known[0].scored
        if _same_paths(entry.scored, known) or (
            self._same_data(entry) and _same_paths(entry.scored, known, below=True)
        ):
            return self._with_labels(entry, label, None)
        other = entry.scored.column("path")
        place = {path: i for i, path in enumerate(other.to_pylist())}
        own = self.path.to_pylist()
        lacks = [path for path in own if path not in place]
        if lacks or len(place) != len(own) or len(other) != len(own):
            again = "paths stand in it more than once, in another order" if len(place) < len(other) else ""
            what = f"it has no score of {lacks[0]}" if lacks else again or "others do not have all of its images"
            raise UserError(
                f"{entry.title} has {len(other):,} images, and {self._known[0].title} has {len(own):,}: {what}; "
                "numbers of different images cannot be compared"
            )
        return self._with_labels(entry, label, np.array([place[path] for path in own]))

    def _same_data(self, entry: Entry) -> bool:
        """Return whether an entry scored the same data, by their hash; they may lie in another folder now."""
        data = entry.scored.facts.get("data")
        return data is not None and data == self.facts.get("data")

    def _with_labels(self, entry: Entry, label: np.ndarray, order: np.ndarray | None) -> np.ndarray | None:
        """Return the order, if the labels are the same in it."""
        label = label if order is None else label[order]
        if (label != self.label).any():
            at = int(np.flatnonzero(label != self.label)[0])
            raise UserError(
                f"{entry.title}: {self.path[at]} has label {label[at]}, and {self.label[at]} for "
                f"{self._known[0].title}; the numbers could not be compared"
            )
        return order

    def of(self, entry: Entry, name: str) -> np.ndarray:
        """Return a column of an entry in the order of the images."""
        values, order = entry.scored.column(name).to_numpy(zero_copy_only=False), self._orders[id(entry)]
        return values if order is None else values[order]

    def some(self, entry: Entry, name: str, rows: np.ndarray) -> list[Any]:
        """Return a column of an entry for some images, int64 (k,); None for each where it has no such column."""
        if name not in entry.scored.names:
            return [None] * len(rows)
        order = self._orders[id(entry)]
        return entry.scored.column(name).take(pa.array(rows if order is None else order[rows])).to_pylist()

    def score(self, entry: Entry) -> np.ndarray:
        """Return the probabilities of fake, float32 or float64 (n,), as they are stored."""
        return np.array(self.of(entry, "score"))

    def log_odds(self, entry: Entry) -> np.ndarray:
        """Return the log-odds of fake (n,): as the detector gave them, else those of its score, float32's at most."""
        return self.of(entry, "logit") if "logit" in entry.scored.names else logit(self.of(entry, "score"))

    def rank(self, entry: Entry) -> np.ndarray:
        """Return what images are ranked by, float32 or float64 (n,): log-odds where they are known, else the score.

        Log-odds do not tie where probabilities round to 1.
        """
        return np.array(self.of(entry, "logit" if "logit" in entry.scored.names else "score"))

    @property
    def path(self) -> pa.Array:
        """Of each image, strings (n,)."""
        return self._known[0].scored.column("path")

    def paths(self, rows: np.ndarray) -> list[str]:
        """Return the paths of some images.

        Args:
            rows: int64 (k,).
        """
        found, start = np.empty(len(rows), object), 0
        for part in self._known[0].scored.parts("path"):
            own = np.flatnonzero((rows >= start) & (rows < start + len(part)))
            found[own] = part.take(pa.array(rows[own] - start)).to_pylist()
            start += len(part)
        return list(found)

    def same_paths(self, other: "Images") -> bool:
        """Return whether others are the same images in the same order."""
        return _same_paths(self._known[0].scored, other._known[0].scored)

    def names(self, name: str) -> tuple[np.ndarray, pa.Array]:
        """Return a column of names, of the first entry that has any; '' of none. It is read once.

        Returns:
            The place of each image's name, an integer (n,) as small as may be, and the names (K,), sorted.
        """
        if name not in self._names:
            self._names[name] = self._first_names(name)
        return self._names[name]

    def _first_names(self, name: str) -> tuple[np.ndarray, pa.Array]:
        for entry in self._known:
            if name in entry.scored.names:
                place, names = _encoded(entry.scored.parts(name))
                if pc.any(pc.not_equal(names, "")).as_py():
                    order = self._orders[id(entry)]
                    return place if order is None else place[order], names
        return np.zeros(len(self), np.int8), pa.array([""])

    def text(self, name: str) -> np.ndarray:
        """Return a column of names, objects (n,); '' where it lacks."""
        place, names = self.names(name)
        return np.asarray(names.to_numpy(zero_copy_only=False))[place]

    @property
    def unit(self) -> pa.Array:
        """What is drawn together, large_string (n,): the video, else the source image, else the image."""
        columns, parts, start = [self.names(name) for name in ("video", "source")], [], 0
        for path in self._known[0].scored.parts("path"):
            video, source = (names.take(pa.array(place[start : start + len(path)])) for place, names in columns)
            parts.append(unit_names(video, source, path))
            start += len(path)
        return joined(parts)

    @property
    def video(self) -> np.ndarray:
        """Number of each image's video, int32 (n,); -1 for none."""
        place, names = self.names("video")
        none = pc.index(names, "").as_py()
        return np.where(place == none, -1, place).astype(np.int32)

    def one_class(self, label: int) -> int:
        """Return how many images there are of a class."""
        return int((self.label == label).sum())


def own_first(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries, those of our own store first: other people's files may know less of an image."""
    return sorted(entries, key=lambda entry: entry.scored.facts.get("data") is None)


def _same_paths(a: Scored, b: Scored, below: bool = False) -> bool:
    """Return whether two have the same paths in the same order; ``below`` the folder that all of its own are in."""
    if a is b:
        return True
    start = [len(_folder(one)) if below else 0 for one in (a, b)]
    return all(
        None not in pair
        and pc.utf8_slice_codeunits(pair[0], start[0]).equals(pc.utf8_slice_codeunits(pair[1], start[1]))
        for pair in zip_longest(a.parts("path"), b.parts("path"))
    )


def _folder(one: Scored) -> str:
    ends = [pc.min_max(part).as_py() for part in one.parts("path")]
    return common_folder(pa.array([path for pair in ends for path in pair.values()], pa.string()))


def _encoded(parts: Iterable[pa.Array]) -> tuple[np.ndarray, pa.Array]:
    """Return the place of each name among all names, an integer (n,), and those, sorted."""
    kind = pa.dictionary(pa.int32(), pa.string())
    encoded = pa.chunked_array([part.cast(pa.string()).fill_null("").dictionary_encode() for part in parts], kind)
    whole = encoded.unify_dictionaries().combine_chunks()
    order = pc.sort_indices(whole.dictionary).to_numpy()
    place = np.empty(len(order), np.min_scalar_type(-max(1, len(order))))
    place[order] = np.arange(len(order))
    return place[whole.indices.to_numpy()], whole.dictionary.take(pa.array(order))


def by_domain(entries: Iterable[Entry]) -> dict[tuple[str, str], list[Entry]]:
    """Return entries by domain and variant, in their order."""
    parts: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        parts.setdefault((entry.domain, entry.variant), []).append(entry)
    return parts
