"""What is drawn together: the names of units, of millions of images too, sorted and numbered."""

import hashlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Sorted names that are in memory at once.
SORTED = 1 << 20


def unit_names(video: Any, source: Any, path: Any) -> pa.Array:
    """Return the unit of each image, large_string (n,): its video, else its source image, else the image itself.

    Args:
        video: (n,) strings, '' or null for none; NumPy, Arrow or a list, as the others.
        source: (n,), the image that a fake was made from; where that image is itself among the reals, under the same
            name, both are drawn together.
        path: (n,).
    """
    names = _strings(path)
    for column in (source, video):
        other = _strings(column)
        names = pc.if_else(pc.equal(other, ""), names, other)
    return names


def joined(parts: list[pa.Array]) -> pa.Array:
    """Return large_string arrays in one piece; the list is emptied, so that memory is for all of them once."""
    ends = [np.frombuffer(part.buffers()[1], np.int64)[part.offset : part.offset + len(part) + 1] for part in parts]
    lengths = [np.diff(end) for end in ends]
    offsets = np.concatenate([[0], *lengths]).cumsum()
    text, start = np.empty(offsets[-1], np.uint8), 0
    del lengths
    while parts:
        part, end = parts.pop(0), ends.pop(0)
        if size := int(end[-1] - end[0]):
            text[start : start + size] = np.frombuffer(part.buffers()[2], np.uint8)[end[0] : end[-1]]
            start += size
        del part, end
        pa.default_memory_pool().release_unused()
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(text))


def _strings(column: Any) -> pa.Array:
    column = column if isinstance(column, pa.Array | pa.ChunkedArray) else pa.array(column)
    column = pc.fill_null(column.cast(pa.large_string()), "")
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


class Units(NamedTuple):
    """What is drawn together.

    Attributes:
        place: Of each image's unit among the sorted units, int32 (n,).
        keys: Hash of the names of the units by class that is there, uint32 (8,).
    """

    place: np.ndarray
    keys: dict[int, np.ndarray]


def sorted_units(names: Any, label: np.ndarray) -> Units:
    """Return the units of images.

    Args:
        names: (n,), see `unit_names`.
        label: (n,) 0 real, 1 fake.
    """
    names = _strings(names)
    order, new = sorted_names(names)
    place, keys = np.empty(len(names), np.int32), {}
    place[order] = np.cumsum(new, dtype=np.int32) - 1
    for y in (0, 1):
        own = order[label[order] == y]
        if not len(own):
            continue
        own = own[np.diff(place[own], prepend=-1) > 0]
        lengths, texts = hashlib.sha256(), hashlib.sha256()
        for start in range(0, len(own), SORTED):
            unit = names.take(pa.array(own[start : start + SORTED]))
            ends = np.frombuffer(unit.buffers()[1], np.int64, len(unit) + 1)
            lengths.update(np.diff(ends).tobytes())
            texts.update((unit.buffers()[2] or b"")[: ends[-1]])
        keys[y] = np.frombuffer(hashlib.sha256(lengths.digest() + texts.digest()).digest(), "<u4")
    return Units(place, keys)


def sorted_names(names: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the order that sorts names, uint64 (n,), and whether each in it is another than the one before, bool (n,).

    A sorted copy of millions of names, or a table of them, would be large; there is one of ``SORTED`` names.
    """
    order, new = pc.sort_indices(names).to_numpy(), np.ones(len(names), bool)
    for start in range(0, len(order), SORTED):
        part = names.take(pa.array(order[max(0, start - 1) : start + SORTED]))  # with the last of those before
        new[max(1, start) : start + SORTED] = pc.not_equal(part[1:], part[:-1]).to_numpy(zero_copy_only=False)
    return order, new
