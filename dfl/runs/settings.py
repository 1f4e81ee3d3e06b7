"""The settings of a run, ``config.yaml`` beside its checkpoints, and whether they are one's own.

``fit`` writes the file, and notes its hash in the user's own state folder (``$XDG_STATE_HOME``, by default
``~/.local/state``). Only a file of that hash is read by itself: one that was downloaded, or changed by somebody, is as
good as any other config, which counts once the user names it with ``--config``.
"""

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from dfl.errors import UserError
from dfl.runs import files

FILE = "config.yaml"


def write(folder: Path, settings: dict[str, Any]) -> None:
    """Write the settings of a run that is trained here, whole or not at all, and note them as one's own.

    A state folder that cannot be written means only that ``--config`` must be given on resume.

    Raises:
        UserError: If the run's folder cannot be written.
    """
    head = f"# Settings of the run {folder.name!r}, written by dfl fit. Resume and test read them here.\n"
    text = head + _dump(settings)
    files.write(folder / FILE, text)
    with suppress(OSError):
        _hashes().mkdir(parents=True, exist_ok=True)
        (_hashes() / _hash(text)).touch()


def read(folder: Path) -> dict[str, Any] | None:
    """Return the settings of a run; None if there are none, or not of this user's own writing."""
    try:
        text = (folder / FILE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    content = yaml.safe_load(text) if (_hashes() / _hash(text)).is_file() else None
    return content if isinstance(content, dict) else None


def write_down(folder: Path, claimed: Any) -> bool:
    """Write what an old checkpoint says of its run, for the user to read; it is not one's own by that.

    Returns:
        Whether it was written: not where a file is already, nor where the folder takes none.
    """
    if (folder / FILE).exists() or not isinstance(claimed, dict):
        return False
    head = "# What a checkpoint of an earlier dfl says of its run. Read it; it counts when you give it with --config.\n"
    try:
        files.write(folder / FILE, head + _dump(claimed))
    except (UserError, yaml.YAMLError, RecursionError):
        return False
    return True


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name: ``model`` is the class without its module, ``model.rank`` its argument.

    The settings in a list of classes, such as callbacks, are numbered: ``trainer.callbacks.0.patience``.
    """
    if isinstance(value, list) and value and all(isinstance(inner, dict) for inner in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping) or not value:
        return {name: list(value) if isinstance(value, tuple) else value}
    whole: dict[str, Any] = {}
    for key, inner in value.items():
        if key == "class_path":
            whole[name] = str(inner).rpartition(".")[2]
        else:
            whole |= flat(inner, name if key == "init_args" else f"{name}.{key}".lstrip("."))
    return whole


def _hashes() -> Path:
    """Return the folder of empty files named after the hashes of settings that were written for this user."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "dfl" / "runs"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _dump(settings: dict[str, Any]) -> str:
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
