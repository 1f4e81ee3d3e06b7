"""Runs by name, and what their checkpoints know of themselves.

A run lives in ``<root>/checkpoints/<name>``. Its checkpoint holds, next to the weights, the detector's class and
arguments and the run's data and trainer settings, so that ``--ckpt_path best`` needs no config. A checkpoint is
read without unpickling objects, and it cannot make us import code that the user did not name.
"""

import importlib.util
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dfl.errors import UserError, near
from dfl.training.checkpoint import newest_whole, read_checkpoint

#: Packages whose classes a checkpoint may name; others must be imported already, or be typed by the user.
TRUSTED = frozenset({"dfl", "torch", "pytorch_lightning"})
#: Settings of the trainer that belong to a run and not to the machine; a resumed run takes them up again.
RUN_SETTINGS = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "precision", "deterministic", "callbacks"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "log_every_n_steps"),
    *("val_check_interval", "check_val_every_n_epoch", "limit_train_batches", "limit_val_batches"),
)


@dataclass
class Held:
    """What a checkpoint holds besides weights."""

    path: Path
    class_path: str
    init_args: dict[str, Any]
    epoch: int
    step: int
    #: True when no weights have to be fetched before the checkpoint's own are loaded.
    all_weights: bool
    #: The settings of the run (model, data, trainer, ...); empty for a detector trained from Python.
    run: dict[str, Any] = field(default_factory=dict)

    @property
    def class_name(self) -> str:
        """The detector's class without its module."""
        return self.class_path.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.path} ({self.class_name}, epoch {self.epoch}, step {self.step})"


def resolve(word: str, root: Path, name: str | None) -> Path:
    """Return the file that ``--ckpt_path`` means.

    Args:
        word: ``best``, ``last`` or a file.
        root: Folder that holds ``checkpoints``.
        name: Name of the run; None takes the newest run that has such a checkpoint.

    Raises:
        UserError: If it is a URL, or no such file exists.
    """
    if "://" in word:
        raise UserError(f"--ckpt_path takes a local file, not the URL {word}; download it first if you trust it")
    runs = root / "checkpoints"
    if word not in ("best", "last"):
        path = Path(word).expanduser()
        if path.is_dir():
            raise UserError(f"--ckpt_path {word} is a folder; name the file in it, such as {path / 'best.ckpt'}")
        if not path.is_file():
            raise UserError(f"no checkpoint {word!r} in {Path.cwd()}" + _hint(word, runs))
        return path
    if name is None:
        found = sorted(runs.glob(f"*/{word}.ckpt"), key=lambda path: path.stat().st_mtime)
        found = found or sorted(runs.glob(f"*/{word}-previous.ckpt"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UserError(
                f"no run in {runs.absolute()} has a {word}.ckpt; train one, or set --root to where runs are"
            )
        return newest_whole(found[-1].with_name(f"{word}.ckpt"))
    path = newest_whole(runs / name / f"{word}.ckpt")
    if not path.is_file():
        raise UserError(f"no {word}.ckpt of the run {name!r} in {path.parent.absolute()}" + _hint(name, runs))
    return path


def _hint(word: str, runs: Path) -> str:
    """Return what comes near among the names of runs."""
    names = sorted({path.parent.name for path in runs.glob("*/*.ckpt")})
    return near(word, names).replace("; there are", "; runs there:") if names else ""


def read(path: Path, named: frozenset[str] = frozenset()) -> Held:
    """Read what a checkpoint knows of itself; the weights stay on disk and nothing is executed.

    Args:
        path: The file.
        named: Packages that the user named, so that classes in them may be imported.

    Raises:
        UserError: If the file is damaged, is no checkpoint of this project, or names code we do not import.
    """
    content = read_checkpoint(path)
    about = content.get("dfl")
    if not isinstance(about, dict) or "class_path" not in about:
        raise UserError(f"{path} is no checkpoint of dfl: it does not say which detector it holds")
    run = (about.get("run") or {}).get("config") or {}
    init_args = {**((run.get("model") or {}).get("init_args") or {}), **(content.get("hyper_parameters") or {})}
    _refuse_strangers({"class_path": about["class_path"], "model": init_args, "run": run}, TRUSTED | named, path)
    return Held(
        path=path,
        class_path=about["class_path"],
        init_args=init_args,
        epoch=content.get("epoch", 0),
        step=content.get("global_step", 0),
        all_weights="backbone" not in about,
        run=run,
    )


def _refuse_strangers(value: Any, trusted: frozenset[str], path: Path, key: str = "") -> None:
    """Raise if any text in a checkpoint names code in a package that is neither trusted nor imported already.

    The parser imports whatever reads like ``package.name`` where a class may stand, so every such text counts.
    """
    if isinstance(value, str) and _DOTTED.fullmatch(value):
        package = value.partition(".")[0]
        # a file name such as best.ckpt reads like code too, but of a package that is nowhere
        known = package in trusted or package in sys.modules
        if not known and (key == "class_path" or importlib.util.find_spec(package) is not None):
            raise UserError(f"{path} names {value}, which is not imported; if you trust it, type --model {value}")
    if isinstance(value, dict):
        for name, inner in value.items():
            _refuse_strangers(inner, trusted, path, name)
    if isinstance(value, list | tuple):
        for inner in value:
            _refuse_strangers(inner, trusted, path)


_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
