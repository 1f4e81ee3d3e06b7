"""Settings that live in restored state: a learning rate, a schedule, a patience.

Optimizers, schedules and some callbacks keep their settings in their state, so a checkpoint that is loaded puts the old
ones back, whatever was typed. Therefore the states of a checkpoint are compared with what this run has built, and
settings that differ are written into them before they are loaded:

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

#: What changes in a schedule while it runs; its rates are those of its optimizer.
RUNNING = {
    *("last_epoch", "_step_count", "_last_lr", "_get_lr_called_within_step", "_is_initial", "_schedulers"),
    *("best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i", "base_lrs"),
}
#: The part of it that a plateau has seen.
SEEN = {"last_epoch", "best", "num_bad_epochs", "cooldown_counter"}
#: How an optimizer is computed, which is no setting of the run.
KERNELS = {"fused", "foreach", "capturable", "differentiable"}
#: More steps than any run takes; a schedule that changes is stepped that often.
MOST_STEPS = 10_000_000
Classes = dict[str, list[str]]


def classes_of(trainer: pl.Trainer) -> Classes:
    """Return the classes of optimizers and schedules, and note in each group the rate that it was built with.

    Schedules do so by themselves, as ``initial_lr``; a plateau does not, and no schedule does not either.
    """
    for optimizer in trainer.optimizers:
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
    return {
        "optimizers": [_class(optimizer) for optimizer in trainer.optimizers],
        "schedules": [type(config.scheduler).__name__ for config in trainer.lr_scheduler_configs],
    }


def renew(trainer: pl.Trainer, checkpoint: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """Write settings that differ now into a checkpoint's states; return lines ``what: old -> new``.

    Args:
        trainer: With optimizers and schedules that no state was loaded into.
        checkpoint: What is about to be loaded.
        record: What `SameRun` wrote into it; without ``classes``, as in old checkpoints, settings of the same names are
            taken for those of the same class.

    Raises:
        UserError: For an optimizer of another class or of other parameters, and a schedule that cannot go on.
    """
    now, saved = classes_of(trainer), checkpoint["lr_schedulers"]
    older = {kind: [one["class"] for one in settings] for kind, settings in record.get("made", {}).items()}
    then: Classes = record.get("classes", older)
    _same_optimizers(trainer, checkpoint, then.get("optimizers"), now["optimizers"])
    for config, state in zip(trainer.lr_scheduler_configs, saved, strict=False):
        if hasattr(config.scheduler, "prepare"):  # `WarmupCosine`, whose length is that of the run
            config.scheduler.prepare(_length(trainer, checkpoint, config.scheduler, state.get("total_steps")))
    changes = []
    for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True):
        for before, after in zip(state["param_groups"], optimizer.param_groups, strict=True):
            old, new = _group(before), _group(after)
            if "initial_lr" not in before and any("num_bad_epochs" in one for one in saved):
                old.pop("lr")  # of an old checkpoint, whose plateau has let it fall
            changes += _differences(old, new, _class(optimizer))
    goes_on = []
    before, here = then.get("schedules") or [None] * len(saved), trainer.lr_scheduler_configs
    for i, (old_class, new_class) in enumerate(zip_longest(before, now["schedules"], fillvalue="none")):
        new = _plain(here[i].scheduler.state_dict()) if i < len(here) else {}
        old = _plain(saved[i]) if i < len(saved) else {}
        goes_on.append(old_class == new_class or (old_class is None and new.keys() - RUNNING <= old.keys()))
        if goes_on[-1]:
            changes += _differences(old, new, new_class)
        else:
            changes.append(f"schedule: {old_class or 'another one'} -> {new_class}")
    if changes:
        _renew_states(trainer, checkpoint, goes_on)
    return list(dict.fromkeys(changes))


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


def _class(optimizer: Optimizer) -> str:
    inner = getattr(optimizer, "base", None)
    return type(optimizer).__name__ + (f" of {type(inner).__name__}" if isinstance(inner, Optimizer) else "")


def _group(group: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a group as it was built: a schedule moves its rate, and a cycle its momentum too."""
    moving = {"params", "initial_lr", *KERNELS, *(("momentum", "betas") if "max_momentum" in group else ())}
    settings = {key: value for key, value in group.items() if key not in moving}
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


def _same_optimizers(trainer: pl.Trainer, checkpoint: dict[str, Any], old: list[str] | None, new: list[str]) -> None:
    """Raise if the checkpoint's moments have no place in the optimizers."""
    then = [state["param_groups"] for state in checkpoint["optimizer_states"]]
    now = [optimizer.param_groups for optimizer in trainer.optimizers]
    names, names_now = ([[_group(group).keys() for group in groups] for groups in some] for some in (then, now))
    if len(then) != len(now) or (old != new if old else names != names_now):
        raise UserError(
            f"the checkpoint holds the state of {', '.join(old or ['another optimizer'])}, which {', '.join(new)} "
            "cannot go on from: leave out model.optimizer, or start a new run (--name NEW) without --ckpt_path"
        )
    counts, here = ([[len(group["params"]) for group in groups] for groups in some] for some in (then, now))
    if counts != here:
        raise UserError(
            f"the checkpoint trained {sum(map(sum, counts))} weights in {sum(map(len, counts))} groups, and this run "
            f"trains {sum(map(sum, here))} in {sum(map(len, here))}: give the settings that it was trained with"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], what: str) -> list[str]:
    """Return ``what key: old -> new`` for settings that both have."""
    keys = [key for key in new if key in old and key not in RUNNING]
    return [f"{what} {key}: {old[key]} -> {new[key]}" for key in keys if old[key] != new[key]]


def _renew_states(trainer: pl.Trainer, checkpoint: dict[str, Any], goes_on: list[bool]) -> None:
    """Put the schedules, and then the settings of the optimizers, where they would be by now."""
    states: list[Any] = []
    fallen: list[Optimizer] = []
    for i, config in enumerate(trainer.lr_scheduler_configs):
        scheduler: Any = config.scheduler
        saved = checkpoint["lr_schedulers"][i] if goes_on[i] else {}
        if isinstance(scheduler, ReduceLROnPlateau):
            states.append(scheduler.state_dict() | {key: saved[key] for key in SEEN & saved.keys()})
            fallen += [scheduler.optimizer] * goes_on[i]
        else:
            _step(scheduler, _steps_made(checkpoint, saved, config.interval))
            states.append(scheduler.state_dict())
    checkpoint["lr_schedulers"] = states
    for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"], strict=True):
        for group, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
            lr, built = saved["lr"], saved.get("initial_lr")
            saved |= {key: value for key, value in group.items() if key != "params"}
            if any(optimizer is one for one in fallen):  # from the new rate as far as from the old one
                saved["lr"] = float(group["lr"]) * float(lr) / float(built) if built else lr


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
