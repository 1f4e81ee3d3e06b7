"""Originals with their forgeries: batches whose images differ in how they were forged, and in nothing else.

    original, its forgery by generator 1, ..., its forgery by generator k, the next original, ...

An image belongs to an original if `source`, `frame` and `compression` are the same in both. That is what
LSDA learns from (Yan et al., CVPR 2024): the same frame of the same video, real and by each method of FaceForensics++.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from dfl.data.rows import Rows
from dfl.data.sampler import Order, drawn
from dfl.errors import UserError

WORDS = "balance=generators with originals=true"


def place(rows: Rows) -> np.ndarray:
    """Return a number for each row, int64 (n,), equal where a forgery lies over its original; -1 without a source."""
    source, frame = rows.named_codes("source"), rows.number("frame").astype(np.int64)
    number = source.astype(np.int64)
    # sets without frames or compression have one value, -1 or '', in all rows
    for more in (frame, rows.named_codes("compression")):
        number = number * (int(more.max(initial=-1)) + 2) + more + 1
    return np.where(source < 0, -1, number)


@dataclass(frozen=True)
class Aligned:
    """Which originals have a forgery by each of k generators, and which forgeries these are.

    Args:
        original: Rows (m,) of those originals.
        fakes: For each generator, its rows in the order of their place.
        first: For each generator (m,), where in ``fakes`` those of an original begin.
        end: The same of where they end.
        left: Rows that are in no whole group.
    """

    original: np.ndarray
    fakes: list[np.ndarray]
    first: np.ndarray
    end: np.ndarray
    left: int

    @classmethod
    def of(cls, label: np.ndarray, generator: np.ndarray, place: np.ndarray, k: int) -> "Aligned":
        """Find them.

        Args:
            label: Integers (n,), 0 real, 1 fake.
            generator: Integers (n,), -1 where it is not known.
            place: Integers (n,), equal for an original and its forgeries, -1 where it is not known.
            k: Generators.

        Raises:
            UserError: If a column is empty, there are not k generators, or no original has a forgery by each.
        """
        if (place < 0).all():
            raise UserError(f"{WORDS} needs the column 'source' (a fake's original), and it is empty")
        fake, real = (label == 1) & (place >= 0), np.flatnonzero((label == 0) & (place >= 0))
        kinds = np.unique(generator[fake & (generator >= 0)])
        if len(kinds) != k:
            raise UserError(
                f"{WORDS}: generators_per_batch is {k}, and the fake training images with a source are of "
                f"{len(kinds)} generators (column 'generator')"
            )
        fakes = [np.flatnonzero(fake & (generator == kind)) for kind in kinds]
        fakes = [rows[np.argsort(place[rows], kind="stable")] for rows in fakes]
        first = np.stack([np.searchsorted(place[rows], place[real]) for rows in fakes])
        end = np.stack([np.searchsorted(place[rows], place[real], side="right") for rows in fakes])
        whole = (first < end).all(0)
        if not whole.any():
            raise UserError(
                f"{WORDS}: no original has a forgery by each of the {k} generators with the same source, frame "
                "and compression"
            )
        real = real[whole]
        used = len(real) + sum(int(np.isin(place[rows], place[real]).sum()) for rows in fakes)
        return cls(real, fakes, first[:, whole], end[:, whole], len(label) - used)

    def order(self, seed: int, length: int) -> Order:
        """Return the order of an epoch: originals, each followed by its forgeries, generators as they are numbered.

        Args:
            seed: Seed of the order.
            length: Rows of an epoch, a multiple of k + 1. Within it an original comes again only when all were there;
                of several forgeries by one generator one is drawn.
        """
        if self.left:
            warnings.warn(
                f"{WORDS} leaves out {self.left} images: of their originals and forgeries by each generator, some are "
                "not there",
                stacklevel=2,
            )

        def order(epoch: int) -> np.ndarray:
            rng = np.random.default_rng([seed, epoch])
            chosen = drawn(rng, np.arange(len(self.original)), length // (len(self.fakes) + 1))
            columns = [self.original[chosen]]
            for rows, first, end in zip(self.fakes, self.first, self.end, strict=True):
                columns.append(rows[rng.integers(first[chosen], end[chosen])])
            return np.stack(columns, axis=1).reshape(-1)

        return order
