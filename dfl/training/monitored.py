"""What a run watches: the metric that names the best checkpoint, stops the run early, or lowers the learning rate.

A name that is never measured, or a value that is not defined, would show after an epoch, as a traceback or not at all.
So names are compared with the domains before training, labels with what the metric needs, and values are looked at
after the first validation. Each metric of this suite says whether more is better, and that is followed.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_warn
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from dfl.errors import UserError, near
from dfl.metrics.names import DETECTION, METRICS, OF_ONE_CLASS, direction

#: Beginnings of names that are not of a validation, and names that Lightning gives.
OTHERS = ("train/", "lr-", "epoch", "step")


def follow_directions(settings: Any, say: Callable[[str], Any], name: str = "") -> None:
    """Set ``mode`` wherever settings hold it next to ``monitor``, as the metric has it; say so where it was another.

    Args:
        settings: Of a run, as the parser gives them; changed in place.
        say: Takes a line.
        name: What the settings are of.
    """
    if isinstance(settings, list | tuple):
        for one in settings:
            follow_directions(one, say, name)
        return
    inner = settings if isinstance(settings, dict) else getattr(settings, "__dict__", None)
    if inner is None:
        return
    name = str(inner.get("class_path") or "").rpartition(".")[2] or name
    monitor, mode = inner.get("monitor"), inner.get("mode")
    right = direction(monitor) if isinstance(monitor, str) and mode in ("min", "max") else None
    if right and mode != right:
        say(f"note: {name}: {'more' if right == 'max' else 'less'} {monitor} is better, so mode is {right}, not {mode}")
        inner["mode"] = right
    for key, value in inner.items():
        if not isinstance(value, str):
            follow_directions(value, say, name if key == "init_args" else key)


class Monitored(pl.Callback):
    """Say in one line, as early as possible, that what is watched is never measured or not defined.

    Args:
        mode_given: Whether the user set ``mode``, of which a metric that is not of this suite has need.
    """

    def __init__(self, mode_given: bool = True) -> None:
        self.mode_given = mode_given
        self._checked = False
        #: Names with a warning that they are not defined.
        self._warned: set[str] = set()

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Compare what is watched with the domains and their labels.

        Raises:
            UserError: For a name that is never measured, a metric of unknown direction, and a run that is to be
                stopped or slowed by a value that is not defined.
        """
        self._checked, self._warned = False, set()
        for who, name in watched(trainer):
            if problem := self._unknown(trainer, module, who, name):
                raise UserError(problem)
            if why := _one_class(trainer, name):
                if who != "checkpoint":
                    raise UserError(
                        f"{who} watches {name}, which is not defined: {why}; give validation images of both classes, "
                        "or watch val/mean/log_loss"
                    )
                rank_zero_warn(
                    f"{name} is not defined: {why}; so there will be no best.ckpt, and last.ckpt is written after "
                    "each epoch: give validation images of both classes, or set checkpoint.monitor=val/mean/log_loss"
                )
                self._warned.add(name)

    def on_train_start(self, trainer: Any, module: Any) -> None:
        """Let a run that was stopped early stay so when its command is given again, unless patience has grown."""
        trainer.should_stop |= any(_has_stopped(c) for c in trainer.callbacks if isinstance(c, EarlyStopping))

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Look for what is watched in the first validation.

        Raises:
            UserError: If what stops or slows the run is not there.
        """
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._look(trainer, [one for one in watched(trainer) if not one[1].startswith(OTHERS)], "the validation")

    def on_train_epoch_end(self, trainer: pl.Trainer, module: Any) -> None:
        """The same for what training logs."""
        self._look(trainer, [one for one in watched(trainer) if one[1].startswith("train/")], "training")

    def _look(self, trainer: pl.Trainer, names: list[tuple[str, str]], where: str) -> None:
        values = trainer.callback_metrics
        for who, name in names:
            here = [one for one in values if one.partition("/")[0] == name.partition("/")[0]]
            if name not in values and who != "checkpoint" and not _is_lenient(trainer, name):
                raise UserError(f"{who} watches {name!r}, which {where} did not give{_near(name, here)}")
            if name in self._warned or (name in values and not bool(values[name].isnan())):
                continue
            self._warned.add(name)
            what = "is not defined (NaN)" if name in values else f"was not given by {where}{_near(name, here)}"
            then = {
                "checkpoint": "no best.ckpt is written while that is so; last.ckpt is, after each epoch",
                "EarlyStopping": "the run ends here, unless its check_finite is false",
            }
            rank_zero_warn(f"{name} {what}: {then.get(who, 'it counts as no better than before')}")

    def _unknown(self, trainer: Any, module: pl.LightningModule, who: str, name: str) -> str | None:
        """Return what is wrong with a name; other people's detectors and callbacks may log what they like."""
        domains = [*_domains(trainer), "mean"]
        if name.startswith(OTHERS):
            return None if direction(name) or self.mode_given else _no_direction(who, name)
        if not trainer.enable_validation and who != "checkpoint":
            return f"{who} watches {name}, and this run has no validation"
        split, _, rest = name.partition("/")
        domain, _, metric = rest.partition("/")
        measured = split == "val" and domain in domains and (direction(name) or metric == "n")
        if not measured and _is_ours(module) and all(map(_is_ours, trainer.callbacks)):
            names = [f"val/{one}/{metric}" for one in domains for metric in METRICS if METRICS[metric].best]
            return f"{who} watches {name!r}, which this run never measures{_near(name, names)}"
        return None if measured or self.mode_given else _no_direction(who, name)


def watched(trainer: Any) -> Iterator[tuple[str, str]]:
    """Yield who watches what: ``checkpoint`` or a class, and the name of a metric."""
    for callback in trainer.callbacks:
        if isinstance(name := getattr(callback, "monitor", None), str):
            yield "checkpoint" if isinstance(callback, Checkpoint) else type(callback).__name__, name
    for config in trainer.lr_scheduler_configs:
        if config.reduce_on_plateau and config.monitor:
            yield type(config.scheduler).__name__, config.monitor


def _has_stopped(callback: EarlyStopping) -> bool:
    if callback.stopping_reason is EarlyStoppingReason.PATIENCE_EXHAUSTED:
        return callback.wait_count >= callback.patience
    return callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED


def _no_direction(who: str, name: str) -> str:
    return f"{who} watches {name!r}, of which dfl does not know whether more is better: set its mode to min or max"


def _is_lenient(trainer: Any, name: str) -> bool:
    """Return whether those that watch a name may go on without it: ``strict: false``."""
    watching = [c for c in trainer.callbacks if isinstance(c, EarlyStopping) and c.monitor == name]
    return bool(watching) and not any(one.strict for one in watching)


def _near(name: str, names: list[str]) -> str:
    short = [one for one in names if one.rpartition("/")[2] in DETECTION and one.split("/")[1:2] == ["mean"]] or names
    return near(name, names, cutoff=0.75, listed=sorted(short)[:12])  # names of one domain are half alike as it is


def _is_ours(thing: Any) -> bool:
    return type(thing).__module__.split(".")[0] in ("dfl", "pytorch_lightning")


def _domains(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the data sets of validation by domain."""
    return dict(getattr(getattr(trainer, "datamodule", None), "sets", {}).get("val", {}))


def _one_class(trainer: pl.Trainer, name: str) -> str | None:
    """Return why a metric that compares the classes is not defined, if that can be seen from the labels."""
    split, _, rest = name.partition("/")
    domain, _, metric = rest.partition("/")
    sets = {key: one for key, one in _domains(trainer).items() if domain in (key, "mean")}
    if split != "val" or metric not in DETECTION or metric in OF_ONE_CLASS or not sets:
        return None
    fakes = {key: (int(one.label.sum()), len(one.label)) for key, one in sets.items()}
    if not all(count in (0, of) for count, of in fakes.values()):
        return None
    parts = [f"all {of} images of val/{key} are {'fake' if count else 'real'}" for key, (count, of) in fakes.items()]
    return ", ".join(parts)
