"""Settings that live in restored state: a learning rate, a schedule, a patience.

Optimizers, schedules and some callbacks keep their settings in their state, so a checkpoint that is loaded puts the old
ones back, whatever was typed. Therefore a checkpoint also records the settings that they were built with. On resume,
settings that differ now are written into the checkpoint's states before these are loaded:

    optimizer    the settings as they are now; its moments stay. Another class has other moments and is refused.
    schedule     built anew and stepped as often as the old one was: the rate of a run that had it from the start
    plateau      what it has seen stays, with the new settings; the rate falls from the new one by what it fell so far
    callback     arguments that are in its state too, such as the patience of EarlyStopping
"""

import inspect
import math
import warnings
from itertools import zip_longest
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dfl.errors import UserError

#: What changes in a schedule while it runs.
RUNNING = {
    *("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "_schedulers"),
    *("best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i"),
}
#: The part of it that a plateau has seen.
SEEN = {"last_epoch", "best", "num_bad_epochs", "cooldown_counter"}
#: How an optimizer is computed, which is no setting of the run.
KERNELS = {"fused", "foreach", "capturable", "differentiable"}
#: More steps than any run takes; a schedule that changes is stepped that often.
MOST_STEPS = 10_000_000
NO_SCHEDULE: dict[str, Any] = {"class": "none", "every": "", "state": {}}
Settings = dict[str, list[dict[str, Any]]]


def settings_of(trainer: pl.Trainer) -> Settings:
    """Return the settings of optimizers and schedules as plain values; to be called before any state is loaded."""
    return {
        "optimizers": [
            {"class": _class(one), "groups": [_group(group) for group in one.param_groups]}
            for one in trainer.optimizers
        ],
        "schedules": [
            {"class": type(one.scheduler).__name__, "every": one.interval, "state": _plain(one.scheduler.state_dict())}
            for one in trainer.lr_scheduler_configs
        ],
    }


def renew(trainer: pl.Trainer, checkpoint: dict[str, Any], then: Settings | None) -> tuple[Settings, list[str]]:
    """Write settings that differ now into a checkpoint's states; return `settings_of` and lines ``what: old -> new``.

    Args:
        trainer: With optimizers and schedules that no state was loaded into.
        checkpoint: What is about to be loaded.
        then: What `settings_of` gave where the run began; None for checkpoints without it.

    Raises:
        UserError: For an optimizer of another class or of other parameters, and a schedule that cannot go on.
    """
    then = then or _guessed(checkpoint)
    _same_optimizers(trainer, checkpoint, then)
    for config, saved in zip(trainer.lr_scheduler_configs, checkpoint["lr_schedulers"], strict=False):
        if hasattr(config.scheduler, "prepare"):  # `WarmupCosine`, whose length is that of the run
            config.scheduler.prepare(_length(trainer, checkpoint, config.scheduler, saved.get("total_steps")))
    now = settings_of(trainer)
    changes = []
    for old, new in zip(then["optimizers"], now["optimizers"], strict=True):
        for before, after in zip(old["groups"], new["groups"], strict=True):
            changes += _differences(before, after, new["class"])
    pairs = list(zip_longest(then["schedules"], now["schedules"], fillvalue=NO_SCHEDULE))
    for old, new in pairs:
        if _is_same(old, new):
            changes += _differences(old["state"], new["state"], new["class"])
        else:
            changes.append(f"schedule: {old['class'] or 'another one'} -> {new['class']}")
    if changes:
        _renew_states(trainer, checkpoint, then, now, [old for old, _ in pairs])
    return now, list(dict.fromkeys(changes))


def renew_callbacks(trainer: Any, checkpoint: dict[str, Any]) -> list[str]:
    """The same for the arguments of callbacks that are in their state; those that write checkpoints know their own."""
    changes = []
    for callback in trainer.callbacks:
        state = checkpoint.get("callbacks", {}).get(callback.state_key)
        if not isinstance(state, dict) or isinstance(callback, Checkpoint):
            continue
        for name in inspect.signature(type(callback)).parameters:
            if name in state and hasattr(callback, name) and state[name] != getattr(callback, name):
                changes.append(f"{type(callback).__name__} {name}: {state[name]} -> {getattr(callback, name)}")
                state[name] = getattr(callback, name)
    return changes


def _is_same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether two schedules are of one class; one of unknown class is, if it has the same settings."""
    return old["class"] == new["class"] or (
        old["class"] is None and new["state"].keys() - RUNNING <= old["state"].keys()
    )


def _class(optimizer: Optimizer) -> str:
    inner = getattr(optimizer, "base", None)
    return type(optimizer).__name__ + (f" of {type(inner).__name__}" if isinstance(inner, Optimizer) else "")


def _group(group: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a group as it was built; a schedule moves its learning rate at once."""
    settings = {key: value for key, value in group.items() if key not in {"params", "initial_lr", *KERNELS}}
    return _plain(settings | {"lr": group.get("initial_lr", group["lr"])})


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what is a number, a word, or a list of such."""

    def value(one: Any) -> Any:
        if isinstance(one, Tensor):
            return one.tolist()
        return [value(inner) for inner in one] if isinstance(one, list | tuple) else one

    def is_plain(one: Any) -> bool:
        return all(map(is_plain, one)) if isinstance(one, list) else one is None or isinstance(one, int | float | str)

    plain = {key: value(one) for key, one in settings.items()}
    return {key: one for key, one in plain.items() if is_plain(one)}


def _guessed(checkpoint: dict[str, Any]) -> Settings:
    """Return the settings as far as the states themselves show them, for old checkpoints without a record."""
    groups = [state["param_groups"] for state in checkpoint["optimizer_states"]]
    return {
        "optimizers": [{"class": None, "groups": [_group(group) for group in one]} for one in groups],
        "schedules": [
            {"class": None, "state": {k: v for k, v in _plain(one).items() if k not in RUNNING}}
            for one in checkpoint["lr_schedulers"]
        ],
    }


def _same_optimizers(trainer: pl.Trainer, checkpoint: dict[str, Any], then: Settings) -> None:
    """Raise if the checkpoint's moments have no place in the optimizers."""
    old, new = [one["class"] for one in then["optimizers"]], [_class(one) for one in trainer.optimizers]
    kinds = [[{*group} for group in one["groups"]] for one in then["optimizers"]]
    asked = [[{*_group(group)} for group in one.param_groups] for one in trainer.optimizers]
    if (old != new and None not in old) or len(old) != len(new) or (None in old and kinds != asked):
        raise UserError(
            f"the checkpoint holds the state of {', '.join(filter(None, old)) or 'another optimizer'}, which "
            f"{', '.join(new)} cannot go on from: leave out model.optimizer, or start a new run (--name NEW) without "
            "--ckpt_path"
        )
    counts = [[len(group["params"]) for group in one["param_groups"]] for one in checkpoint["optimizer_states"]]
    here = [[len(group["params"]) for group in one.param_groups] for one in trainer.optimizers]
    if counts != here:
        raise UserError(
            f"the checkpoint trained {sum(map(sum, counts))} weights in {sum(map(len, counts))} groups, and this run "
            f"trains {sum(map(sum, here))} in {sum(map(len, here))}: give the settings that it was trained with"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], what: str) -> list[str]:
    """Return ``what key: old -> new``; rates of a schedule are those of its optimizer, which says them."""
    keys = [key for key in new if key in old and key not in {"base_lrs", "_last_lr"}]
    return [f"{what} {key}: {old[key]} -> {new[key]}" for key in keys if old[key] != new[key]]


def _renew_states(
    trainer: pl.Trainer, checkpoint: dict[str, Any], then: Settings, now: Settings, schedules: list[dict[str, Any]]
) -> None:
    """Put the schedules, and then the settings of the optimizers, where they would be by now."""
    states: list[Any] = []
    fallen: dict[int, list[float]] = {}
    for i, config in enumerate(trainer.lr_scheduler_configs):
        scheduler: Any = config.scheduler
        goes_on = _is_same(schedules[i], now["schedules"][i])
        saved = checkpoint["lr_schedulers"][i] if goes_on else {}
        if isinstance(scheduler, ReduceLROnPlateau):
            states.append(scheduler.state_dict() | {key: saved[key] for key in SEEN & saved.keys()})
            if goes_on:
                fallen[id(scheduler.optimizer)] = _fallen(trainer, checkpoint, then, now, scheduler.optimizer)
        else:
            _step(scheduler, _steps_made(checkpoint, saved, config.interval))
            states.append(scheduler.state_dict())
    checkpoint["lr_schedulers"] = states
    for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True):
        for i, (group, saved) in enumerate(zip(optimizer.param_groups, state["param_groups"], strict=True)):
            saved |= {key: value for key, value in group.items() if key != "params"}
            if id(optimizer) in fallen:
                saved["lr"] = fallen[id(optimizer)][i]


def _fallen(
    trainer: pl.Trainer, checkpoint: dict[str, Any], then: Settings, now: Settings, optimizer: Any
) -> list[float]:
    """Return the rates that have fallen from the new ones as the old ones did."""
    i = trainer.optimizers.index(optimizer)
    saved, old, new = checkpoint["optimizer_states"][i]["param_groups"], then["optimizers"][i], now["optimizers"][i]
    return [
        float(after["lr"]) * (float(group["lr"]) / float(before["lr"]) if before["lr"] else 1.0)
        for group, before, after in zip(saved, old["groups"], new["groups"], strict=True)
    ]


def _step(scheduler: Any, times: int) -> None:
    if not 0 <= times <= MOST_STEPS:
        raise UserError(f"the checkpoint says that {type(scheduler).__name__} was stepped {times} times: it is damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no optimizer has stepped
        try:
            for _ in range(times):
                scheduler.step()
        except ValueError as error:  # such as one cycle that is over
            raise UserError(
                f"{type(scheduler).__name__} cannot be {times} steps on: {error}; give the settings that the run was "
                "made with"
            ) from error


def _steps_made(checkpoint: dict[str, Any], saved: dict[str, Any], every: str) -> int:
    """Return how often a schedule was stepped, or would have been, had there been one."""
    while "last_epoch" not in saved and saved.get("_schedulers"):  # of several at once
        saved = saved["_schedulers"][0]
    if "last_epoch" in saved:
        return int(saved["last_epoch"])
    return int(checkpoint["global_step"]) if every == "step" else math.floor(_epochs(checkpoint, 1))


def _epochs(checkpoint: dict[str, Any], batches: int) -> float:
    """Return how many epochs were trained, a fraction in mid-epoch.

    Args:
        checkpoint: Of the run.
        batches: How many batches an epoch has; a last one counts as such, whatever its number.
    """
    loops = checkpoint["loops"]["fit_loop"]
    epoch, batch = (loops[f"{name}_progress"]["current"] for name in ("epoch", "epoch_loop.batch"))
    if epoch["processed"] == epoch["ready"]:
        return float(epoch["processed"])
    if loops["epoch_loop.batch_progress"]["is_last_batch"]:
        return epoch["processed"] + 1.0
    return float(epoch["processed"]) + min(batch["processed"] / batches, 1.0 - 1e-9)


def _length(trainer: pl.Trainer, checkpoint: dict[str, Any], schedule: Any, before: int | None) -> int:
    """Return the steps of the whole run: those that were taken, and those to come with batches as they are now."""
    planned, epochs = schedule.total_steps, trainer.max_epochs or 0
    data: Any = getattr(trainer, "datamodule", None)
    if planned in (before, trainer.max_steps) or epochs < 1 or not hasattr(data, "train_steps"):
        return planned
    done, steps = _epochs(checkpoint, data.train_steps()), checkpoint["global_step"]
    if abs(steps - planned * done / epochs) < 1:  # an epoch has as many steps as ever
        return planned
    whole = max(1, round(steps + planned * max(0.0, 1 - done / epochs)))
    return before if before is not None and abs(whole - before) <= 1 else whole
