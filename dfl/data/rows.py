"""The rows of a data set as a memory-mapped Arrow file.

Millions of rows as Python objects would be copied into every loader process, page by page, as their reference counts
are written. Here they lie in one file on each machine, named by its content. Every process maps it, and the system
keeps one copy of its pages for all. Names that repeat are kept once, with an integer of the smallest fitting size for
each row.
"""

import hashlib
import io
import mmap
import os
import re
import stat
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.data.decoding import escaped
from dfl.data.locators import odd, replaced
from dfl.data.sources.base import PLAIN, ROW_SCHEMA
from dfl.data.text_columns import STEP, pieces, prefixed
from dfl.errors import UserError

#: Files that no run has used for so many days are removed.
KEPT_DAYS = 7


class Rows:
    """A memory-mapped table. It is pickled by its file's name, so that a spawned loader process maps it too.

    Args:
        file: What ``Rows.of`` wrote.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        #: All columns, text of ``PLAIN`` as it is (or as a dictionary of one), other text as dictionaries.
        self.table: pa.Table = pa.ipc.open_file(_mapped(self.file)).read_all()
        # asking the table for a column costs several times what its cell does
        self._columns = {name: self.table[name].chunk(0) for name in self.table.column_names}
        #: int8 (n,), views of the file.
        self.label, self.class_label, self.bits = map(self.number, ("label", "class_label", "bits"))

    @classmethod
    def of(cls, table: pa.Table) -> "Rows":
        """Write a table of ``ROW_SCHEMA``, unless this machine has a file with the same content, and map it.

        Raises:
            UserError: If the file cannot be written.
        """
        batch = _compact(table)
        content = _Digest()
        _write(batch, content)
        file = _folder() / f"{content.sha256.hexdigest()[:32]}.arrow"
        if (found := _ours(file)) and found.st_size == content.size:
            with suppress(pa.ArrowException, OSError, LookupError):  # damaged since: it is written again
                os.utime(file, follow_symlinks=False)
                rows = cls(file)
                rows.table.validate(full=True)  # offsets out of the file would end the process
                return rows
        _keep(batch, file, content.size)
        return cls(file)

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[Any, ...]:
        if not _ours(self.file):  # cleaned away; the pages that we have mapped are still there
            return Rows.of, (self.table,)
        os.utime(self.file, follow_symlinks=False)
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

    def known(self, name: str) -> np.ndarray:
        """Return ``codes`` with -1 where the name is empty, int32 (n,)."""
        codes, names = self.codes(name), self.names(name)
        return np.where(codes == names.index(""), -1, codes).astype(np.int32) if "" in names else codes

    def text(self, name: str, row: int) -> str:
        """Return a cell of a column of text."""
        return str(self._columns[name][row].as_py())

    def sha256(self) -> str:
        """Hash of the list: paths below their common folder, and labels; not of what the files hold."""
        paths = [_absolute(piece) for piece in pieces(self._columns["path"])]
        shared = _folder_of([piece[at].as_py() for piece in paths for at in (0, -1)])
        if not all(pc.all(pc.starts_with(piece, shared)).as_py() for piece in paths):
            ends = [pc.min_max(piece).as_py() for piece in paths]
            # what the first and the last in the alphabet begin with, all begin with
            shared = _folder_of([end[name] for end in ends for name in ("min", "max")])
        base = len(shared.encode())
        text, length = hashlib.sha256(), hashlib.sha256()
        for piece in paths:
            part = pc.binary_replace_slice(piece.cast(pa.large_binary()), 0, base, b"")
            offsets = np.frombuffer(part.buffers()[1], np.int64)[: len(part) + 1]
            text.update(memoryview(part.buffers()[2])[: offsets[-1]])
            length.update(np.diff(offsets).tobytes())
        return hashlib.sha256(text.digest() + length.digest() + self.label.tobytes()).hexdigest()

    def repeated(self) -> list[str]:
        """Paths that stand in more than one row."""
        counts = self.table["path"].value_counts()
        return list(counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist())


def _folder_of(paths: list[str]) -> str:
    """Return what all paths begin with, to its last slash."""
    shared = os.path.commonprefix(paths)  # noqa: RUF071  (it is cut at a slash)
    return shared[: shared.rfind("/") + 1]


def shared_paths(one: pa.ChunkedArray, other: pa.ChunkedArray) -> list[str]:
    """Return the different paths that are in both columns, sorted."""
    texts = (c.cast(pa.large_string()) for c in (one, other))
    small, large = sorted((pa.chunked_array(list(pieces(c)), c.type) for c in texts), key=len)
    if len(large) > STEP:
        large = _candidates(large, small)
        small = _candidates(small, large)
    return sorted(pc.unique(large.filter(pc.is_in(large, small))).to_pylist())


def _candidates(column: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """Leave out most of the paths that are not in the other column: no path there has the same hash of its end."""
    if any(len(part) and pc.min(pc.binary_length(part)).as_py() < 16 for part in (*column.chunks, *other.chunks)):
        return column
    there = np.zeros(1 << 26, bool)
    for part in other.chunks:
        there[_hash_of_end(part)] = True
    return pa.chunked_array([part.filter(pa.array(there[_hash_of_end(part)])) for part in column.chunks], column.type)


def _hash_of_end(paths: pa.Array) -> np.ndarray:
    """Return 26 bits for the last 16 bytes of each path, uint64 (n,)."""
    if not len(paths):
        return np.empty(0, np.uint64)
    _, offsets, text = paths.buffers()
    ends = np.frombuffer(offsets, np.int64)[paths.offset + 1 : paths.offset + len(paths) + 1]
    words = np.ndarray((text.size - 7,), "<u8", buffer=text, strides=(1,))  # the 8 bytes from any place on
    mixed = (words[ends - 8] * np.uint64(0x9E3779B97F4A7C15)) ^ words[ends - 16]
    return (mixed * np.uint64(0xD6E8FEB86659FD93)) >> np.uint64(38)


class _Digest(io.RawIOBase):
    """A file that keeps only the hash and size of what is written to it."""

    def __init__(self) -> None:
        self.sha256, self.size = hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        self.size += memoryview(content).nbytes
        return memoryview(content).nbytes


def _compact(table: pa.Table) -> pa.RecordBatch:
    """Return the columns of ``ROW_SCHEMA`` in one piece each, text that repeats as dictionaries."""
    with ThreadPoolExecutor() as pool:  # Arrow lets other threads run meanwhile
        columns = list(pool.map(_column, ROW_SCHEMA, table.select(ROW_SCHEMA.names).columns))
    return pa.RecordBatch.from_arrays(columns, ROW_SCHEMA.names)


def _column(field: pa.Field, column: pa.ChunkedArray) -> pa.Array:
    if not pa.types.is_string(field.type):
        return _one(column)
    if pa.types.is_dictionary(column.type):
        found = _one(column.unify_dictionaries())
        if len(found.dictionary) == 1 and found.type.index_type == pa.int8():  # a column the set does not know
            return found
        if field.name not in PLAIN:
            return _thinned(found)
    # Arrow's usual text ends at 2 GiB in one piece
    text = _one(column.cast(pa.string() if column.nbytes < 1 << 31 else pa.large_string()))
    return text if field.name in PLAIN else _encoded(text)


def _one(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _encoded(column: pa.Array) -> pa.DictionaryArray:
    if not len(column) or not pc.max(pc.binary_length(column)).as_py():  # a column the set does not know
        return pa.DictionaryArray.from_arrays(np.zeros(len(column), np.int8), pa.array([""]))
    found = column.dictionary_encode()
    return _small(found.indices.to_numpy(), found.dictionary)


def _thinned(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """Return a dictionary column without the names that no row has."""
    codes, names = column.indices.to_numpy(), column.dictionary
    used = np.zeros(len(names), bool)
    for at in range(0, len(codes), STEP):
        used[codes[at : at + STEP]] = True
    if not used.all():
        codes, names = (np.cumsum(used, dtype=np.int32) - 1)[codes], names.filter(pa.array(used))
    return _small(codes, names)


def _small(codes: np.ndarray, names: pa.Array) -> pa.DictionaryArray:
    kind = next(t for t in (np.int8, np.int16, np.int32) if len(names) <= np.iinfo(t).max)
    return pa.DictionaryArray.from_arrays(codes.astype(kind, copy=False), names)


def _write(batch: pa.RecordBatch, to: Any) -> None:
    with pa.ipc.new_file(to, batch.schema) as writer:
        writer.write_batch(batch)


def _keep(batch: pa.RecordBatch, file: Path, size: int) -> None:
    """Have the file there; ranks that write it at the same time write the same, and each moves it into place."""
    partial = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    try:
        _clean(file.parent)
        partial.unlink(missing_ok=True)  # of a process that had our number
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o600), "wb") as to:
            _write(batch, to)
        os.replace(partial, file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"cannot write the rows ({size / 1e9:.1f} GB) to {file.parent}: {error.strerror or error}; "
            "set TMPDIR to a local folder with room"
        ) from error


_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_USER = os.getuid() if hasattr(os, "getuid") else 0
#: The names that we give, and no others: these alone are ever removed.
_NAME = re.compile(r"[0-9a-f]{32}\.arrow(\.\d+\.tmp)?")


def _folder() -> Path:
    """Return the folder of this user's files on this machine, which others may share above it.

    Raises:
        UserError: If it cannot be made, or is a link, another's, or one that others can write to.
    """
    folder = Path(tempfile.gettempdir()) / f"dfl-rows-{_USER}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        own = stat.S_ISDIR(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == _USER)
        if own and not found.st_mode & 0o022:
            folder.chmod(0o700)
            return folder
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror or error}; set TMPDIR to a local folder") from error
    what = "can be written by others" if own else "is not a folder of yours"
    raise UserError(f"{folder} {what}: remove it, or set TMPDIR to a folder of your own")


def _ours(file: Path) -> os.stat_result | None:
    """Return what is known of a regular file, no link, that this user wrote; None for anything else."""
    with suppress(OSError):
        found = file.lstat()
        if stat.S_ISREG(found.st_mode) and (not hasattr(os, "getuid") or found.st_uid == _USER):
            return found
    return None


def _mapped(file: Path) -> pa.BufferReader:
    with os.fdopen(os.open(file, os.O_RDONLY | _NO_LINK), "rb") as opened:
        return pa.BufferReader(pa.py_buffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)))


def _clean(folder: Path) -> None:
    """Remove what no run has used for long; a run that still maps a file keeps its pages."""
    old = time.time() - 86400 * KEPT_DAYS
    for file in folder.iterdir():
        if _NAME.fullmatch(file.name) and (found := _ours(file)) and found.st_mtime < old:
            file.unlink(missing_ok=True)  # another run may have been quicker


def _absolute(paths: pa.Array) -> pa.Array:
    """Return paths as ``os.path.abspath`` gives them."""
    whole = np.asarray(pc.starts_with(paths, "/"))
    strange = odd(paths) if os.sep == "/" else np.ones(len(paths), bool)
    if not whole.all():
        paths = pc.if_else(pa.array(whole), paths, prefixed(paths, escaped(os.getcwd()).rstrip("/") + "/"))
    return replaced(paths, strange, os.path.abspath)
