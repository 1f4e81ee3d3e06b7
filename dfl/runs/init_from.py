"""Start training from what an earlier stage learned: ``dfl fit --init_from RUN`` (or a file, or RUN/last).

Before the first step the detector takes those tensors of the checkpoint that have the name and the shape of its own.
Nothing else is taken: optimizer, schedule, epochs and data are those of the new run. What a detector names otherwise it
can bring under its own names by a method

    stage_weights(state: dict[str, Tensor]) -> dict[str, Tensor]

A run that goes on (``--ckpt_path last``) does not load the earlier stage again.
"""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from dfl.distributed import say
from dfl.errors import UserError
from dfl.runs.archive import distrusted
from dfl.runs.checkpoint import read_checkpoint

#: Tensors that validation sets anew.
MEASURED = ("threshold",)
#: Most names in a line.
NAMED = 4


class InitFrom(pl.Callback):
    """Take the weights of a file before the first step.

    Args:
        path: A local checkpoint.
        whole: Whether all weights must be there, as of the same detector.
    """

    def __init__(self, path: str | Path, whole: bool = False) -> None:
        self.path, self.whole = path, whole

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Load them; what a detector does to its weights in ``setup`` is done by then.

        Raises:
            UserError: If nothing fits, or the file was trained on top of other frozen weights than this detector has.
        """
        if trainer.ckpt_path is not None:
            return
        content, own = read_checkpoint(self.path), module.state_dict()
        with distrusted(self.path):
            frozen = (content.get("dfl") or {}).get("backbone") or {}
            if self.whole or own.keys() >= set(frozen.get("keys", [])):
                module.on_load_checkpoint(content)  # frozen weights that the file leaves out are the same ones
            rename = getattr(module, "stage_weights", dict)
            state: dict[str, Tensor] = rename(content["state_dict"])
        if self.whole:
            trainer.strategy.load_model_state_dict({"state_dict": state}, strict=True)
            return
        taken = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
        taken = {name: value for name, value in taken.items() if name not in MEASURED}
        if not taken:
            raise UserError(
                f"{self.path} has none of the {len(own)} tensors of {type(module).__name__}: its first is "
                f"{next(iter(state), 'missing')}, and this detector's {next(iter(own))}"
            )
        trainer.strategy.load_model_state_dict({"state_dict": taken}, strict=False)
        say(f"{self.path} gives {len(taken)} of {len(own)} tensors{_rest(own, state, taken)}")


def _rest(own: dict[str, Tensor], state: dict[str, Tensor], taken: dict[str, Tensor]) -> str:
    """Return what did not match, as the end of a line."""
    shapes = [f"{n} {tuple(state[n].shape)}, not {tuple(own[n].shape)}" for n in own if n in state and n not in taken]
    lists = {
        "of another shape": [one for one in shapes if not one.startswith(MEASURED)],
        "not in the file": [name for name in own if name not in state],
        "only in the file": [name for name in state if name not in own],
    }
    return "".join(f"; {len(names)} {what}: {_some(names)}" for what, names in lists.items() if names)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
