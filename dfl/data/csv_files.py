"""CSV files: written so that no spreadsheet runs a cell, and read as text, whoever wrote them.

A spreadsheet runs a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end as a formula. OWASP (CSV
Injection) advises a single quote before it. Text that we write gets one, and reading takes it away again; so does text
that begins with quotes and such a character, so that every name comes back as it was. Numbers stay numbers.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from dfl.errors import UserError, first_line

#: Characters that make a cell a formula where they come first; the wide ones are taken for the others in Japanese.
FORMULA = "=+\\-@\t\r\n＝＋－＠"
_FORMULA = re.compile(f"'*[{FORMULA}]")
_HEAD = 1 << 16  # bytes in which the line of names ends
_SAVE = "save it as UTF-8 (in Excel: CSV UTF-8), or give Table its encoding (encoding: gbk, cp1252, utf-16-le, ...)"


def safe(value: Any) -> str:
    """Return the text of a cell; None is empty, and text that a spreadsheet would run begins with a single quote."""
    if isinstance(value, str):
        return f"'{value}" if _FORMULA.match(value) else value
    return "" if value is None else str(value)


def line(cells: Iterable[Any]) -> str:
    """Return one line of a CSV file, with its end."""
    text = io.StringIO()
    csv.writer(text).writerow(map(safe, cells))
    return text.getvalue()


def whole(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the content of a CSV file; what a row does not have is empty."""
    return line(columns) + "".join(line(row.get(name) for name in columns) for row in rows)


def read(file: Path, encoding: str | None = None) -> pa.Table:
    """Read a CSV file; its separator may also be a semicolon, a tab or a bar, as the line of names tells.

    Args:
        file: The file.
        encoding: Of its text; by default UTF-8, or UTF-16 where its first bytes say so.

    Returns:
        All columns as text (``pa.string()``), without nulls: 007 stays 007, and an empty cell is ''. Names are stripped
        of blanks; one may stand more than once.

    Raises:
        UserError: If the file cannot be read, is empty, or is in another encoding.
    """
    try:
        content = _as_utf8(file.read_bytes(), file, encoding)
        names, separator, start = _header(content)
        if not names:
            raise UserError(f"{file} is empty: a table begins with a line of names of columns")
        rest = content.slice(start)
        if len(rest) < _HEAD and not rest.to_pybytes().strip():
            return pa.table([pa.array([], pa.string())] * len(names), names)
        columns = [str(i) for i in range(len(names))]  # names may come twice
        table = pa.csv.read_csv(
            pa.BufferReader(rest),
            pa.csv.ReadOptions(column_names=columns),
            pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False),
        )
    except (pa.ArrowInvalid, OSError) as error:
        if "invalid UTF8" in str(error):
            raise _not_utf8(file, content.to_pybytes()) from error
        raise UserError(f"cannot read the table {file}: {first_line(error)[:200]}") from error
    return pa.table([_unquoted(column) for column in table.columns], names)


def read_columns(file: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> pa.Table:
    """Read a CSV file that must have some columns, and may have others, each once.

    Raises:
        UserError: As `read`, and if a needed column is not there, or one of them stands twice.
    """
    table = read(file)
    if not set(needed) <= set(table.column_names):
        raise UserError(f"{file} needs the columns {', '.join(needed)}; it has {', '.join(table.column_names)}")
    once(file, table.column_names, (*needed, *optional))
    return table


def called(file: Path, names: Sequence[str], aliases: Iterable[str]) -> str | None:
    """Return the column that the first of some lower-case names calls, whatever its case; None if there is none.

    Raises:
        UserError: If two columns differ from it in case alone, and none is it.
    """
    for alias in aliases:
        same = [name for name in dict.fromkeys(names) if name.strip().lower() == alias]
        if len(same) > 1 and alias not in same:
            raise UserError(f"{file} has the columns {', '.join(same)}: rename or remove all but one")
        if same:
            return alias if alias in same else same[0]
    return None


def once(file: Path, names: Sequence[str], wanted: Iterable[str]) -> None:
    """Raise a UserError if one of the wanted columns stands twice in a file."""
    for name in wanted:
        if names.count(name) > 1:
            raise UserError(f"{file} has {names.count(name)} columns named {name!r}: rename or remove all but one")


def _as_utf8(content: bytes, file: Path, encoding: str | None) -> pa.Buffer:
    """Return the file's text as UTF-8, without a mark at its start."""
    marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    if encoding is None and content.startswith(marks) and not content.startswith(codecs.BOM_UTF32_LE):
        encoding = "utf-16"
    if encoding is not None:
        try:
            content = content.decode(encoding).encode()
        except LookupError as error:
            raise UserError(
                f"no encoding {encoding!r}; names are utf-8, gbk, shift_jis, cp1252, latin-1, ..."
            ) from error
        except ValueError as error:
            raise UserError(f"{file} is not in the encoding {encoding}: {error}") from error
    elif b"\0" in content[:_HEAD].partition(b"\n")[0]:
        raise UserError(f"{file} is not UTF-8: its first line holds zero bytes, as UTF-16 and UTF-32 have; {_SAVE}")
    return pa.py_buffer(content.removeprefix(codecs.BOM_UTF8))


def _not_utf8(file: Path, content: bytes) -> UserError:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        where = f"line {row} holds the byte 0x{content[error.start]:02x}"
    return UserError(f"{file} is not UTF-8: {where}; {_SAVE}")


def _header(content: pa.Buffer) -> tuple[list[str], str, int]:
    """Return the names of the columns, what separates them, and where the rest begins; no names of an empty file."""
    head = content.slice(0, min(_HEAD, len(content))).to_pybytes().decode("latin-1")  # a character for each byte
    skipped = len(head) - len(head.lstrip("\r\n"))
    declared = re.match(r"sep=(.)\r?\n", head[skipped:])  # what Excel writes for itself
    skipped += declared.end() if declared else 0
    separators = declared[1] if declared else ",;\t|"
    readings = [(*_first(head[skipped:], separator), separator) for separator in separators]
    names, length, separator = max(readings, key=lambda one: len(one[0]))  # the first of equals
    text = [_plain(name.encode("latin-1").decode(errors="replace")).strip() for name in names]
    return ([] if text in ([], [""]) else text), separator, skipped + length


def _first(text: str, separator: str) -> tuple[list[str], int]:
    """Return the cells of the first line, and how long it is; a quoted cell may hold the end of a line."""
    lines = io.StringIO(text, newline="")
    return next(csv.reader(lines, delimiter=separator), []), lines.tell()


def _plain(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _unquoted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Take away the quote that `safe` puts before a formula."""
    if not pc.any(pc.starts_with(column, "'")).as_py():
        return column
    return pc.replace_substring_regex(column, f"\\A'('*[{FORMULA}])", "\\1")
