"""Unreadable images, counted by domain, up to a cap, over all ranks.

Each rank meets other bad images. If each judged by its own, one would stop and leave the others waiting for it. So the
ranks merge their lists, and all stop at the same batch, or none.
"""

from typing import TYPE_CHECKING

import pytorch_lightning as pl
import torch

from dfl.distributed import largest, may_ask
from dfl.errors import UserError

if TYPE_CHECKING:
    from dfl.data.dataset import ImageDataset


class Unread:
    """The unreadable images of a data module.

    Args:
        max_bad: Largest share of unreadable images in a domain; more end the run.
    """

    def __init__(self, max_bad: float) -> None:
        self.max_bad = max_bad
        self._batches = self._shared = 0

    def record(
        self, trainer: pl.Trainer, split: str, sets: "dict[str, ImageDataset]", domain: str, bad: list[tuple[str, str]]
    ) -> None:
        """Add the bad images of a batch; every rank calls this for every batch.

        Raises:
            UserError: On every rank, if too many of a domain's images cannot be read.
        """
        sets[domain].bad.update(bad)
        self._batches += 1
        if may_ask(trainer, self._batches) and (bad or trainer.world_size > 1):
            self.check(trainer, split, sets)

    def check(self, trainer: pl.Trainer, split: str, sets: "dict[str, ImageDataset]") -> None:
        """Merge the lists of all ranks and compare them with the cap; every rank calls this, also at the end.

        Raises:
            UserError: On every rank, if too many of a domain's images cannot be read.
        """
        if trainer.world_size > 1:
            self._share(trainer, sets)
        for name, data in sets.items():
            if len(data.bad) > max(1, int(self.max_bad * len(data))):
                path, reason = list(data.bad.items())[-1]
                raise UserError(
                    f"{len(data.bad)} of {len(data)} images of {split}/{name} cannot be read, more than "
                    f"max_bad={self.max_bad:g} allows; the last one is {path}: {reason}"
                )

    def _share(self, trainer: pl.Trainer, sets: "dict[str, ImageDataset]") -> None:
        """Give every rank the bad images of all, if any has new ones."""
        mine = sum(len(data.bad) for data in sets.values())
        if largest(trainer, int(mine != self._shared)):
            lists: list[dict[str, dict[str, str]]] = [{}] * trainer.world_size
            torch.distributed.all_gather_object(lists, {name: data.bad for name, data in sets.items()})
            for name, data in sets.items():
                data.bad.update({path: reason for one in lists for path, reason in one[name].items()})
            self._shared = sum(len(data.bad) for data in sets.values())
