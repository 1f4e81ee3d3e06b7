"""Which images are copies of each other: the same file, or nearly the same picture.

Near ones are found by 64-bit perceptual hashes that differ in few bits. Comparing all pairs is out of the question for
a million images; but if at most d bits differ, at least two of d + 2 bands of bits are equal, so only images that
agree in two bands are compared (the pigeonhole principle), and no pair is missed.
"""

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

BITS = 64
#: Near pairs that are listed at most; sets with more, such as the frames of long videos, are counted up to there.
MOST_PAIRS = 20_000_000


@dataclass(frozen=True)
class Copies:
    """Copies among n images that lie in K places, each a set and a split.

    Attributes:
        among: int64 (K, K): images of place a that have a copy in place b; on the diagonal, one beside themselves.
        cluster: int64 (n,): a number that images share which are linked by copies; -1 for an image without one.
        pairs: int64 (m, 2): rows of copies, one pair for each pair of contents, those of two places first.
        truncated: Whether there were more near pairs than ``MOST_PAIRS``.
    """

    among: np.ndarray
    cluster: np.ndarray
    pairs: np.ndarray
    truncated: bool = False


def find_copies(hashes: pa.ChunkedArray, place: np.ndarray, places: int, distance: int = 0) -> Copies:
    """Find rows of equal hashes, or of near ones.

    Args:
        hashes: n strings; '' is no content. Hexadecimal, of 64 bits, if a distance is given.
        place: int64 (n,), the number of each row's place.
        places: K.
        distance: Bits by which near hashes differ at most, 0 to 16.
    """
    encoded = hashes.combine_chunks().dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), object)
    content = np.where(names != "", np.cumsum(names != "") - 1, -1)[encoded.indices.to_numpy()].astype(np.int64)
    n = int((names != "").sum())
    pairs, truncated = np.zeros((0, 2), np.int64), False
    if distance:
        pairs, truncated = near_pairs(np.array([int(name, 16) for name in names if name], np.uint64), distance)

    rows = np.flatnonzero(content >= 0)
    ones = np.ones(len(rows), np.int64)
    count = coo_matrix((ones, (content[rows], place[rows])), shape=(n, places)).tocsr()  # images by content and place
    linked = coo_matrix((np.ones(len(pairs), np.int64), tuple(pairs.T)), shape=(n, n)).tocsr()
    linked = linked + linked.T
    beside = linked @ count
    among = (count.T @ ((count + beside) > 0).astype(np.int64)).toarray()
    np.fill_diagonal(among, count.multiply(((count > 1) + (beside > 0)) > 0).sum(axis=0).A1 if n else 0)

    _, component = connected_components(linked, directed=False)
    cluster = np.full(len(content), -1, np.int64)
    cluster[rows] = component[content[rows]]
    sizes = np.bincount(cluster[rows], minlength=n)
    cluster[rows] = np.where(sizes[cluster[rows]] > 1, cluster[rows], -1)

    order = rows[np.argsort(content[rows], kind="stable")]  # pairs of one content are neighbours here
    same = np.flatnonzero(content[order][1:] == content[order][:-1])
    first = order[np.searchsorted(content[order], np.arange(n))]
    examples = np.concatenate([np.stack([order[same], order[same + 1]], 1), first[pairs]])
    examples = examples[np.argsort(place[examples[:, 0]] == place[examples[:, 1]], kind="stable")]
    return Copies(among, cluster, examples, truncated)


def near_pairs(hashes: np.ndarray, distance: int) -> tuple[np.ndarray, bool]:
    """Return all pairs of hashes that differ in at most so many bits.

    Args:
        hashes: uint64 (n,), all different.
        distance: At most so many bits, 0 to 16.

    Returns:
        int64 (m, 2), each pair once, the smaller index first; and whether there are more than ``MOST_PAIRS``.
    """
    n = len(hashes)
    edges = np.linspace(0, BITS, distance + 3).astype(np.uint64)
    bands = [(hashes >> a) & np.uint64((1 << int(b - a)) - 1) for a, b in pairwise(edges)]
    pairs = np.zeros(0, np.int64)  # each as one number
    for one, two in combinations(bands, 2):
        key = (one << np.uint64(32)) | two
        order = np.argsort(key, kind="stable")
        key, ordered = key[order], hashes[order]
        at = np.arange(max(0, n - 1))
        for step in range(1, n):  # compare each with the step-th after it, as long as they agree in the key
            at = at[: np.searchsorted(at, n - step)]
            at = at[key[at] == key[at + step]]
            if not len(at):
                break
            close = np.bitwise_count(ordered[at] ^ ordered[at + step]) <= distance
            a, b = order[at[close]], order[at[close] + step]
            pairs = np.union1d(pairs, np.minimum(a, b) * n + np.maximum(a, b))
            if len(pairs) > MOST_PAIRS:
                return np.stack(np.divmod(pairs[:MOST_PAIRS], n), 1), True
    return np.stack(np.divmod(pairs, max(1, n)), 1), False
