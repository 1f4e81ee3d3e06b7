"""Trainings that a benchmark needs: each is done once, goes on where it stopped, and is never mixed up.

What a run learns from is hashed and noted beside its checkpoints. A run of the same name with other settings is an
error, not a result.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from dfl.cli import app, arguments
from dfl.cli.checkpoints import RUN_SETTINGS
from dfl.errors import UserError
from dfl.evaluation import results
from dfl.runs import files

#: Settings that say how a run is computed and not what it learns; a change of them does not make it another run.
MACHINE = ("num_workers", "eval_batch_size")

say = rank_zero_only(print)
write = rank_zero_only(files.write)


def digest(*values: Any) -> str:
    """Return the hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def learned(words: Sequence[str]) -> list[Any]:
    """Return what a run learns from, of the words of its ``fit``: settings of the machine alone are left out."""
    plan = arguments.plan(["fit", *words])
    settings: list[Any] = []
    for layer in plan.layers:
        inner = {key: value for key, value in layer.items() if key in ("model", "trainer", "checkpoint")}
        inner["trainer"] = {k: v for k, v in (layer.get("trainer") or {}).items() if k in RUN_SETTINGS}
        data = layer.get("data")
        if isinstance(data, dict):
            data = {key: value for key, value in (data.get("init_args") or {}).items() if key not in MACHINE}
        settings.append([inner, data, layer.get("seed_everything")])
    for flag, value in plan.typed:
        names = flag.removeprefix("--").split(".")
        of_machine = names[-1] in MACHINE or (names[0] == "trainer" and names[1] not in RUN_SETTINGS)
        if names not in (["data"], ["name"], ["root"], ["init_from"]) and not of_machine:
            settings.append([flag, value])
    if plan.init_from is not None:  # the settings of the stage before, as far as they are known
        note = plan.init_from.parent / "benchmark.json"
        before = json.loads(note.read_text(encoding="utf-8"))["trained"] if note.is_file() else str(plan.init_from)
        settings.append(["init_from", before])
    return settings


def state_of(file: Path, trained: str) -> dict[str, Any]:
    """Return what is noted of a run, empty if it has not begun.

    Args:
        file: The note, beside its checkpoints.
        trained: Hash of what it is to learn from.

    Raises:
        UserError: If another run lies there.
    """
    state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if state.get("trained") == trained:
        return state
    if any(file.parent.glob("*.ckpt")):  # a run that failed before its first checkpoint has left nothing to mix up
        raise UserError(
            f"{file.parent} holds a run with other settings than this has; remove it, or give another --name"
        )
    return {}


def train(words: Sequence[str], file: Path, trained: str) -> dict[str, Any]:
    """Train a run, or go on where it stopped; return its note, which says that it is complete.

    Args:
        words: Of ``fit``.
        file: Where the note goes.
        trained: Hash of what it learns from.
    """
    state: dict[str, Any] = {"trained": trained, "complete": False}
    write(file, results.to_json(state))
    trainer = app.main(["fit", *words, "--ckpt_path=last"]).trainer
    state |= {"complete": True, "monitor": str(getattr(trainer.checkpoint_callback, "monitor", ""))}
    write(file, results.to_json(state))
    return state


def best_or_last(folder: Path) -> str:
    """Return which checkpoint of a run is tested."""
    return "best" if (folder / "best.ckpt").is_file() else "last"
