"""Lightning's trainer with one more verb, `count`, and the table of parameters that `fit` begins with.

The signature of a verb is its help on the command line.
"""

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelSummary
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dfl.terminal import console

#: Names of a detector's children that are no part of the network.
LOSS, METRICS = "criterion", "metrics"


@dataclass(frozen=True)
class Count:
    """How many numbers a set of parameters holds."""

    trainable: int
    total: int

    @classmethod
    def of(cls, module: nn.Module | None, *more: nn.Parameter) -> "Count":
        """Count a module's parameters, shared ones once."""
        parameters = {id(p): p for p in (*(module.parameters() if module else ()), *more)}.values()
        return cls(sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters))

    def __str__(self) -> str:
        return f"{self.trainable:,} trainable of {self.total:,}"


@dataclass(frozen=True)
class Parameters:
    """Parameters of a detector: its network, the network's parts by name, and the loss it is trained with."""

    network: Count
    parts: dict[str, Count]
    loss: Count


def count_parameters(model: nn.Module) -> Parameters:
    """Count parameters apart for the network and the loss.

    What is under ``model.criterion`` (a learned center, say) is needed in training only and counts as loss; papers
    that report trainable parameters mean the network. Metrics are left out.
    """
    modules = dict(model.named_children())
    children = {name: child for name, child in modules.items() if name not in (LOSS, METRICS)}
    own = list(model.parameters(recurse=False))
    network = Count.of(nn.ModuleList(children.values()), *own)
    while len(children) == 1 and not own:  # a lone wrapper says nothing: show what is in it
        (name, child), *_ = children.items()
        inner = {f"{name}.{part}": module for part, module in child.named_children()}
        if not inner:
            break
        children, own = inner, list(child.parameters(recurse=False))
    parts = {name: Count.of(child) for name, child in children.items()} | {"(own)": Count.of(None, *own)}
    loss = Count.of(modules.get(LOSS))
    return Parameters(network, {name: part for name, part in parts.items() if part.total}, loss)


def count_gmacs(model: nn.Module, side: int) -> float:
    """Return the multiply-adds of one forward pass on one image of side x side pixels, in 1e9.

    Counted by operation as it runs. Attention runs as plain matrix products meanwhile, because the counter does not
    know every fused kernel.
    """
    training = model.training
    model.eval()
    parameter = next(model.parameters(), torch.zeros(()))
    image = torch.zeros(1, 3, side, side, device=parameter.device, dtype=parameter.dtype)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image)
    model.train(training)
    return counter.get_total_flops() / 2e9


def print_parameters(model: nn.Module) -> Console:
    """Print a table of the parts of a detector, its network and its loss; return where."""
    counted = count_parameters(model)
    table = Table("part", "trainable", "parameters", title=type(model).__name__, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, part in counted.parts.items():
        table.add_row(name, f"{part.trainable:,}", f"{part.total:,}")
    out = console()
    out.print(table)
    out.print(f"network  {counted.network}")
    out.print(f"loss     {counted.loss}")
    return out


class ParameterTable(ModelSummary):
    """In place of Lightning's summary, whose FLOPs are 0 unless an example image goes through the network."""

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Print the table, in one process."""
        if trainer.is_global_zero:
            print_parameters(module)


class Trainer(pl.Trainer):
    """The trainer of the command line."""

    #: Plain settings of the run (model, data, trainer); saved with each checkpoint.
    run_config: dict[str, Any] | None = None

    def count(self, model: pl.LightningModule, datamodule: pl.LightningDataModule | None = None) -> None:
        """Count parameters and multiply-adds of a detector.

        Args:
            model: The detector; no weights are loaded.
            datamodule: Not needed.
        """
        side = int(getattr(model, "input_size", 224))
        out = print_parameters(model)
        out.print(f"forward  {count_gmacs(model, side):.2f} GMACs for one image of {side} x {side}")
