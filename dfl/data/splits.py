"""Splits for sets that come without one: whole identities and videos stay on one side."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from dfl.errors import UserError


def components(columns: list[list[str]]) -> np.ndarray:
    """Number the rows so that rows which share a non-empty name in any column share a number.

    Args:
        columns: Names by column, each as long as the table. ``''`` ties a row to nothing.

    Returns:
        int64 (n,), the smallest row of each component.
    """
    n = len(columns[0]) if columns else 0
    parent = np.arange(n)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for names in columns:
        first: dict[str, int] = {}
        for i, name in enumerate(names):
            if name:
                a, b = root(first.setdefault(name, i)), root(i)
                parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(n)], dtype=np.int64)


def assign(
    table: pa.Table, fractions: Mapping[str, float], seed: int = 0, by: tuple[str, ...] = ("identity", "video")
) -> list[str]:
    """Give every row a split by fraction, class by class, with no identity or video in two splits.

    Components of rows (see :func:`components`) are shuffled within the class that most of their rows have and
    dealt out in order until a split has its share, so fractions are met up to the size of one component.

    Args:
        table: Rows of a source.
        fractions: Share by split, for example ``{"train": 0.7, "val": 0.1, "test": 0.2}``; they add up to 1.
        seed: Seed of the shuffle.
        by: Columns that must not be torn apart.

    Raises:
        UserError: If the fractions are negative or do not add up to 1.
    """
    if min(fractions.values()) < 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise UserError(f"fractions of a split must be positive and add up to 1, not {dict(fractions)}")
    label = table.column("label").to_numpy()
    group = components([table.column(name).to_pylist() for name in by]) if by else np.arange(len(table))
    roots, inverse, size = np.unique(group, return_inverse=True, return_counts=True)
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
    return names[chosen[inverse]].tolist()
