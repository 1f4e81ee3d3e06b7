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

#: Settings that may differ between the parts of a run without changing it; names as in a config.
FREE = ("name", "data.init_args.num_workers", "trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "last")


#: Settings of the data that decide which samples come when.
ORDER = ("seed", "balance", "originals", "generators_per_batch")


class SameRun(pl.Callback):
    """Record code, data, batches and optimizers in each checkpoint, and compare on resume."""

    def __init__(self) -> None:
        self._record: dict[str, Any] = {}
        #: What is about to be loaded, until it is.
        self._checkpoint: dict[str, Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
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

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say what differs.

        Raises:
            UserError: If the batches differ and the checkpoint is from the middle of an epoch.
        """
        then: dict[str, Any] = checkpoint.get("callbacks", {}).get(self.state_key, {})
        epoch = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
        whole = epoch["processed"] == epoch["ready"]
        if note := self._batches(then, whole):
            say(note)
        if not whole:
            self._same_epoch(then, checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["processed"])
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

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the settings of optimizers and schedules; those that are typed now go into the checkpoint's states.

        Raises:
            UserError: If the checkpoint's states have no place in them.
        """
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is None:
            self._record["made"] = restored.settings_of(trainer)
            return
        then = checkpoint["callbacks"].get(self.state_key, {}).get("made")
        self._record["made"], changes = restored.renew(trainer, checkpoint, then)
        if changes:
            say(f"from step {checkpoint['global_step']} on: {'; '.join(changes)}")

    def _same_epoch(self, then: dict[str, Any], batches: int) -> None:
        """Raise if the rest of an epoch would be that of another one."""
        old, new = then.get("order", {}), self._record.get("order", {})
        for name in sorted(key for key in old.keys() & new.keys() if old[key] != new[key]):
            raise UserError(
                f"the checkpoint is from the middle of an epoch, and {name} was {old[name]} and is {new[name]}, so "
                f"other images would be left: set {_flag(name)} to {old[name]} again until the epoch is over"
            )
        was, now = then.get("accumulate"), self._record.get("accumulate")
        if was != now and was and now and batches % now:
            raise UserError(
                f"the checkpoint is from batch {batches} of an epoch, which is no multiple of {now} batches: set "
                f"trainer.accumulate_grad_batches to {was} again until the epoch is over"
            )

    def _batches(self, then: dict[str, Any], whole: bool) -> str:
        """Return what to say of other batches, or raise if they cannot be."""
        if "batch_size" not in then or "batch_size" not in self._record:
            return ""
        old, new = ((d["batch_size"], d["ranks"]) for d in (then, self._record))
        if old == new:
            return ""
        was, is_ = (f"{size} x {ranks} process{'es' if ranks > 1 else ''}" for size, ranks in (old, new))
        if old[0] * old[1] == new[0] * new[1]:
            return f"batches were {was} and are {is_}: each step sees the same images; rounding and dropout may differ"
        if whole:
            return f"batches were {was} and are {is_}, from this epoch on"
        raise UserError(
            f"the checkpoint is from the middle of an epoch with batches of {was}, and this run has {is_}, so other "
            f"images would be left: set data.batch_size and trainer.devices to give {old[0] * old[1]} again"
        )


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return ``key: old -> new`` for settings that differ, without those that do not matter (`FREE`)."""
    old, new = dict(_flat(before)), dict(_flat(now))
    return [
        f"{key}: {old.get(key)} -> {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not any(key == free or key.startswith(f"{free}.") for free in FREE)
    ]


def code_hash() -> str:
    """Return eight digits that change with any source file of the package."""
    digest, root = hashlib.sha256(), Path(dfl.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:8]


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [pair for key, inner in value.items() for pair in _flat(inner, f"{name}.{key}" if name else str(key))]
    if isinstance(value, list) and value and all(isinstance(inner, dict) for inner in value):  # such as callbacks
        return [pair for place, inner in enumerate(value) for pair in _flat(inner, f"{name}.{place}")]
    return [(name, list(value) if isinstance(value, tuple) else value)]


def _flag(name: str) -> str:
    return "seed_everything" if name == "seed" else f"data.{name}"
