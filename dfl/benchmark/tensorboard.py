"""The figures of a benchmark in TensorBoard: one run with all of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from dfl.benchmark import figures, spectra
from dfl.benchmark.lookup import Lookup
from dfl.evaluation import plots


def log(content: Mapping[str, Any], folder: Path, found: Mapping[str, spectra.Spectrum] | None = None) -> None:
    """Write the figures of a benchmark's page.

    Args:
        content: Of `dfl.benchmark.compare`.
        folder: Of the run.
        found: Mean spectra by generator.
    """
    for file in folder.glob("events.out.tfevents.*"):  # of the same benchmark before
        file.unlink()
    with SummaryWriter(str(folder)) as writer:
        for name, drawn in figures.every(Lookup(content)):
            writer.add_image(f"benchmark/{name}", plots.to_array(drawn), dataformats="HWC")
        for name, drawn in spectra.figures(found or {}).items():
            writer.add_image(f"benchmark/{name}", plots.to_array(drawn), dataformats="HWC")
