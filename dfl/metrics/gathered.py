"""Rows of numbers, one for each image, over all ranks, every image once."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from dfl.metrics.detection import gather


class Gathered(Metric):
    """A metric that keeps numbers of every image and computes at the end of the epoch.

    Rows are sorted by their index in the data set and an index that came twice counts once, so 1 and 2 ranks, padded
    samplers and any batch order give the same result to the last bit. States that a metric adds, to be summed over
    ranks, are gathered with the rows.

    Args:
        columns: what the numbers of an image are called.
        name: the domain, for warnings.
        kwargs: of `torchmetrics.Metric`.
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
        self._known: tuple[int, Tensor, Tensor] | None = None

    def keep(self, index: Tensor, numbers: Tensor) -> None:
        """Add rows; nothing here waits for the device.

        Args:
            index: (N,) row in the data set; rows with an index < 0 are left out of every result.
            numbers: (N, C), one column for each name; float64 holds them, so float32 and integers stay exact.
        """
        if numbers.shape != (len(index), len(self.columns)):
            raise ValueError(f"{len(index)} rows of {', '.join(self.columns)} wanted, got {tuple(numbers.shape)}")
        if numbers.device.type == "mps":  # no float64 there
            numbers = numbers.cpu()
        rows = torch.cat([index.to(numbers.device)[:, None].double(), numbers.detach().double()], 1)
        self.values.append(rows.flatten())  # flat: a rank without rows sends a flat tensor

    def gathered(self) -> tuple[Tensor, Tensor]:
        """Return the indices int64 (M,) and numbers float64 (M, C) of all ranks on the CPU, by rising index, each once.

        All ranks must call it together, except after `compute()`, which keeps them until the next update or reset.
        """
        if self._known is not None and self._known[0] == self._update_count:
            return self._known[1:]
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync and not self._is_synced,
            should_unsync=not self._is_synced,
        ):
            flat = dim_zero_cat(self.values) if len(self.values) else torch.empty(0)
            table = flat.detach().cpu().double().reshape(-1, 1 + len(self.columns))
            self.sums = {n: getattr(self, n).detach().cpu().clone() for n in self._defaults if n != "values"}
        table = table[table[:, 0].argsort(stable=True)]
        index = table[:, 0]
        first = torch.cat([torch.ones(min(1, len(index)), dtype=torch.bool), index[1:] != index[:-1]])
        table = table[(index >= 0) & first]
        self._known = (self._update_count, table[:, 0].long(), table[:, 1:])
        return self._known[1:]

    @property
    def where(self) -> str:
        """What a warning begins with."""
        return f"domain {self.name!r}: " if self.name else ""

    def reset(self) -> None:
        """Forget all rows."""
        super().reset()
        self._known = None


class Mean(Gathered):
    """The correctly rounded mean over the images of a domain of one number, such as a loss.

    Args:
        name: The domain.
        kwargs: Of `torchmetrics.Metric`.
    """

    def __init__(self, name: str = "", **kwargs: Any) -> None:
        super().__init__(("value",), name, **kwargs)

    def update(self, value: Tensor, index: Tensor) -> None:
        """Add a batch: values (N,), and rows in the data set (N,), of which those < 0 are left out."""
        self.keep(index, value[:, None])

    def compute(self) -> Tensor:
        """Return the mean, a float64 scalar on the CPU; NaN of nothing, and where a value is."""
        values = self.gathered()[1].flatten().tolist()
        mean = math.fsum(values) / len(values) if values and all(map(math.isfinite, values)) else math.nan
        return torch.tensor(mean, dtype=torch.float64)
