"""The rows of a data set as a memory-mapped Arrow file.

Millions of rows as Python objects would be copied into every loader process, page by page, as their reference counts
are written. Here they lie in one file on each machine, named by its content. Every process maps it, and the system
keeps one copy of its pages for all. Names that repeat are stored once, with an integer of the smallest fitting size for
each row.
"""

import hashlib
import mmap
import os
import re
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.decoding import escaped
from dfl.data.locators import any_odd
from dfl.data.sources.base import DEGRADATION, PLAIN, ROW_SCHEMA
from dfl.errors import UserError

#: Files that no run has used for so many days are removed.
MAX_AGE_DAYS = 7
#: The names that we give, and no others: these alone are ever removed.
_NAME = re.compile(r"[0-9a-f]{32}\.arrow|rows-\w{8}\.tmp")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_USER = os.getuid() if hasattr(os, "getuid") else 0


class Rows:
    """A memory-mapped table. It is pickled by its file's name, so that a spawned loader process maps it too.

    Args:
        file: What ``Rows.of`` wrote.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        #: All columns; text as dictionaries, that of ``PLAIN`` as it is where there is any.
        self.table: pa.Table = pa.ipc.open_file(_mapped(self.file)).read_all()
        # asking the table for a column costs several times what its cell does
        self._columns = {name: self.table[name].chunk(0) for name in self.table.column_names}
        #: int8 (n,), views of the file.
        self.label, self.class_label, self.bits = map(self.number, ("label", "class_label", "bits"))
        #: How images are degraded, each way once; () where none is.
        self.degradations: tuple[str, ...] = ()
        if DEGRADATION.name in self._columns:
            self.degradations = tuple(filter(None, self._columns[DEGRADATION.name].unique().to_pylist()))

    @classmethod
    def of(cls, table: pa.Table) -> "Rows":
        """Write a table of ``ROW_SCHEMA``, unless this machine has a file with the same content, and map it.

        Ranks that write it at the same time write the same, and each moves it into place.

        Raises:
            UserError: If the file cannot be written.
        """
        schema = ROW_SCHEMA.append(DEGRADATION) if DEGRADATION.name in table.column_names else ROW_SCHEMA
        columns = [_compact(field, table[field.name]) for field in schema]
        batch, folder, partial = pa.RecordBatch.from_arrays(columns, schema.names), _folder(), ""
        try:
            _remove_old(folder)
            number, partial = tempfile.mkstemp(prefix="rows-", suffix=".tmp", dir=folder)
            with os.fdopen(number, "wb") as to, pa.ipc.new_file(to, batch.schema) as writer:
                writer.write_batch(batch)
            digest = _sha256(partial)
            file = folder / f"{digest[:32]}.arrow"
            if _sha256(file) == digest:
                os.utime(file)
                os.unlink(partial)
            else:  # not there, or damaged since
                os.replace(partial, file)
        except OSError as error:
            if partial:
                Path(partial).unlink(missing_ok=True)
            raise UserError(
                f"cannot write {len(table):,} rows to {folder}: {error.strerror or error}; "
                "set TMPDIR to a local folder with room"
            ) from error
        return cls(file)

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.file.is_file():  # cleaned away; the pages that we have mapped are still there
            return Rows.of, (self.table,)
        os.utime(self.file)
        return Rows, (self.file,)

    def number(self, name: str) -> np.ndarray:
        """Return a column of numbers (n,), a view of the file."""
        return self._columns[name].to_numpy()

    def names(self, name: str) -> list[str]:
        """Return the different names of a column that is not in ``PLAIN``."""
        return list(self._columns[name].dictionary.to_pylist())

    def codes(self, name: str) -> np.ndarray:
        """Return where each row's name is in ``names``: int8, int16 or int32 (n,), a view of the file."""
        return self._columns[name].indices.to_numpy()

    def named_codes(self, name: str) -> np.ndarray:
        """Return ``codes`` with -1 where the name is empty, int32 (n,)."""
        codes, names = self.codes(name), self.names(name)
        return np.where(codes == names.index(""), -1, codes).astype(np.int32) if "" in names else codes

    def text(self, name: str, row: int) -> str:
        """Return a cell of a column of text."""
        return str(self._columns[name][row].as_py())

    def sha256(self) -> str:
        """Hash of the list: paths below their common folder, and labels; not of contents, nor of ``degradations``."""
        paths = _absolute(self._columns["path"].cast(pa.large_string()))
        start = len(common_folder(paths).encode())
        below = pc.binary_replace_slice(paths.cast(pa.large_binary()), 0, start, b"")
        edges = np.frombuffer(below.buffers()[1], np.int64)[: len(below) + 1]
        text = hashlib.sha256(memoryview(below.buffers()[2])[: edges[-1]]) if edges[-1] else hashlib.sha256()
        lengths = hashlib.sha256(np.diff(edges).tobytes())
        return hashlib.sha256(text.digest() + lengths.digest() + self.label.tobytes()).hexdigest()

    def repeated(self) -> list[str]:
        """Paths that stand in more than one row."""
        counts = self.table["path"].value_counts()
        return list(counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist())


def common_folder(paths: pa.Array) -> str:
    """Return the folder that all paths are in, with a slash at its end; '' of none."""
    ends = pc.min_max(paths).as_py()  # what the first and the last in the alphabet begin with, all begin with
    common = os.path.commonprefix([str(ends["min"]), str(ends["max"])])  # noqa: RUF071  (it is cut at a slash)
    return common[: common.rfind("/") + 1]


def _compact(field: pa.Field, column: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece, text that repeats as a dictionary."""
    if not (pa.types.is_string(field.type) or pa.types.is_dictionary(field.type)):
        return column.combine_chunks()
    if field.name in PLAIN and pc.any(pc.not_equal(column, "")).as_py():
        return column.cast(pa.large_string()).combine_chunks()  # Arrow's usual text ends at 2 GiB in one piece
    if pa.types.is_dictionary(field.type):  # long text, the same in all rows: it is never spelled out
        encoded = column.unify_dictionaries().combine_chunks()
    else:
        encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    kind = next(t for t in (np.int8, np.int16, np.int32) if len(encoded.dictionary) <= np.iinfo(t).max)
    return pa.DictionaryArray.from_arrays(encoded.indices.to_numpy().astype(kind), encoded.dictionary)


def _folder() -> Path:
    """Return the folder of this user's files on this machine, which others may share above it.

    Raises:
        UserError: If it cannot be made, or is a link, another's, or one that others can write to.
    """
    folder = Path(tempfile.gettempdir()) / f"dfl-rows-{_USER}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        info = folder.lstat()
        own = stat.S_ISDIR(info.st_mode) and (not hasattr(os, "getuid") or info.st_uid == _USER)
        if own and not info.st_mode & 0o022:
            folder.chmod(0o700)
            return folder
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror or error}; set TMPDIR to a local folder") from error
    what = "can be written by others" if own else "is not a folder of yours"
    raise UserError(f"{folder} {what}: remove it, or set TMPDIR to a folder of your own")


def _sha256(file: str | Path) -> str:
    """Return the hash of a file's content; '' of a link, or if it cannot be read."""
    with suppress(OSError), os.fdopen(os.open(file, os.O_RDONLY | _NO_LINK), "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
    return ""


def _mapped(file: Path) -> pa.BufferReader:
    with os.fdopen(os.open(file, os.O_RDONLY | _NO_LINK), "rb") as opened:
        return pa.BufferReader(pa.py_buffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)))


def _remove_old(folder: Path) -> None:
    """Remove what no run has used for long; a run that still maps a file keeps its pages."""
    oldest = time.time() - 86400 * MAX_AGE_DAYS
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another run may have been quicker
            if _NAME.fullmatch(file.name) and file.lstat().st_mtime < oldest:
                file.unlink()


def _absolute(paths: pa.Array) -> pa.Array:
    """Return paths as ``os.path.abspath`` gives them."""
    if pc.all(pc.starts_with(paths, "/")).as_py() and not any_odd(paths):
        return paths
    return pa.array((escaped(os.path.abspath(path)) for path in paths.to_pylist()), paths.type)
