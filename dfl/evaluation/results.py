"""Numbers of a test as files: what was measured, on how many images, and by which code, data and settings.

A number without its circumstances cannot be compared. So ``results.json`` holds the metrics of every domain next to
`run_info`: configuration, commit, versions, hashes of the data, threshold, seed and checkpoint. ``results.csv`` is the
same table for a spreadsheet. Numbers keep all their digits; rounding is for the eye only.
"""

import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from rich.table import Table

import dfl
from dfl.data import csv_files
from dfl.metrics.names import METRICS, about
from dfl.terminal import console

#: Packages whose versions can change a number.
PACKAGES = ("torch", "pytorch-lightning", "torchmetrics", "timm", "peft", "numpy", "pillow", "simplejpeg")
#: Beginnings of metrics of classes, texts and teacher-forced maps: with all others a line would be too wide.
SECOND_TABLE = ("class_", "family_", "level_", "text_", "forced_")
#: What names of metrics of single classes begin with; those that `METRICS` does not have.
OF_ONE_CLASS = ("class_", "family_", "level_")

Row = dict[str, Any]


def table(results: Mapping[str, Mapping[str, float]], rows: Mapping[str, Mapping[str, torch.Tensor]]) -> list[Row]:
    """Return one row per domain, and last the mean.

    Args:
        results: domain (and ``mean``) -> metric -> value, as a detector leaves them.
        rows: domain -> `Detection.rows()`; they tell how many images were scored.

    Returns:
        Rows with ``domain``, ``n_real`` and ``n_fake`` (None for the mean) and the metrics.
    """
    lines: list[Row] = []
    for domain, values in results.items():
        counts = [int((rows[domain]["label"] == label).sum()) if domain in rows else None for label in (0, 1)]
        lines.append({"domain": domain, "n_real": counts[0], "n_fake": counts[1], **values})
    return sorted(lines, key=lambda line: line["domain"] == "mean")


def metric_names(rows: Sequence[Row]) -> list[str]:
    """Return the metrics of a table, each once, without those that have tables of their own (fairness, single classes)
    and the counts of domains that come with a mean."""
    names = dict.fromkeys(name for row in rows if row["n_real"] is not None for name in row)
    own = [n for n in names if n.startswith("fairness/") or (n.startswith(OF_ONE_CLASS) and n not in METRICS)]
    return [n for n in names if n not in ("domain", "n_real", "n_fake", *own)]


def fairness_rows(rows: Sequence[Row]) -> list[tuple[str, str, dict[str, float]]]:
    """Return (domain, attribute, value by measure) for every domain whose images have groups; not of the mean."""
    by_attribute: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("fairness/") and row["n_real"] is not None:
                attribute, _, measure = name.removeprefix("fairness/").rpartition("/")
                by_attribute.setdefault((row["domain"], attribute), {})[measure] = value
    return [(domain, attribute, values) for (domain, attribute), values in by_attribute.items()]


def to_csv(rows: Sequence[Row]) -> str:
    """Return a table as CSV: an undefined metric is ``nan``, one that a domain does not have is empty."""
    return csv_files.whole(list(dict.fromkeys(name for row in rows for name in row)), rows)


def to_json(content: Any) -> str:
    """Return plain values as JSON that every reader takes: NaN is null, infinity a string."""
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def print_table(rows: Sequence[Row]) -> None:
    """Print a table in the terminal, without minor metrics; classes, texts and forced maps have a second one."""
    names = [name for name in metric_names(rows) if not about(name).minor]
    second = [name for name in names if name.startswith(SECOND_TABLE)]
    for part in ([name for name in names if name not in second], second):
        if not part:
            continue
        shown = terminal_table("domain", "real", "fake", *(about(name).label for name in part))
        for row in rows:
            if row["domain"] == "mean":
                shown.add_section()
            counts = ["" if row[name] is None else f"{row[name]:,}" for name in ("n_real", "n_fake")]
            shown.add_row(row["domain"], *counts, *(f"{row[name]:.4f}" if name in row else "" for name in part))
        console(220).print(shown)


def terminal_table(*head: str, title: str | None = None) -> Table:
    """Return an empty table whose first column is of words and all others of numbers."""
    shown = Table(*head, title=title)
    for place, column in enumerate(shown.columns):
        column.no_wrap, column.justify = True, "right" if place else "left"
    return shown


def run_info(trainer: pl.Trainer, module: Any) -> dict[str, Any]:
    """Return what is needed to repeat a test, as plain values.

    Args:
        trainer: of the test; its ``run_config`` is the configuration, where the command line set one.
        module: the detector.

    Returns:
        ``date``, ``detector``, ``checkpoint``, ``threshold`` (NaN where none was chosen), ``seed``, ``precision``,
        ``device``, ``ranks``, ``git``, ``versions``, ``data`` (a hash of the rows of each domain) and ``config``.
    """
    device = module.device
    seed = os.environ.get("PL_GLOBAL_SEED")
    versions = {"dfl": dfl.__version__, "python": platform.python_version()}
    sets = getattr(getattr(trainer, "datamodule", None), "sets", {})
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "detector": type(module).__name__,
        "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
        "threshold": float(module.threshold),
        "seed": None if seed is None else int(seed),
        "precision": str(trainer.precision),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "ranks": trainer.world_size,
        "git": git_state(Path(dfl.__file__).parent),
        "versions": versions | {name: number for name in PACKAGES if (number := _version(name))},
        "data": {f"{s}/{d}": getattr(v, "sha256", None) for s, domains in sets.items() for d, v in domains.items()},
        "config": getattr(trainer, "run_config", None),
    }


def git_state(package: Path) -> dict[str, Any] | None:
    """Return ``commit`` and ``dirty`` (are there changes in the package?), or None where git does not know it.

    A package that merely lies in somebody's checkout, such as in a virtual environment there, is not of that checkout.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
