"""A table of images, CSV or Parquet, with named columns."""

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from dfl.data import csv_files
from dfl.data.frames import by_paths
from dfl.data.locators import all_below
from dfl.data.masks import check_rule
from dfl.data.sources.base import PLAIN, ROW_SCHEMA, SPLIT_NAMES, TIES, Splittable, part, put
from dfl.data.sources.contradictions import Evidence, contradiction, evidence_columns, find_contradiction
from dfl.data.sources.labels import Fakes, cell, class_names, label_meaning, real_and_fake_value
from dfl.data.sources.parquet_table import holds_bytes
from dfl.data.sources.parquet_table import read as read_parquet
from dfl.data.sources.trees import from_windows
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
        self._real_and_fake = ("0", "1")  # values of the label column that mean real and fake

    def items(self, split: str) -> pa.Table:
        raw = self._read()
        columns = self._names(raw.column_names)
        table = pa.table(
            {name: texts(raw[columns[name]], self._where(columns[name])) for name in columns if name in _TEXT}
        )
        if (row := pc.index(table["path"], "").as_py()) >= 0:
            raise UserError(f"{self._where(columns['path'])}: row {row + 1} names no image; mend it or take it out")
        table = table.append_column("label", self._labels(raw, columns))
        for name in ("class_label", "frame", "bits"):
            if name in columns:
                table = table.append_column(name, self._numbers(raw[columns[name]], name))
        made = {"generator": table["generator"]} if "generator" in columns and not self.user_named_fakes else {}
        if found := find_contradiction(table["label"], None, made):  # of a column ``generator`` it is an error by now
            warnings.warn(
                f"{self._where(columns['generator'])} is read as the generator, and names one in rows labelled real "
                f"alone ({found.of:,} looked at): are the labels the other way round (label_of_fake), or is it no "
                "generator?",
                stacklevel=2,
            )
        if self.fractions is None and "split" in columns:
            sides = by_value(table["split"], self._split, pa.string())
            if pc.any(pc.not_equal(sides, "")).as_py():
                table = put(table, "split", sides).filter(pc.equal(sides, split))
        for name in ("path", "mask"):
            if name in columns:
                table = put(table, name, self._below(table[name]))
        for field in ROW_SCHEMA:
            if field.name not in table.column_names:
                absent = pa.repeat(pa.scalar("" if field.name in _TEXT else -1, field.type), len(table))
                table = table.append_column(field.name, table["label"] if field.name == "class_label" else absent)
        table = part(table, split, self.fractions, self.seed)
        if self.mask_rule:
            own = table["mask_rule"]
            table = put(table, "mask_rule", pc.if_else(pc.equal(own, ""), self.mask_rule, own))
        return table.select(ROW_SCHEMA.names)

    def videos(self, table: pa.Table) -> list[str]:
        """Return the video of each row; by folders and names of files where no column ties rows."""
        tied = any(set(pc.unique(table[name]).to_pylist()) - {""} for name in TIES)
        return super().videos(table) if tied else by_paths(table)

    def _read(self) -> pa.Table:
        """Return the columns of the file that say something to us."""
        if not self.file.is_file():
            raise self.missing("table", self.file)
        if self.file.suffix.lower() != ".parquet":
            return csv_files.read(self.file, self.encoding)
        try:
            columns = self._names(pa.parquet.read_schema(self.file).names)
            return read_parquet(self.file, columns, self.columns)
        except (pa.ArrowException, OSError) as e:
            raise UserError(f"cannot read the table {self.file}: {first_line(e)}") from e

    def _names(self, names: list[str]) -> dict[str, str]:
        """Return the file's column by our name, where it has one."""
        columns = {name: column for name in ROW_SCHEMA.names if (column := self._column(names, name)) is not None}
        for name in self.needed:
            if name not in columns:
                raise UserError(
                    f"{self.file} has no column for {name!r}: it has {', '.join(names)}; "
                    f"name it with columns: {{{name}: ...}}"
                )
        csv_files.once(self.file, names, columns.values())
        return columns

    def _where(self, column: str) -> str:
        return f"{self.file}: column {column!r}"

    def _below(self, files: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return files below the root; no file stays none."""
        return all_below(self.root, from_windows(files, self.root, self.file))

    def _column(self, names: list[str], name: str) -> str | None:
        if name in self.columns:
            if self.columns[name] not in names:
                raise UserError(f"{self.file} has no column {self.columns[name]!r}: it has {', '.join(names)}")
            return self.columns[name]
        column = csv_files.called(self.file, names, ALIASES[name])
        return None if name == "method" and column == self._column(names, "generator") else column

    def _labels(self, raw: pa.Table, columns: Mapping[str, str]) -> pa.ChunkedArray:
        """Return 0 or 1 for each row.

        Raises:
            Contradiction: If another column, the column's own name or the schema says the opposite.
        """
        column, values = columns["label"], raw[columns["label"]]
        if pa.types.is_nested(values.type) or holds_bytes(values.type):
            values = texts(values, self._where(column))
        names = class_names(raw.schema, column)
        cells = {cell(value) for value in pc.unique(values).to_pylist()}
        meaning = label_meaning(cells, self.label_of_fake, self.file, column, names)
        labels = by_value(values, lambda v: meaning[cell(v)], pa.int8())
        self._real_and_fake = real_and_fake_value(meaning)
        if self.user_named_fakes:
            return labels
        own = {column, *(columns[name] for name in PLAIN if name in columns)}
        words = evidence_columns(raw, own)
        if evidence := find_contradiction(labels, None, words, numbers="label" not in self.columns):
            path = str(raw[columns["path"]][evidence.row].as_py())
            raise contradiction(str(self.file), f"column {column!r}", evidence, path, self._ways(evidence))
        return labels

    def _ways(self, evidence: Evidence) -> str:
        real, fake = self._real_and_fake
        settle = f"label_of_fake: {fake} if the labels are right"
        if not evidence.all:
            return f"mend these rows, or set {settle}"
        if evidence.column:
            return f"set columns: {{label: {evidence.column}}} if that is right, or {settle}"
        return f"set label_of_fake: {real} if that is right, or {settle}"

    def _numbers(self, column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
        kind = ROW_SCHEMA.field(name).type
        if pa.types.is_nested(column.type):
            raise UserError(f"{self._where(name)} holds {column.type}, where whole numbers belong")
        try:
            if pa.types.is_integer(column.type):
                return column.cast(kind).fill_null(-1)
            return by_value(column, _whole, kind)
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as e:
            raise UserError(f"{self._where(name)} must hold whole numbers: {first_line(e)}") from e

    def _split(self, name: str) -> str:
        name = name.strip().lower()
        if name and name not in SPLIT_NAMES:
            raise UserError(f"{self.file}: unknown split {name!r}; there are {', '.join(SPLIT_NAMES)}")
        return SPLIT_NAMES.get(name, "")


def by_value(column: pa.ChunkedArray, function: Callable[[Any], Any], kind: pa.DataType) -> pa.ChunkedArray:
    """Return a function of each cell, called once for each different value."""
    encoded = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).unify_dictionaries()
    if not encoded.num_chunks:
        return pa.chunked_array([], kind)
    results = pa.array([function(value) for value in encoded.chunk(0).dictionary.to_pylist()], kind)
    cells = pa.chunked_array([results.take(chunk.indices) for chunk in encoded.chunks], kind)
    return cells.fill_null(function(None)) if column.null_count else cells


def _whole(value: Any) -> int:
    """Return a number, whole though it may be written as 3.0; -1 for none."""
    number = float(value) if value not in (None, "") else math.nan
    if not math.isnan(number) and not number.is_integer():
        raise ValueError(f"found {value!r}")
    return -1 if math.isnan(number) else int(number)


def texts(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Return ``cell`` of each cell, as text; ``where`` begins an error."""
    kind = column.type
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
    return by_value(column, cell, pa.string())
