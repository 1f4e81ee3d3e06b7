"""A detector as it is shared: a folder with ``model.safetensors`` and ``config.json``, in which nothing can run.

The two hold what a checkpoint holds for evaluation, under the same names, so that a folder is opened wherever a
checkpoint is, by the same rules (`dfl.detectors.loading`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dfl.errors import UserError
from dfl.runs.files import write
from dfl.runs.plain import untrusted

WEIGHTS, CONFIG = "model.safetensors", "config.json"
#: Longest config, in bytes: a real one has a few thousand.
LONGEST = 4_000_000


def write_shared(folder: Path, content: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Write weights and what belongs to them.

    Args:
        folder: Is there.
        content: Plain values, as a checkpoint has them beside its weights.
        state: Tensors by name; those that share memory are written each for itself.
    """
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    write(folder / WEIGHTS, save(tensors, metadata={"format": "pt"}))
    write_config(folder, content)


def write_config(folder: Path, content: Mapping[str, Any]) -> None:
    """Write what belongs to weights, plain values of which none is NaN."""
    write(folder / CONFIG, json.dumps(content, indent=1, allow_nan=False) + "\n")


def is_shared(place: Path) -> bool:
    """Return whether a place is such a folder."""
    return (place / WEIGHTS).is_file() and (place / CONFIG).is_file()


def read_shared(weights: Path) -> dict[str, Any]:
    """Return what weights and the config beside them hold, as a checkpoint has it; nothing of it is checked but form.

    Raises:
        UserError: If there is no config, or one of the two cannot be read.
    """
    config = weights.with_name(CONFIG)
    if not config.is_file():
        raise UserError(
            f"{weights} has no {CONFIG} beside it, so it does not say which detector it holds: with --model NAME its "
            f"weights are --model.weights {weights}"
        )
    if config.stat().st_size > LONGEST:
        raise untrusted(config, f"it is longer than {LONGEST:,} bytes")
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{config} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise untrusted(config, "it holds no mapping")
    try:
        state = load_file(weights)
    except (SafetensorError, ValueError) as error:
        raise UserError(f"{weights} is torn or no safetensors file: {error}") from error
    return content | {"state_dict": state}
