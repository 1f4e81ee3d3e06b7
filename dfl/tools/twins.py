"""Which images are copies of each other: the same file, or nearly the same picture.

Near ones are found by 64-bit perceptual hashes that differ in few bits. Comparing all pairs is out of the question for
a million images; but if at most d bits differ, at least two of d + 2 bands of bits are untouched, so only images that
agree in two bands are compared (the pigeonhole principle), and no pair is missed.
"""

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

BITS = 64
#: Near pairs that are kept at most; sets with more, such as the frames of long videos, are counted up to there.
MOST_PAIRS = 20_000_000


@dataclass
class Twins:
    """Copies among n images that lie in K places, each a set and a split.

    Attributes:
        among: int64 (K, K): images of place a that have a twin in place b; on the diagonal, one beside themselves.
        cluster: int64 (n,): a number that images share which are linked by twins; -1 for an image without one.
        pairs: int64 (m, 2): rows of twins, one pair for each pair of contents, those of two places first.
        cut: Whether there were more pairs than are kept.
    """

    among: np.ndarray
    cluster: np.ndarray
    pairs: np.ndarray
    cut: bool = False


def exact(sha256: pa.ChunkedArray, place: np.ndarray, places: int) -> Twins:
    """Find the same file in more than one row. ``''`` is no file."""
    code = _codes(sha256)
    return _twins(code, place, places, np.zeros((0, 2), np.int64))


def near(phash: pa.ChunkedArray, place: np.ndarray, places: int, distance: int = 4) -> Twins:
    """Find pictures whose perceptual hashes (hexadecimal; ``''`` for none) differ in at most ``distance`` bits."""
    code = _codes(phash)
    names = phash.combine_chunks().dictionary_encode().dictionary.to_pylist()
    kept = [name for name in names if name]
    pairs, cut = near_pairs(np.array([int(name, 16) for name in kept], np.uint64), distance)
    found = _twins(code, place, places, pairs)
    found.cut = cut
    return found


def near_pairs(hashes: np.ndarray, distance: int) -> tuple[np.ndarray, bool]:
    """Return all pairs of hashes that differ in at most so many bits.

    Args:
        hashes: uint64 (n,), all different.
        distance: At most so many bits, 0 to 16.

    Returns:
        int64 (m, 2), each pair once, the smaller index first; and whether there are more than ``MOST_PAIRS``.
    """
    if distance == 0 or len(hashes) < 2:
        return np.zeros((0, 2), np.int64), False
    edges = np.linspace(0, BITS, distance + 3).astype(np.uint64)
    bands = [(hashes >> a) & np.uint64((1 << int(b - a)) - 1) for a, b in pairwise(edges)]
    found = np.zeros(0, np.int64)
    n = len(hashes)
    for one, two in combinations(range(len(bands)), 2):
        key = (bands[one] << np.uint64(32)) | bands[two]
        order = np.argsort(key, kind="stable")
        key, sorted_hashes = key[order], hashes[order]
        at = np.arange(n - 1)
        for step in range(1, n):  # compare each with the step-th after it, as long as they agree in the key
            at = at[: np.searchsorted(at, n - step)]
            at = at[key[at] == key[at + step]]
            if not len(at):
                break
            close = np.bitwise_count(sorted_hashes[at] ^ sorted_hashes[at + step]) <= distance
            a, b = order[at[close]], order[at[close] + step]
            found = np.union1d(found, np.minimum(a, b) * n + np.maximum(a, b))
            if len(found) > MOST_PAIRS:
                return np.stack(np.divmod(found[:MOST_PAIRS], n), 1), True
    return np.stack(np.divmod(found, n), 1), False


def _codes(column: pa.ChunkedArray) -> np.ndarray:
    """Number the different values from 0, in the order in which they come; -1 for ``''``."""
    encoded = column.combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    number = np.cumsum([name != "" for name in names]) - 1 if names else np.zeros(0, np.int64)
    number = np.where([name != "" for name in names], number, -1)
    return number[encoded.indices.to_numpy()].astype(np.int64)


def _twins(code: np.ndarray, place: np.ndarray, places: int, pairs: np.ndarray) -> Twins:
    """Spread what is known of contents (codes, and pairs of them) to the rows that hold them."""
    rows = np.flatnonzero(code >= 0)
    contents = int(code.max(initial=-1)) + 1
    held = coo_matrix((np.ones(len(rows), np.int64), (code[rows], place[rows])), shape=(contents, places)).tocsr()
    one = np.ones(len(pairs), np.int64)
    linked = csr_matrix((one, (pairs[:, 0], pairs[:, 1])), shape=(contents, contents))
    linked = linked + linked.T
    beside = linked @ held
    among = (held.T @ ((held + beside) > 0).astype(np.int64)).toarray()
    np.fill_diagonal(among, held.multiply(((held > 1) + (beside > 0)) > 0).sum(axis=0).A1 if contents else 0)
    _, component = connected_components(linked, directed=False)
    cluster = np.full(len(code), -1, np.int64)
    cluster[rows] = component[code[rows]]
    sizes = np.bincount(cluster[rows], minlength=contents)
    cluster[rows] = np.where(sizes[cluster[rows]] > 1, cluster[rows], -1)
    return Twins(among, cluster, _examples(code, place, rows, pairs))


def _examples(code: np.ndarray, place: np.ndarray, rows: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return pairs of rows: of one content by neighbours in its rows, of two by the first row of each."""
    order = rows[np.argsort(code[rows], kind="stable")]
    same = np.flatnonzero(code[order][1:] == code[order][:-1])
    inner = np.stack([order[same], order[same + 1]], 1)
    first = order[np.searchsorted(code[order], np.arange(int(code.max(initial=-1)) + 1))]
    both = np.concatenate([inner, first[pairs]])
    return both[np.argsort(place[both[:, 0]] == place[both[:, 1]], kind="stable")]
