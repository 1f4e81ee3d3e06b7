"""Files that hold many images: Parquet, Arrow, LMDB, videos; opened late, once per process, and left open.

A handle that was opened before a fork must not be used after it (LMDB crashes), so all are closed before a process
forks loader workers; each opens its own. Few stay open: a thousand shards would use up the file descriptors.
"""

import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lightning_utilities.core.imports import RequirementCache

from dfl.data.decoding import DecodeError, check_regular
from dfl.errors import UserError

MAX_OPEN = 16  # open files of one process
MAX_MAPPED = 200  # Arrow files of one process: they cost little to keep, and half a millisecond to open
BATCH = 16  # rows of a Parquet row group that are in memory at once
_HAS_LMDB = RequirementCache("lmdb>=1.4")
_HAS_AV = RequirementCache("av>=14")


class AbsentCell(DecodeError):
    """A cell of a table that holds nothing."""


def need_video() -> None:
    """Raise a UserError if the package for videos is not installed."""
    if not _HAS_AV:
        raise UserError("frames of videos need the package av (PyAV): pip install 'dfl[video]'")


def table_cell(file: str, column: str, row: int) -> bytes:
    """Return the bytes in one cell of a column of bytes, or of structs with a field ``bytes``.

    An Arrow IPC file (``.arrow``, as ``dfl data pack`` writes it) is memory-mapped: any row costs its own bytes and no
    others, in whatever order rows are asked for. In a Parquet file, rows that are read in their order cost one pass; a
    row read out of order decompresses its row group from the start, with only a few rows in memory.

    Raises:
        AbsentCell: If the cell is null.
        DecodeError: If the file, the column or the row is not there.
    """
    try:
        return _mapped(file).cell(column, row) if file.endswith(".arrow") else _cursor(file, column)[row]
    except (OSError, pa.ArrowException, KeyError, IndexError, StopIteration) as e:
        reason = (str(e).strip("'\"") or "the file holds less than it says").splitlines()[0]
        raise DecodeError(f"{file}#column={column}&row={row}", reason) from e


def lmdb_entry(file: str, key: str) -> bytes:
    """Return the value of a key.

    Raises:
        DecodeError: If the LMDB or the key is not there.
    """
    with lmdb_entries(file) as entries:
        import lmdb  # `lmdb_entries` has checked that it is there

        try:
            value = entries.get(key.encode())
        except lmdb.Error as e:  # too long a key, a damaged page
            raise DecodeError(f"{file}#key={key}", str(e)) from e
        if value is None:
            raise DecodeError(f"{file}#key={key}", "no such key")
        return bytes(value)


def lmdb_entries(file: str) -> Any:
    """Return a read transaction of an LMDB, whose values are views of the file.

    Raises:
        DecodeError: If it is not there or is none.
        UserError: If the package is not installed.
    """
    return _open_lmdb(os.path.realpath(file)).begin(buffers=True)


@lru_cache(MAX_OPEN)
def _open_lmdb(file: str) -> Any:
    if not _HAS_LMDB:
        raise UserError("this set is an LMDB, which needs the package lmdb: pip install 'dfl[data]'")
    import lmdb

    try:
        check_regular(os.path.join(file, "data.mdb") if os.path.isdir(file) else file)
        return lmdb.open(file, readonly=True, lock=False, readahead=False, subdir=os.path.isdir(file))
    except (lmdb.Error, DecodeError) as e:
        raise DecodeError(file, f"cannot be opened as LMDB ({getattr(e, 'reason', e)})") from e


def video_frame(file: str, which: Callable[[int], int]) -> bytes:
    """Return one frame of a video as a PPM file, not turned by rotation tags.

    Args:
        file: The video.
        which: Number of the frame in the order of display, from the number of frames.

    Raises:
        DecodeError: If the video is not there, is none, or has no such frame.
        UserError: If the package is not installed.
    """
    need_video()
    import av

    try:
        times = _frame_times(file)
        index = which(len(times))
        if not 0 <= index < len(times):
            raise DecodeError(file, f"the video has {len(times)} frames, and none with number {index}")
        pixels = _decode_at(file, int(times[index]))
    except av.FFmpegError as e:
        raise DecodeError(file, f"damaged or no video ({e})") from e
    return f"P6 {pixels.shape[1]} {pixels.shape[0]} 255\n".encode() + pixels.tobytes()


def frame_count(file: str) -> int:
    """Return the number of frames of a video, which its packets tell; nothing is decoded.

    Raises:
        DecodeError: If the video is not there or is none.
        UserError: If the package is not installed.
    """
    need_video()
    import av

    try:
        return len(_frame_times(file))
    except (av.FFmpegError, OSError) as e:
        raise DecodeError(file, f"damaged or no video ({e})") from e


@lru_cache(maxsize=2048)
def _frame_times(file: str) -> np.ndarray:
    """Time stamps of all frames in the order of display, from the packets alone; nothing is decoded."""
    import av

    check_regular(file)  # not a pipe, and not a URL, which FFmpeg would open
    with av.open(file) as video:
        if not video.streams.video:
            raise DecodeError(file, "there is no picture in it")
        packets = list(video.demux(video.streams.video[0]))
    return np.sort([p.pts if p.pts is not None else p.dts for p in packets if p.size and p.dts is not None])


def _decode_at(file: str, time: int) -> np.ndarray:
    """Decode from the key frame before a time stamp up to it; from the start if the file's index is wrong."""
    import av

    for seek in (True, False):
        with av.open(file) as video:
            stream = video.streams.video[0]
            if seek:
                video.seek(time, stream=stream, backward=True)
            for frame in video.decode(stream):
                if frame.pts is not None and frame.pts > time:
                    break
                if frame.pts == time:
                    return np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
    raise DecodeError(file, f"the frame at time stamp {time} cannot be decoded")


class _Cursor:
    """Rows of one column of a Parquet file, a few at a time."""

    def __init__(self, file: str, column: str) -> None:
        check_regular(file)
        self.file = pq.ParquetFile(file, memory_map=True)
        if column not in self.file.schema_arrow.names:
            raise KeyError(f"no column {column!r}; there are {', '.join(self.file.schema_arrow.names)}")
        self.column = column
        groups = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.starts = np.cumsum([0, *groups])
        self.rows: Iterator[pa.RecordBatch] = iter(())
        self.batch: pa.Array = pa.array([])
        self.group, self.first = -1, 0

    def __getitem__(self, row: int) -> bytes:
        if row >= self.starts[-1]:
            raise IndexError(f"the file has {self.starts[-1]} rows")
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        if group != self.group or row < self.first:
            self.rows = self.file.iter_batches(BATCH, [group], [self.column], use_threads=False)
            self.group, self.first, self.batch = group, int(self.starts[group]), pa.array([])
        while row >= self.first + len(self.batch):
            self.first += len(self.batch)
            self.batch = next(self.rows).column(0)
        return _content(self.batch[row - self.first], self.column, row)


class _Mapped:
    """An Arrow IPC file; all its batches but the last hold equally many rows, so that none is searched for."""

    def __init__(self, file: str) -> None:
        check_regular(file)
        self.file = pa.ipc.open_file(pa.memory_map(file))
        self.names = self.file.schema.names
        self.rows = self.file.get_batch(0).num_rows if self.file.num_record_batches else 0
        #: Columns of batches, views of the file; a whole batch would hold an object for each of its columns.
        self.columns: dict[tuple[str, int], pa.Array] = {}

    def cell(self, column: str, row: int) -> bytes:
        i = row // max(self.rows, 1)
        if (column, i) not in self.columns:
            if column not in self.names:
                raise KeyError(f"no column {column!r}; there are {', '.join(self.names)}")
            if i >= self.file.num_record_batches:
                raise IndexError(f"the file has no row {row}")
            cells = self.file.get_batch(i).column(column)
            cells.validate(full=True)  # offsets out of the file would end the process at the first cell
            self.columns[column, i] = cells
        cells = self.columns[column, i]
        if row - i * self.rows >= len(cells):
            raise IndexError(f"the file has no row {row}")
        return _content(cells[row - i * self.rows], column, row)


def _content(cell: pa.Scalar, column: str, row: int) -> bytes:
    """Return the bytes in a cell, or in the field ``bytes`` of a struct."""
    where, kind = f"row {row} of column {column!r}", cell.type
    if pa.types.is_struct(kind) and cell.is_valid and "bytes" in [field.name for field in kind]:
        cell = cell["bytes"]
    if not cell.is_valid:
        raise AbsentCell(where, "the cell is empty")
    value = cell.as_py()
    if not isinstance(value, bytes):  # bytes(7) would be seven zeros
        raise DecodeError(where, f"the cell holds {kind}, not the bytes of a file")
    return value


_cursor, _mapped = lru_cache(MAX_OPEN)(_Cursor), lru_cache(MAX_MAPPED)(_Mapped)
for _opened in (_cursor, _mapped, _open_lmdb):
    os.register_at_fork(before=_opened.cache_clear)
