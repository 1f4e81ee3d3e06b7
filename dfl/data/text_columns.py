"""Columns of text in tables of rows."""

import pyarrow as pa


def put(table: pa.Table, name: str, column: pa.Array | pa.ChunkedArray | list[str]) -> pa.Table:
    """Return a table with one column replaced, or added."""
    column = pa.array(column, pa.string()) if isinstance(column, list) else column
    at = table.schema.get_field_index(name)
    return table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
