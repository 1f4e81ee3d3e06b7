"""A table of images, CSV or Parquet, with named columns."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from dfl.data.locators import all_below, below
from dfl.data.masks import check_rule
from dfl.data.sources.base import PLAIN, ROW_SCHEMA, SPLIT_NAMES, TIES, Source, label_of
from dfl.data.splits import split_column
from dfl.data.text_columns import one_piece, pieces
from dfl.errors import UserError

#: Other people's names for our columns, lower case, in order of preference.
ALIASES = {
    "path": ("path", "image_path", "img_path", "image", "img", "file", "filename", "file_name", "filepath"),
    "label": ("label", "class", "target", "y", "is_fake"),
    "split": ("split", "subset", "partition", "set"),
    "mask": ("mask", "mask_path", "gt"),
    "class_label": ("class_label",),
    "mask_rule": ("mask_rule",),
    "generator": ("generator", "model", "model_name", "method"),
    "family": ("family",),
    "method": ("method", "manipulation"),  # a lone column ``method`` names the generator
    "group": ("group", "intersection", "ismale_race"),
    "video": ("video", "video_id", "clip"),
    "frame": ("frame",),
    "identity": ("identity", "identity_id", "person", "subject"),
    "source": ("source", "original"),
    "compression": ("compression",),
    "caption": ("caption", "prompt"),
    "explanation": ("explanation",),
    "bits": ("bits",),
}

_TEXT = frozenset(field.name for field in ROW_SCHEMA if pa.types.is_string(field.type))


class Table(Source):
    """Rows of a CSV or Parquet file. Paths in it are relative to ``root``, or to the file's folder.

    Labels may be 0 and 1, or class names the field agrees on (real, fake, ...). Where a set counts the other way
    round, say ``label_of_fake: "0"``; then the one other value is real.

    Args:
        file: The CSV or Parquet file.
        root: Folder that relative paths start from; by default the file's own.
        columns: Column of the file by our name, for example ``{path: img, label: is_real}``; only where the
            name is not one of the usual ones.
        label_of_fake: The value that means fake. None: 1, or a name such as fake.
        mask_rule: How masks are read that have no rule in the table (``dfl/data/masks.py``), such as ``max>0``; by
            default the set's masks are looked at together.
        fractions: Share of train, val and test where the file has no split column; None puts all images in
            every split.
        seed: Seed of the split by fraction.
        limit: At most so many images, in all splits or by split.
        limit_seed: Seed of that draw.
    """

    def __init__(
        self,
        file: str,
        root: str | None = None,
        columns: dict[str, str] | None = None,
        label_of_fake: str | int | None = None,
        mask_rule: str = "",
        fractions: dict[str, float] | None = None,
        seed: int = 0,
        limit: int | dict[str, int] | None = None,
        limit_seed: int = 0,
    ) -> None:
        super().__init__(limit, limit_seed)
        self.file = Path(file).expanduser()
        self.root = Path(root).expanduser() if root else self.file.parent
        self.columns, self.label_of_fake, self.fractions, self.seed = columns or {}, label_of_fake, fractions, seed

        self.mask_rule = check_rule(mask_rule)
        self._held: tuple[tuple[int, int], pa.Table] | None = None

    def items(self, split: str) -> pa.Table:
        """Return the rows of a split."""
        raw = self._read()
        table = pa.table({name: _texts(column) for name, column in self._columns(raw).items() if name in _TEXT})
        label = self._labels(raw.column(self._column(raw.column_names, "label")))
        table = table.append_column("label", label)
        for name in ("class_label", "frame", "bits"):
            if found := self._column(raw.column_names, name):
                table = table.append_column(name, self._numbers(raw.column(found), name))
        del raw
        sides = self._sides(table)
        if sides is not None and pc.any(pc.not_equal(sides, "")).as_py():
            here = pc.equal(sides, split)
            here = here.combine_chunks() if isinstance(here, pa.ChunkedArray) else here
            names = [name for name in table.column_names if name not in ("split", "path")]
            with ThreadPoolExecutor() as pool:
                parts = list(pool.map(lambda name: table[name].filter(here), names))
            paths = self._paths(table["path"], here)
            table = pa.table(dict(zip(names, parts, strict=True)) | {"path": paths})
            table = table.append_column("split", _same(ROW_SCHEMA.field("split"), len(table), split))
        else:
            table = _put(table, "path", self._paths(table["path"], None))
        absent = {"class_label": table["label"]} if "class_label" not in table.column_names else {}
        if "mask" in table.column_names and len(table):
            table = _put(table, "mask", self._masks(table["mask"]))
        if self.mask_rule:
            rule = _same(ROW_SCHEMA.field("mask_rule"), len(table), self.mask_rule)
            if "mask_rule" in table.column_names:
                own = table["mask_rule"].cast(pa.string())
                rule = pc.if_else(pc.equal(own, ""), self.mask_rule, own)
            table = _put(table, "mask_rule", rule)
        for field in ROW_SCHEMA:
            if field.name not in table.column_names:
                table = table.append_column(field.name, absent.get(field.name, _same(field, len(table))))
        return table.select(ROW_SCHEMA.names)

    def release(self) -> None:
        """Let go of the file's content, which is held between the splits that are read of it."""
        self._held = None

    def _read(self) -> pa.Table:
        """Return the columns of the file that say something to us."""
        if not self.file.is_file():
            raise self.missing("table", self.file)
        stat = self.file.stat()
        version = (stat.st_mtime_ns, stat.st_size)
        if self._held is None or self._held[0] != version:
            try:
                if self.file.suffix.lower() == ".parquet":
                    known = self._names(pa.parquet.read_schema(self.file).names)
                    repeating = [column for name, column in known.items() if name in _TEXT and name not in PLAIN]
                    columns = list(dict.fromkeys(known.values()))
                    # not read_table, which cuts dictionaries into many pieces that must be put together again
                    with pa.parquet.ParquetFile(self.file, read_dictionary=repeating, memory_map=True) as file:
                        raw = file.read(columns)
                else:
                    raw = pa.csv.read_csv(self.file)
                    self._names(raw.column_names)
            except (pa.ArrowInvalid, OSError) as e:
                raise UserError(f"cannot read the table {self.file}: {str(e).splitlines()[0]}") from e
            self._held = version, raw
        return self._held[1]

    def _names(self, names: list[str]) -> dict[str, str]:
        """Return the file's column by our name, where it has one."""
        found = {name: column for name in ROW_SCHEMA.names if (column := self._column(names, name)) is not None}
        for name in ("path", "label"):
            if name not in found:
                raise UserError(
                    f"{self.file} has no column for {name!r}: it has {', '.join(names)}; "
                    f"name it with columns: {{{name}: ...}}"
                )
        return found

    def _columns(self, raw: pa.Table) -> dict[str, pa.ChunkedArray]:
        return {name: raw.column(column) for name, column in self._names(raw.column_names).items()}

    def _sides(self, table: pa.Table) -> pa.ChunkedArray | pa.Array | None:
        """Return the split of each row in our words; None if the file knows none."""
        if self.fractions is not None:
            for name in TIES:
                if name not in table.column_names:
                    table = table.append_column(name, _same(ROW_SCHEMA.field(name), len(table)))
            return split_column(table, self.fractions, self.seed, by=TIES)
        return _by_value(table["split"], self._split, pa.string()) if "split" in table.column_names else None

    def _paths(self, paths: pa.ChunkedArray, here: pa.Array | None) -> pa.ChunkedArray:
        """Return paths below the root; of those rows alone where ``here``, bool (n,), is true."""

        def done() -> Iterator[pa.Array]:
            row = 0
            for piece in pieces(paths):
                kept = piece if here is None else piece.filter(here.slice(row, len(piece)))
                yield all_below(self.root, kept)
                row += len(piece)

        size = paths.nbytes + len(paths) * (len(str(self.root).encode()) + 1)
        whole = [one_piece(done(), len(paths), size)] if size < 1 << 31 else list(done())
        return pa.chunked_array(whole, pa.string())

    def _masks(self, masks: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return masks below the root; no mask stays no mask."""
        if pc.any(pc.equal(masks, "")).as_py():
            return _by_value(masks, lambda mask: below(self.root, mask) if mask else "", pa.string())
        return self._paths(masks, None)

    def _column(self, names: list[str], name: str) -> str | None:
        if name in self.columns:
            if self.columns[name] not in names:
                raise UserError(f"{self.file} has no column {self.columns[name]!r}: it has {', '.join(names)}")
            return self.columns[name]
        lower = {c.lower(): c for c in names}
        found = next((lower[alias] for alias in ALIASES[name] if alias in lower), None)
        return None if name == "method" and found == self._column(names, "generator") else found

    def _labels(self, values: pa.ChunkedArray) -> pa.ChunkedArray:
        meaning = _meaning({cell(v) for v in pc.unique(values).to_pylist()}, self.label_of_fake, self.file)
        return _by_value(values, lambda v: meaning[cell(v)], pa.int8())

    def _numbers(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        kind = ROW_SCHEMA.field(name).type
        try:
            if pa.types.is_integer(column.type):
                return column.cast(kind).fill_null(-1)
            return _by_value(column, lambda v: -1 if v is None else int(v), kind)
        except (ValueError, OverflowError) as e:  # Arrow's errors are ValueErrors
            raise UserError(f"{self.file}: column {name!r} must hold whole numbers: {str(e).splitlines()[0]}") from e

    def _split(self, name: str) -> str:
        if name and name.lower() not in SPLIT_NAMES:
            raise UserError(f"{self.file}: unknown split {name!r}; there are {', '.join(SPLIT_NAMES)}")
        return SPLIT_NAMES.get(name.lower(), "")


def _put(table: pa.Table, name: str, column: pa.ChunkedArray | pa.Array) -> pa.Table:
    """Return a table with one column replaced, or added."""
    at = table.schema.get_field_index(name)
    return table.append_column(name, column) if at < 0 else table.set_column(at, name, column)


def _same(field: pa.Field, n: int, name: str = "") -> pa.ChunkedArray:
    """Return a column of one name, by default the absent one; -1 for a column of numbers."""
    if not pa.types.is_string(field.type):
        return pa.chunked_array([pa.repeat(pa.scalar(-1, field.type), n)])
    return pa.chunked_array([pa.DictionaryArray.from_arrays(np.zeros(n, np.int8), pa.array([name]))])


def _by_value(column: pa.ChunkedArray, function: Callable[[Any], Any], kind: pa.DataType) -> pa.ChunkedArray:
    """Return a function of each cell, called once for each different value."""
    encoded = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).unify_dictionaries()
    if not encoded.num_chunks:
        return pa.chunked_array([], kind)
    results = pa.array([function(value) for value in encoded.chunk(0).dictionary.to_pylist()], kind)
    found = pa.chunked_array([results.take(part.indices) for part in encoded.chunks], kind)
    return found.fill_null(function(None)) if column.null_count else found


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ``cell`` of each cell, as text or as a dictionary of text."""
    kind = column.type
    if kind == pa.dictionary(pa.int32(), pa.string()) and not column.null_count:
        return column
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        column = column.cast(pa.string())
        return column.fill_null("") if column.null_count else column
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        return pa.chunked_array([[cell(value) for value in column.to_pylist()]], pa.string())
    return _by_value(column, cell, pa.string())


def read_labels(values: list[str], label_of_fake: str | int | None, file: Path) -> list[int]:
    """Return 0 (real) or 1 (fake) for each value.

    Args:
        values: 0 and 1, or class names the field agrees on.
        label_of_fake: The value that means fake, where it is neither; then one other value is real.
        file: Where they stand.

    Raises:
        UserError: If the values do not say which is fake.
    """
    meaning = _meaning(set(values), label_of_fake, file)
    return [meaning[value] for value in values]


def _meaning(values: set[str], label_of_fake: str | int | None, file: Path) -> dict[str, int]:
    """Return the label by value; see ``read_labels``."""
    known = sorted(values)
    if label_of_fake is not None:
        fake = str(label_of_fake)
        if len([v for v in known if v != fake]) > 1:
            raise UserError(
                f"{file}: labels are {', '.join(known)}; with label_of_fake={fake} one other value must be left"
            )
        return {v: int(v == fake) for v in known}
    meaning = {v: {"0": 0, "1": 1}.get(v, label_of(v)) for v in known}
    told = {v: label for v, label in meaning.items() if label is not None}
    if len(told) < len(known):
        raise UserError(f"{file}: cannot tell real from fake by the labels {', '.join(known[:10])}; set label_of_fake")
    return told


def cell(value: object) -> str:
    """Return a cell as text: whole floats as integers (a column with gaps is read as float), None as ''."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
