"""A table of images, CSV or Parquet, with named columns."""

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from dfl.data import csv_files
from dfl.data.frames import by_paths
from dfl.data.locators import all_below, below
from dfl.data.masks import check_rule
from dfl.data.sources.base import PLAIN, ROW_SCHEMA, SPLIT_NAMES, TIES, Splittable
from dfl.data.sources.contradictions import Evidence, contradiction, evidence_columns, find_contradiction
from dfl.data.sources.labels import Fakes, cell, class_names, label_meaning, real_and_fake_value
from dfl.data.sources.parquet_table import holds_bytes
from dfl.data.sources.parquet_table import read as read_parquet
from dfl.data.sources.trees import from_windows
from dfl.data.splits import split_column
from dfl.data.text_columns import one_piece, pieces, put
from dfl.errors import UserError, first_line

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


class Table(Splittable):
    """Rows of a CSV or Parquet file. Paths in it are relative to ``root``, or to the file's folder.

    Labels may be 0 and 1, or class names the field agrees on (real, fake, ...), in the cells or, as Hugging Face has
    them, in the schema. Where a set counts the other way round, say ``label_of_fake: 0``; then the one other value is
    real. Without it, whatever in the table says the opposite of a label is an error (``contradictions.py``).

    All of a CSV file is text, so 007 stays 007. Paths may have backslashes, and the drive of another machine before
    them. In Parquet, images and masks may be cells: bytes of a file, or structs ``{bytes, path}``.

    Args:
        file: The CSV or Parquet file.
        root: Folder that relative paths start from; by default the file's own.
        columns: Column of the file by our name, for example ``{path: photo, label: is_real}`` (with ``label_of_fake:
            0``); only where the name is not one of the usual ones.
        label_of_fake: The value that means fake, or a list of them. None: 1, or a name such as fake.
        mask_rule: How masks are read that have no rule in the table (``dfl/data/masks.py``), such as ``max>0``; by
            default the set's masks are looked at together.
        encoding: Of a CSV file, such as gbk or cp1252; by default UTF-8.
    """

    #: Columns that there must be.
    needed: tuple[str, ...] = ("path", "label")

    def __init__(
        self,
        file: str,
        root: str | None = None,
        columns: dict[str, str] | None = None,
        label_of_fake: Fakes = None,
        mask_rule: str = "",
        encoding: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(root or str(Path(file).parent), **options)
        self.file, self.encoding = Path(file).expanduser(), encoding
        self.columns, self.label_of_fake = columns or {}, label_of_fake
        self.user_named_fakes = label_of_fake is not None
        self.mask_rule = check_rule(mask_rule)
        self._held: tuple[tuple[int, int], pa.Table] | None = None
        self._real_and_fake = ("0", "1")  # values of the label column that mean real and fake

    def items(self, split: str) -> pa.Table:
        """Return the rows of a split."""
        raw = self._read()
        known = self._names(raw.column_names)
        text = {name: texts(raw[known[name]], self._where(known[name])) for name in known if name in _TEXT}
        table = pa.table({name: column.cast(pa.string()) if name in PLAIN else column for name, column in text.items()})
        if len(table) and not pc.min(pc.binary_length(table["path"])).as_py():
            row = pc.index(table["path"], "").as_py() + 1
            raise UserError(f"{self._where(known['path'])}: row {row} names no image; mend it or take it out")
        table = table.append_column("label", self._labels(raw, known))
        for name in ("class_label", "frame", "bits"):
            if name in known:
                table = table.append_column(name, self._numbers(raw[known[name]], name))
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
            table = put(table, "path", self._paths(table["path"], None))
        absent = {"class_label": table["label"]} if "class_label" not in table.column_names else {}
        if "mask" in table.column_names and len(table):
            table = put(table, "mask", self._masks(table["mask"]))
        if self.mask_rule:
            rule = _same(ROW_SCHEMA.field("mask_rule"), len(table), self.mask_rule)
            if "mask_rule" in table.column_names:
                own = table["mask_rule"].cast(pa.string())
                rule = pc.if_else(pc.equal(own, ""), self.mask_rule, own)
            table = put(table, "mask_rule", rule)
        for field in ROW_SCHEMA:
            if field.name not in table.column_names:
                table = table.append_column(field.name, absent.get(field.name, _same(field, len(table))))
        return table.select(ROW_SCHEMA.names)

    def videos(self, table: pa.Table) -> list[str]:
        """Return the video of each row; by folders and names of files where no column ties rows."""
        known = any(set(pc.unique(table[name]).to_pylist()) - {""} for name in TIES)
        return super().videos(table) if known else by_paths(table)

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
            if self.file.suffix.lower() == ".parquet":
                try:
                    schema = pa.parquet.read_schema(self.file)
                    known = self._names(schema.names)
                    names = [column for name, column in known.items() if name in _TEXT and name not in PLAIN]
                    repeating = [column for column in names if not pa.types.is_nested(schema.field(column).type)]
                    raw = read_parquet(self.file, known, repeating, self.columns)
                except (pa.ArrowException, OSError) as e:
                    raise UserError(f"cannot read the table {self.file}: {first_line(e)}") from e
            else:
                raw = csv_files.read(self.file, self.encoding)
                self._names(raw.column_names)
            self._held = version, raw
        return self._held[1]

    def _names(self, names: list[str]) -> dict[str, str]:
        """Return the file's column by our name, where it has one."""
        found = {name: column for name in ROW_SCHEMA.names if (column := self._column(names, name)) is not None}
        for name in self.needed:
            if name not in found:
                raise UserError(
                    f"{self.file} has no column for {name!r}: it has {', '.join(names)}; "
                    f"name it with columns: {{{name}: ...}}"
                )
        csv_files.once(self.file, names, found.values())
        return found

    def _where(self, column: str) -> str:
        return f"{self.file}: column {column!r}"

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

        paths = from_windows(paths, self.root, self.file)

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
        masks = from_windows(masks, self.root, self.file)
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

    def _labels(self, raw: pa.Table, known: Mapping[str, str]) -> pa.ChunkedArray:
        """Return 0 or 1 for each row.

        Raises:
            Contradiction: If another column, the column's own name or the schema says the opposite.
        """
        column, values = known["label"], raw[known["label"]]
        if pa.types.is_nested(values.type) or holds_bytes(values.type):
            values = texts(values, self._where(column))
        names = class_names(raw.schema, column)
        cells = {cell(value) for value in pc.unique(values).to_pylist()}
        meaning = label_meaning(cells, self.label_of_fake, self.file, column, names)
        labels = _by_value(values, lambda v: meaning[cell(v)], pa.int8())
        self._real_and_fake = real_and_fake_value(meaning)
        if self.user_named_fakes:
            return labels
        own = {column, *(known[name] for name in PLAIN if name in known)}
        if found := find_contradiction(labels, None, evidence_columns(raw, own)):
            path = str(raw[known["path"]][found.row].as_py())
            raise contradiction(str(self.file), f"column {column!r}", found, path, self._ways(found))
        return labels

    def _ways(self, found: Evidence) -> str:
        real, fake = self._real_and_fake
        keep = f"label_of_fake: {fake} if the labels are right"
        if not found.all:
            return f"mend these rows, or set {keep}"
        if found.column:
            return f"set columns: {{label: {found.column}}} if that is right, or {keep}"
        return f"set label_of_fake: {real} if that is right, or {keep}"

    def _numbers(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        kind = ROW_SCHEMA.field(name).type
        if pa.types.is_nested(column.type):
            raise UserError(f"{self._where(name)} holds {column.type}, where whole numbers belong")
        try:
            if pa.types.is_integer(column.type):
                return column.cast(kind).fill_null(-1)
            return _by_value(column, _whole, kind)
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as e:
            raise UserError(f"{self._where(name)} must hold whole numbers: {first_line(e)}") from e

    def _split(self, name: str) -> str:
        name = name.strip().lower()
        if name and name not in SPLIT_NAMES:
            raise UserError(f"{self.file}: unknown split {name!r}; there are {', '.join(SPLIT_NAMES)}")
        return SPLIT_NAMES.get(name, "")


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


def _whole(value: Any) -> int:
    """Return a number, whole though it may be written as 3.0; -1 for none."""
    number = float(value) if value not in (None, "") else math.nan
    if not math.isnan(number) and not number.is_integer():
        raise ValueError(f"found {value!r}")
    return -1 if math.isnan(number) else int(number)


def texts(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return ``cell`` of each cell, as text or as a dictionary of text; ``where`` begins an error."""
    kind = column.type
    if kind == pa.dictionary(pa.int32(), pa.string()) and not column.null_count:
        return column
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if holds_bytes(kind):
        try:
            column, kind = column.cast(pa.string()), pa.string()
        except pa.ArrowException as e:
            raise UserError(f"{where} holds {kind}, where text belongs") from e
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        column = column.cast(pa.string())
        return column.fill_null("") if column.null_count else column
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        return pa.chunked_array([[cell(value) for value in column.to_pylist()]], pa.string())
    return _by_value(column, cell, pa.string())
