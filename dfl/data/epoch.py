"""How long an epoch is and in which order its rows come: from the arguments of `DataModule` to a `sampler` order."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dfl.data.aligned import Aligned, place
from dfl.data.dataset import ImageDataset
from dfl.data.sampler import Order, balanced, by_generators, grouped, own_pairs, paired_fakes, pairs, shuffled
from dfl.errors import UserError

Balance = Literal["none", "sampling", "weights", "pairs", "groups", "generators"]


@dataclass(frozen=True)
class Epoch:
    """The arguments of `DataModule` that say what is drawn; see there.

    Raises:
        UserError: If they contradict each other.
    """

    balance: Balance
    batch_size: int
    batches: int | None
    originals: bool
    generators_per_batch: int
    seed: int

    def __post_init__(self) -> None:
        if self.originals and self.balance not in ("pairs", "generators"):
            raise UserError(f"originals=true is for balance=pairs or generators, not {self.balance}")
        if self.is_aligned and (self.batch_size % (self.generators_per_batch + 1) or self.generators_per_batch < 1):
            raise UserError(
                f"batch_size={self.batch_size} is to hold originals, each with its forgeries by "
                f"generators_per_batch={self.generators_per_batch} generators: take a multiple of "
                f"{self.generators_per_batch + 1}"
            )
        if self.balance == "pairs" and self.batch_size % 2:
            raise UserError(f"balance=pairs needs an even batch_size, not {self.batch_size}")
        if self.batches is not None and self.batches < 1:
            raise UserError(f"epoch_batches={self.batches}: an epoch has one batch at least; null shows every image")

    @property
    def is_aligned(self) -> bool:
        """Whether batches are made of originals with their forgeries."""
        return self.originals and self.balance == "generators"

    def rows(self, data: ImageDataset, world: int) -> int:
        """Return the rows of an epoch over all devices."""
        batch = self.batch_size * world
        if self.batches is not None:
            return self.batches * batch
        if self.balance in ("none", "weights", "sampling"):
            return len(data)
        # rows may come again, so even a small set fills a batch
        if self.is_aligned:
            images = len(self._aligned(data).original) * (self.generators_per_batch + 1)
            return -(-images // batch) * batch
        if self.balance != "pairs":
            return max(1, len(data) // batch) * batch
        fakes = len(paired_fakes(data.label, data.rows.named_codes("source") if self.originals else None))
        return max(1, -(-2 * fakes // batch)) * batch

    def order(self, data: ImageDataset, world: int) -> Order:
        """Return the order of its rows, in global batches."""
        length = self.rows(data, world)
        if self.balance == "sampling":
            return balanced(data.label, self.seed, length)
        if self.balance in ("none", "weights"):
            return shuffled(len(data), self.seed, length)
        if self.balance == "groups":
            return grouped(data.label, data.rows.named_codes("group"), data.rows.names("group"), self.seed, length)
        if self.is_aligned:
            return self._aligned(data).order(self.seed, length)
        if self.balance == "generators":
            k, generator = self.generators_per_batch, data.rows.named_codes("generator")
            return by_generators(data.label, generator, k, self.seed, length, self.batch_size * world)
        if self.originals:
            return own_pairs(data.label, data.rows.named_codes("source"), data.rows.number("frame"), self.seed, length)
        return pairs(data.label, self.seed, length)

    def _aligned(self, data: ImageDataset) -> Aligned:
        generator = data.rows.named_codes("generator")
        # numbered by name, as the vocabulary of a training set is
        rank = np.argsort(np.argsort(data.rows.names("generator")))
        generator = np.where(generator < 0, -1, rank[generator])
        return Aligned.of(data.label, generator, place(data.rows), self.generators_per_batch)

    def class_weight(self, label: np.ndarray) -> tuple[float, float]:
        """Return the weights of real and fake images (n,) in the loss."""
        if self.balance != "weights":
            return (1.0, 1.0)
        count = np.bincount(label, minlength=2)
        return (len(label) / (2 * max(count[0], 1)), len(label) / (2 * max(count[1], 1)))
