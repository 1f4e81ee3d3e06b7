"""Rows of numbers, one for each image, over all ranks, every image once."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat
from torchmetrics.utilities.distributed import gather_all_tensors


def gather(rows: Tensor, group: Any = None) -> list[Tensor]:
    """Gather as float64, which holds float32 and integers below 2**53 exactly.

    torchmetrics sends a float32 tensor for a rank that saw no row, and ranks that disagree on the dtype of an
    all_gather crash or hang.
    """
    return gather_all_tensors(rows.double(), group)


class Gathered(Metric):
    """A metric that stores numbers of every image and computes at the end of the epoch.

    Rows are sorted by their index in the data set and an index that came twice counts once, so 1 and 2 ranks, padded
    samplers and any batch order give the same result to the last bit. States that a metric adds, to be summed over
    ranks, are gathered with the rows.

    Args:
        columns: What the numbers of an image are called.
        name: The domain, for warnings.
        kwargs: Of `torchmetrics.Metric`.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    values: list[Tensor]

    def __init__(self, columns: Sequence[str], name: str = "", **kwargs: Any) -> None:
        super().__init__(dist_sync_fn=gather, **kwargs)
        self.columns, self.name = tuple(columns), name
        self.add_state("values", default=[], dist_reduce_fx="cat")
        #: The other states of all ranks, on the CPU, as `gathered` left them.
        self.sums: dict[str, Tensor] = {}
        self._cached: tuple[int, Tensor, Tensor] | None = None

    def take(self, output: Any, batch: Mapping[str, Any]) -> None:
        """Add a batch: an output of a detector, and the batch that it is of."""
        raise NotImplementedError

    def add_rows(self, index: Tensor, *columns: Tensor) -> None:
        """Add rows; nothing here waits for the device.

        Args:
            index: (N,) row in the data set; rows with an index < 0 are left out of every result.
            columns: (N,) or (N, C) each, together one for each name; stored as float64, which holds float32 and
                integers below 2**53 exactly.
        """
        device = columns[0].device
        if device.type == "mps":  # no float64 there
            device = torch.device("cpu")
        parts = [part.detach().to(device).double() for part in (index, *columns)]
        rows = torch.cat([part[:, None] if part.ndim == 1 else part for part in parts], 1)
        if rows.shape[1] != 1 + len(self.columns):
            raise ValueError(f"numbers of {', '.join(self.columns)} wanted, got {rows.shape[1] - 1} columns")
        self.values.append(rows.flatten())  # flat: a rank without rows sends a flat tensor

    def gathered(self) -> tuple[Tensor, Tensor]:
        """Return the indices int64 (M,) and numbers float64 (M, C) of all ranks on the CPU, by rising index, each once.

        All ranks must call it together, except after `compute()`, which caches them until the next update or reset.
        """
        if self._cached is not None and self._cached[0] == self._update_count:
            return self._cached[1:]
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync and not self._is_synced,
            should_unsync=not self._is_synced,
        ):
            flat = dim_zero_cat(self.values) if len(self.values) else torch.empty(0)
            table = flat.detach().cpu().double().reshape(-1, 1 + len(self.columns))
            self.sums = {n: getattr(self, n).detach().cpu().clone() for n in self._defaults if n != "values"}
        # an image that padding brought twice may have two scores, which differ in their last bits: the lower one counts
        table = table[table[:, 1].argsort(stable=True)]
        table = table[table[:, 0].argsort(stable=True)]
        index = table[:, 0]
        first = torch.cat([torch.ones(min(1, len(index)), dtype=torch.bool), index[1:] != index[:-1]])
        table = table[(index >= 0) & first]
        self._cached = (self._update_count, table[:, 0].long(), table[:, 1:])
        return self._cached[1:]

    @property
    def where(self) -> str:
        """What a warning begins with."""
        return f"domain {self.name!r}: " if self.name else ""

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        self._cached = None


class ImageLoss(Gathered):
    """The correctly rounded mean of the losses of the images of a domain.

    Args:
        with_masks: Whether only images with a mask have a loss.
        name: The domain.
        kwargs: Of `torchmetrics.Metric`.
    """

    def __init__(self, with_masks: bool = False, name: str = "", **kwargs: Any) -> None:
        super().__init__(("loss",), name, **kwargs)
        self.with_masks = with_masks

    def take(self, output: Tensor, batch: Mapping[str, Any]) -> None:
        """Add the losses (N,) of a batch."""
        self.update(output, batch["index"].where(batch["has_mask"], -1) if self.with_masks else batch["index"])

    def update(self, loss: Tensor, index: Tensor) -> None:
        """Add losses (N,), and rows in the data set (N,), of which those < 0 are left out."""
        self.add_rows(index, loss)

    def compute(self) -> dict[str, Tensor]:
        """Return ``loss``, a float64 scalar on the CPU; NaN of nothing, and where a loss is not finite."""
        values = self.gathered()[1].flatten().tolist()
        mean = math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan
        return {"loss": torch.tensor(mean, dtype=torch.float64)}
