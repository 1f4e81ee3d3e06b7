"""Splits for sets that come without one: whole identities and videos stay on one side."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dfl.errors import UserError


def components(columns: Sequence[list[str] | pa.Array | pa.ChunkedArray]) -> np.ndarray:
    """Number the rows so that rows which share a non-empty name in any column share a number.

    Args:
        columns: Names by column, each as long as the table. ``''`` ties a row to nothing.

    Returns:
        int64 (n,), the smallest row of each component.
    """
    n = len(columns[0]) if columns else 0
    node = np.full(n, -1, np.int32)  # one name of each row; the other names of the row are tied to it
    ties, count = [], 0
    for names in columns:
        code, size = _codes(names)
        code[code >= 0] += count
        both = (node >= 0) & (code >= 0)
        ties.append(np.stack([node[both], code[both]]))
        node = np.where(node >= 0, node, code)
        count += size
    group = np.arange(n)
    if not count:
        return group
    a, b = np.concatenate(ties, axis=1)
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    tied = np.flatnonzero(node >= 0)
    first = np.empty(count, np.int64)
    first[component[node[tied]][::-1]] = tied[::-1]  # the last that is written stays: the smallest row
    group[tied] = first[component[node[tied]]]
    return group


def _codes(names: list[str] | pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, int]:
    """Return int32 (n,) with a number for each name, -1 for '', and how many numbers there are."""
    column = pa.chunked_array([names]) if not isinstance(names, pa.ChunkedArray) else names
    encoded = column.cast(pa.string()).dictionary_encode().combine_chunks()
    code = encoded.indices.to_numpy().astype(np.int32)
    empty = pc.index(encoded.dictionary, "").as_py()
    code[code == empty] = -1
    return code, len(encoded.dictionary)


def split_column(
    table: pa.Table, fractions: Mapping[str, float], seed: int = 0, by: tuple[str, ...] = ("identity", "video")
) -> pa.Array:
    """Give every row a split by fraction, class by class, with no identity or video in two splits.

    Components of rows (see :func:`components`) are shuffled within the class that most of their rows have and
    dealt out in order until a split has its share, so fractions are met up to the size of one component. A split that
    would go without a class gets a component of it, the smallest of the split that has most, where that has two.

    Args:
        table: Rows of a source.
        fractions: Share by split, for example ``{"train": 0.7, "val": 0.1, "test": 0.2}``; they add up to 1.
        seed: Seed of the shuffle.
        by: Columns that must not be torn apart.

    Returns:
        Names of splits (n,).

    Raises:
        UserError: If the fractions are negative or do not add up to 1.
    """
    if min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise UserError(f"fractions of a split must be positive and add up to 1, not {dict(fractions)}")
    label = table.column("label").to_numpy()
    group = components([table.column(name) for name in by]) if by else np.arange(len(table))
    first = group == np.arange(len(group))
    inverse = (np.cumsum(first) - 1)[group]
    roots, size = np.flatnonzero(first), np.bincount(inverse)
    mostly = (np.bincount(inverse, weights=label, minlength=len(roots)) / size >= 0.5).astype(int)
    names = np.array(list(fractions))
    edges = np.cumsum([fractions[name] for name in names])
    chosen = np.empty(len(roots), dtype=int)
    rng = np.random.default_rng(seed)
    for c in (0, 1):
        members = rng.permutation(np.flatnonzero(mostly == c))
        middle = np.cumsum(size[members]) - size[members] / 2
        share = middle / max(size[members].sum(), 1)
        chosen[members] = np.minimum(np.searchsorted(edges, share, side="right"), len(names) - 1)
    for c, side in ((c, i) for c in (0, 1) for i, name in enumerate(names) if fractions[name] > 0):
        if (label[chosen[inverse] == side] == c).any():
            continue
        members = np.flatnonzero(mostly == c)
        count, rows = (np.bincount(chosen[members], weights=w, minlength=len(names)) for w in (None, size[members]))
        giver = int(np.where(count > 1, rows, 0).argmax())
        if count[giver] > 1:
            theirs = members[chosen[members] == giver]
            chosen[theirs[size[theirs].argmin()]] = side
    return pa.DictionaryArray.from_arrays(chosen[inverse], pa.array(names)).cast(pa.string())
