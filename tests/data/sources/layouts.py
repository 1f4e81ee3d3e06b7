"""Small true copies of public trees: empty files by name, and rows as tuples with paths below the root."""

from pathlib import Path

import pyarrow as pa
import pytest

from dfl.data.sources import Source
from dfl.errors import UserError


def touch(root: Path, *names: str) -> None:
    """Write empty files; ``{a,b}`` stands for both."""
    for name in names:
        head, brace, rest = name.partition("{")
        if brace:
            inner, _, tail = rest.partition("}")
            touch(root, *(head + word + tail for word in inner.split(",")))
            continue
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def rows(table: pa.Table, root: Path, *columns: str) -> list[tuple]:
    """Return the chosen columns, paths and masks as written below the root."""
    cut = f"{root}/"
    cells = {c: table[c].to_pylist() for c in columns}
    cells |= {c: [cell.replace(cut, "", 1) for cell in cells[c]] for c in {"path", "mask"} & cells.keys()}
    return list(zip(*(cells[c] for c in columns), strict=True))


def as_text(table: pa.Table, root: Path, *columns: str) -> list[str]:
    """Return the same as text, ``real/a.png | 0 | -``, where ``-`` is empty."""
    return [" | ".join(str(cell) or "-" for cell in row) for row in rows(table, root, *columns)]


def refuses(source: Source, split: str, match: str) -> None:
    """Check that reading a split is one error of these words."""
    with pytest.raises(UserError, match=match):
        source.load(split)
