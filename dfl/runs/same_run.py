"""Is this the run that the checkpoint is from? A resumed run prints what differs.

Each checkpoint records the code, the data, the batches and the settings of the optimizers that it was trained with. A
batch of another size, and another order of the samples, are refused in mid-epoch, since the samples that are left would
be other ones; between epochs they are taken, with a line. What is typed takes effect: see `dfl.runs.restored`.
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

import dfl
from dfl.distributed import say
from dfl.errors import UserError
from dfl.runs import restored
from dfl.runs.settings import flat

#: Settings that may differ between the parts of a run without changing it.
FREE = ("name.", "data.num_workers.", "trainer.max_epochs.", "trainer.max_steps.", "trainer.max_time.", "last.")
#: Settings of the data that decide which samples come when.
ORDER = ("seed", "balance", "originals", "generators_per_batch")


class SameRun(pl.Callback):
    """Record code, data, batches and optimizers in each checkpoint, and compare on resume."""

    def __init__(self) -> None:
        self._record: dict[str, Any] = {}
        #: What is about to be loaded, until it is.
        self._checkpoint: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        """Record code, data and batches."""
        data = trainer.datamodule  # type: ignore[attr-defined]
        self._record = {"code": f"{dfl.__version__} ({code_hash()})", "ranks": trainer.world_size}
        if hasattr(data, "sets"):
            self._record["batch_size"] = data.batch_size
            self._record["order"] = {name: getattr(data, name) for name in ORDER if hasattr(data, name)}
            self._record["accumulate"] = trainer.accumulate_grad_batches
            self._record["data"] = {f"{s}/{d}": v.sha256 for s, sets in data.sets.items() for d, v in sets.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return self._record

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Say what differs.

        Raises:
            UserError: If the batches differ and the checkpoint is from the middle of an epoch.
        """
        then: dict[str, Any] = checkpoint.get("callbacks", {}).get(self.state_key, {})
        if "batch_size" in then and "batch_size" in self._record:
            self._compare_batches(then, checkpoint["loops"]["fit_loop"])
        self._checkpoint = checkpoint
        for note in restored.renew_callbacks(trainer, checkpoint):
            say(f"from here on: {note}")
        if then.get("code") not in (None, self._record["code"]):
            warnings.warn(
                f"the checkpoint was made by dfl {then['code']}, this is {self._record['code']}", stacklevel=1
            )
        old, new = then.get("data", {}), self._record.get("data", {})
        if moved := sorted(key for key in old.keys() & new.keys() if old[key] != new[key]):
            warnings.warn(f"the images of {', '.join(moved)} are not those of the checkpoint", stacklevel=1)
        before = (checkpoint.get("dfl", {}).get("run") or {}).get("config")
        now = getattr(trainer, "run_config", None)
        if before and now and (changed := differences(before, now)):
            warnings.warn(f"settings differ from the checkpoint's: {'; '.join(changed)}", stacklevel=1)

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Record the settings of optimizers and schedules; those that are typed now go into the checkpoint's states.

        Raises:
            UserError: If the checkpoint's states have no place in them.
        """
        checkpoint, self._checkpoint = self._checkpoint, None
        self._record["classes"] = restored.classes_of(trainer)
        if checkpoint is None:
            return
        if changes := restored.renew(trainer, checkpoint, checkpoint["callbacks"].get(self.state_key, {})):
            say(f"from step {checkpoint['global_step']} on: {'; '.join(changes)}")

    def _compare_batches(self, then: dict[str, Any], loops: dict[str, Any]) -> None:
        """Say that batches are others, or raise if they make the rest of an epoch that of another one."""
        epoch, batches = (loops[f"{name}_progress"]["current"] for name in ("epoch", "epoch_loop.batch"))
        whole = epoch["processed"] == epoch["ready"]
        old, new = ((record["batch_size"], record["ranks"]) for record in (then, self._record))
        was, is_ = (f"{size} x {ranks} process{'es' if ranks > 1 else ''}" for size, ranks in (old, new))
        same_images = old[0] * old[1] == new[0] * new[1]
        if old != new and (whole or same_images):
            rest = ": each step sees the same images; rounding and dropout may differ"
            say(f"batches were {was} and are {is_}{rest if same_images else ', from this epoch on'}")
        if whole:
            return
        middle = "the checkpoint is from the middle of an epoch"
        if not same_images:
            raise UserError(
                f"{middle} with batches of {was}, and this run has {is_}, so other images would be left: set "
                f"data.batch_size and trainer.devices to give {old[0] * old[1]} again"
            )
        before, now = then.get("order", {}), self._record["order"]
        for name in sorted(key for key in before.keys() & now.keys() if before[key] != now[key]):
            flag = "seed_everything" if name == "seed" else f"data.{name}"
            raise UserError(
                f"{middle}, and {name} was {before[name]} and is {now[name]}, so other images would be left: set "
                f"{flag} to {before[name]} again until the epoch is over"
            )
        steps, steps_now = then.get("accumulate"), self._record["accumulate"]
        if steps and steps != steps_now and batches["processed"] % steps_now:
            raise UserError(
                f"{middle}, from batch {batches['processed']}, which is no multiple of {steps_now}: set "
                f"trainer.accumulate_grad_batches to {steps} again until the epoch is over"
            )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return ``key: old -> new`` for settings that differ, without those that do not matter (`FREE`)."""
    old, new = flat(before), flat(now)
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not f"{key}.".startswith(FREE)
    ]


def code_hash() -> str:
    """Return eight digits that change with any source file of the package."""
    digest, root = hashlib.sha256(), Path(dfl.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:8]
