"""A Parquet file as a table of images: which columns are read, and images and masks that lie in its cells.

Hugging Face writes an image as a struct ``{bytes, path}``, others as a column of bytes. Such cells are never read here:
the row gets a locator, and the image is read when a batch asks for it.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data.locators import locate
from dfl.data.sources.contradictions import may_be_evidence
from dfl.errors import UserError

#: Columns that may hold images.
IMAGES = ("path", "mask")
#: Rows whose images are in memory at once where it must be seen which cells are empty.
_FEW = 64
#: A table of fewer rows is small, whatever its columns hold.
_SMALL = 1 << 17


def read(file: Path, columns: Mapping[str, str], named: Collection[str] = ()) -> pa.Table:
    """Return the columns that say something to us, under the file's names.

    Args:
        file: The file.
        columns: Its columns by our names.
        named: Those of our names whose column the user named.

    Returns:
        These columns, with locators in place of bytes; and others that may say what is real. An image where text
        belongs (a picture called ``original``) is left out unless the user named it.

    Raises:
        UserError: If a column of images holds neither text nor images.
    """
    with pq.ParquetFile(file, memory_map=True) as content:
        schema = content.schema_arrow
        inside = {columns[name] for name in IMAGES if name in columns and _is_inside(content, file, columns[name])}
        pictures = {
            column
            for name, column in columns.items()
            if name not in (*IMAGES, "label", *named) and _holds_images(content, schema.field(column))
        }
        flat = [name for name in dict.fromkeys(columns.values()) if name not in inside | pictures]
        flat += [
            f.name
            for f in schema
            if f.name not in columns.values() and may_be_evidence(f.name, f.type) and _small(content, f)
        ]
        table = content.read(flat)
        for name in inside:
            table = table.append_column(name, _places(content, file, name))
        return table


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether cells of a type hold bytes, or anything that does."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_nested(kind):
        return any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _is_inside(content: pq.ParquetFile, file: Path, column: str) -> bool:
    """Whether a column of images holds the images themselves, not their paths."""
    field = content.schema_arrow.field(column)
    if _holds_images(content, field):
        return True
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)
    if text or (holds_bytes(kind) and not pa.types.is_nested(kind)):
        return False
    where = f"{file}: column {column!r} holds {field.type}"
    raise UserError(f"{where}, where paths, bytes of image files or structs {{bytes, path}} belong")


def _holds_images(content: pq.ParquetFile, field: pa.Field) -> bool:
    """Whether a column holds bytes that are no text, or structs with such a field ``bytes``."""
    kind = field.type
    if pa.types.is_nested(kind):
        return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and holds_bytes(kind.field("bytes").type)
    if not holds_bytes(kind):
        return False
    return not _is_path(
        next((batch.column(0)[0].as_py() for batch in content.iter_batches(1, columns=[field.name])), b"")
    )


def _is_path(cell: bytes | None) -> bool:
    """Whether bytes are text: some writers do not say that their text is text."""
    try:
        return cell is not None and len(cell) < 4096 and cell.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _small(content: pq.ParquetFile, field: pa.Field) -> bool:
    """Whether a column costs little to read: there are few rows, or few different values."""
    rows, of = content.metadata.num_rows, content.metadata
    if rows <= _SMALL:
        return True
    at = [i for i in range(of.num_columns) if of.schema.column(i).path == field.name]
    size = sum(of.row_group(g).column(i).total_uncompressed_size for g in range(of.num_row_groups) for i in at)
    return size <= 4 * rows


def _places(content: pq.ParquetFile, file: Path, column: str) -> pa.Array:
    """Return where each row's image is: in its cell, or at the path in an empty one; '' where neither is."""
    start = locate(file.absolute(), column=column, row=0)[:-1]
    rows = pa.array(np.arange(content.metadata.num_rows)).cast(pa.string())
    cells = pc.binary_join_element_wise(start, rows, "")
    if _is_full(content, column):
        return cells
    filled, paths = [], []
    for batch in content.iter_batches(_FEW, columns=[column]):
        one = batch.column(0)
        path = pa.nulls(len(one), pa.string())
        if pa.types.is_struct(one.type):
            if one.type.get_field_index("path") >= 0:
                path = pc.struct_field(one, "path").cast(pa.string())
            one = pc.struct_field(one, "bytes")
        filled.append(pc.is_valid(one))
        paths.append(pc.fill_null(path, ""))
    return pc.if_else(pa.chunked_array(filled), cells, pa.chunked_array(paths))


def _is_full(content: pq.ParquetFile, column: str) -> bool:
    """Whether the file says that no cell is empty."""
    of = content.metadata
    at = [i for i in range(of.num_columns) if of.schema.column(i).path in (column, f"{column}.bytes")]
    statistics = [of.row_group(g).column(i).statistics for g in range(of.num_row_groups) for i in at]
    return all(one is not None and one.has_null_count and one.null_count == 0 for one in statistics)
