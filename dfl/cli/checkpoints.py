"""What a checkpoint says of itself, and the settings of its run.

A run lives in ``<root>/checkpoints/<name>``. Its settings lie beside its checkpoints, in ``config.yaml``
(`dfl.runs.settings`), so that ``--ckpt_path best`` needs no config. A checkpoint itself is data, wherever it lies: what
is taken from it is checked one by one (`dfl.detectors.loading.examine`), and it names no code, no data and no place.
"""

from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytorch_lightning.cli import LightningArgumentParser

from dfl.cli import messages
from dfl.data import DataModule
from dfl.data.appearance import Usual
from dfl.data.transforms import Transform
from dfl.detectors.base import class_path
from dfl.detectors.loading import Contents, examine
from dfl.detectors.renamed import renamed
from dfl.errors import UserError
from dfl.runs import settings
from dfl.runs.archive import distrusted
from dfl.runs.checkpoint import read_checkpoint
from dfl.runs.plain import Misfit, arguments, untrusted

#: Settings of the trainer that belong to a run and not to the machine; a resumed run takes them up again.
RUN_SETTINGS = (
    *("max_epochs", "min_epochs", "max_steps", "min_steps", "max_time", "precision", "deterministic", "callbacks"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "log_every_n_steps"),
    *("val_check_interval", "check_val_every_n_epoch", "limit_train_batches", "limit_val_batches"),
)

#: Largest number of a step, an epoch, a name.
MOST = 2**40


@dataclass
class Trained:
    """What a checkpoint holds besides weights, and the settings of its run."""

    path: Path
    contents: Contents
    init_args: dict[str, Any]
    epoch: int
    step: int
    #: Whether it lies in a run of ``--root``, where training goes on from it; of any other file weights are taken.
    in_run: bool
    #: How images are resized for the detector, without augmentation; None if the file does not say.
    transform: dict[str, Any] | None
    #: What its training images look like; None if the file does not say.
    usual: Usual | None = None
    #: The settings of the run (model, data, trainer, ...); empty if they are not this user's own.
    run: dict[str, Any] = field(default_factory=dict)
    #: What to tell the user of it.
    notes: list[str] = field(default_factory=list)

    @property
    def class_path(self) -> str:
        """The detector's class, by the path that a config names it by."""
        return class_path(self.contents.kind)

    @property
    def class_name(self) -> str:
        """The detector's class without its module."""
        return self.contents.kind.__name__

    @property
    def name(self) -> str:
        """The run's name; of a file that is in none its own, without the suffix."""
        return self.path.parent.name if self.in_run else self.path.stem

    @property
    def train(self) -> list[dict[str, Any]]:
        """Sources of the training data, as the run's settings say; none where these are not known."""
        train = ((self.run.get("data") or {}).get("init_args") or {}).get("train") or []
        return train if isinstance(train, list) else [train]

    @property
    def all_weights(self) -> bool:
        """Whether no weights have to be fetched before the checkpoint's own are loaded."""
        return not self.contents.left_out

    def __str__(self) -> str:
        return f"{self.path} ({self.class_name}, epoch {self.epoch}, step {self.step})"


def read(path: Path, root: Path, typed: str | None = None) -> Trained:
    """Read what a checkpoint knows of itself; the weights stay on disk and nothing is executed.

    Args:
        path: The file.
        root: Folder that holds ``checkpoints``.
        typed: Class of the detector, where the user named it.

    Raises:
        UserError: If the file is damaged, is no checkpoint of this project, or holds what a checkpoint cannot bring.
    """
    content = read_checkpoint(path)
    with distrusted(path):
        return _trained(content, path, root, typed)


def data_module(settings: Mapping[str, Any]) -> DataModule:
    """Return the data module of a run's settings.

    Raises:
        UserError, ValueError: If there is none of these settings, or its constructor refuses them.
    """
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(DataModule, "data")
    try:
        data = parser.instantiate_classes(parser.parse_object({"data": dict(settings)})).data
    except ArgumentError as error:  # such as of an argument that an older version had
        raise UserError(messages.explain(str(error), [])) from error
    assert isinstance(data, DataModule)
    return data


def _trained(content: Mapping[str, Any], path: Path, root: Path, typed: str | None) -> Trained:
    contents = examine(content, path, typed)
    folder = path.resolve().parent
    in_run = folder.parent == (root / "checkpoints").resolve()
    run = (settings.read(folder) if in_run else None) or {}
    own = renamed((run.get("model") or {}).get("init_args") or {}, contents.kind.__name__)
    data = content.get("DataModule")
    try:
        usual = Usual.of_file(data.get("usual")) if isinstance(data, Mapping) else None
    except Misfit as error:
        raise untrusted(path, f"what it says of its training images {error}") from None
    trained = Trained(
        path=path,
        contents=contents,
        # what was trained is as the checkpoint says; where things lie, and the optimizer, as the run's settings say
        init_args=own | contents.init_args,
        epoch=_whole(content, "epoch", path),
        step=_whole(content, "global_step", path),
        in_run=in_run,
        usual=usual,
        transform=transform_of(content, path),
        run=run,
    )
    _check_vocabulary(data, path)
    if contents.places and not run:
        named = " and ".join(f"--model.{name}" for name in contents.places)
        trained.notes.append(
            f"note: {path} names files or models, which are not followed; where it needs them, give {named}"
        )
    if in_run and not run:
        trained.notes.append(_stranger(path.parent, content))
    return trained


def _stranger(folder: Path, content: Mapping[str, Any]) -> str:
    """Return what to say of a run whose settings are not taken; write down what an old checkpoint says of them."""
    file = folder / settings.FILE
    record = content["dfl"].get("run")
    if settings.write_down(folder, record.get("config") if isinstance(record, Mapping) else None):
        return (
            f"note: this run is of an earlier dfl; its settings are now in {file}: read them, and give --config {file}"
        )
    if file.is_file():
        return (
            f"note: {file} was not written here, or was changed since, and is not used; if it is yours: --config {file}"
        )
    return f"note: {folder} has no {settings.FILE}, so no settings are taken up"


def _whole(content: Mapping[str, Any], key: str, path: Path) -> int:
    value = content.get(key, 0)
    if type(value) is not int or not 0 <= value <= MOST:
        raise untrusted(path, f"its {key} is no count")
    return value


def transform_of(content: Mapping[str, Any], path: Path) -> dict[str, Any] | None:
    """Return the evaluation transform that a checkpoint names; of older files from their record."""
    data = content.get("DataModule")
    transform = data.get("transform") if isinstance(data, Mapping) else None
    if transform is None:
        try:
            transform = content["dfl"]["run"]["config"]["data"]["init_args"]["transform"]
        except (KeyError, TypeError):
            return None
    if isinstance(transform, Mapping) and "class_path" in transform:
        transform = transform.get("init_args", {})
    if transform is None:
        return None
    try:
        return arguments(Transform, transform, {}, left_out=Transform.TRAINING)
    except Misfit as error:
        raise untrusted(path, f"its transform's settings {error}") from None


def _check_vocabulary(data: Any, path: Path) -> None:
    """Raise if the names that a checkpoint numbers are no such table."""
    vocabulary = data.get("vocab") if isinstance(data, Mapping) else data
    if vocabulary is None:
        return
    tables = vocabulary.values() if isinstance(vocabulary, Mapping) else [vocabulary]
    if not all(
        isinstance(t, Mapping) and all(isinstance(k, str) and type(v) is int and 0 <= v <= MOST for k, v in t.items())
        for t in tables
    ):
        raise untrusted(path, "its vocabulary is no table of names and numbers")
