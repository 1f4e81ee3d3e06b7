"""Leave in order when the machine is taken away, or when the user presses Ctrl-C.

SIGTERM, SIGUSR1 and SIGINT only set a flag. At the end of a step all ranks learn of it, ``last.ckpt`` is written, and
the process ends: with exit code 75 (try again) when it was preempted, with 130 after Ctrl-C. A second Ctrl-C ends at
once. Nothing is written from inside a signal handler, where half of a step may be done. Lightning's own handlers, which
do that, are set aside.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

from dfl.distributed import largest, may_ask
from dfl.errors import INTERRUPTED, PREEMPTED, UserError
from dfl.runs.last import KeepLast

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Preemption(pl.Callback):
    """Save and leave when a signal asks for it.

    Args:
        last: Writes the checkpoint.
    """

    def __init__(self, last: KeepLast) -> None:
        self.last = last
        #: Exit code that this process was asked for, and that all ranks agreed on; 0 to go on.
        self.asked = self.agreed = 0
        self._handlers: dict[signal.Signals, Any] = {}
        self._count = 0

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Take the signals over from Lightning."""
        self.asked = self.agreed = 0
        if threading.current_thread() is threading.main_thread():  # elsewhere Python sets no handlers
            self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        """Give the signals back, unless Lightning, which ends before its callbacks, has put back earlier ones."""
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
        self._handlers = {}

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Ask all ranks whether to leave; ``KeepLast`` comes after this and saves where it can."""
        self._ask(trainer)
        if self.agreed:
            self.last.save_soon()

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        """Leave, if the step before was saved; what it logged is written by now."""
        self._leave(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Leave before a validation, if the step before was saved."""
        self._leave(trainer)

    def on_validation_batch_start(
        self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Save and leave in the middle of a validation."""
        if self._handlers and not trainer.sanity_checking:
            self._ask(trainer)
            if self.agreed:
                self.last.save_in_validation(trainer)
                self._leave(trainer)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.asked == INTERRUPTED:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
            self.asked = INTERRUPTED
            # os.write, since print may be in the middle of a line of its own
            os.write(2, b"\nCtrl-C: saving after this step; press it again to end at once\n")
        elif not self.asked:
            self.asked = PREEMPTED

    def _ask(self, trainer: pl.Trainer) -> None:
        self._count += 1
        if not self.agreed and may_ask(trainer, self._count):
            self.agreed = largest(trainer, self.asked)

    def _leave(self, trainer: pl.Trainer) -> None:
        if not self.agreed or self.last.tried_step != trainer.global_step:
            return
        environment = trainer._accelerator_connector.cluster_environment
        if not trainer.is_global_zero and isinstance(environment, LightningEnvironment):
            raise SystemExit(0)  # Lightning kills rank zero when a process that it started ends with another code
        if trainer.is_global_zero:
            why = "Ctrl-C" if self.agreed == INTERRUPTED else "preempted"
            saved = "" if self.last.saved_step == trainer.global_step else f", saved is step {self.last.saved_step}"
            print(f"dfl: {why} at step {trainer.global_step}{saved}; go on with --ckpt_path last", file=sys.stderr)
        raise SystemExit(self.agreed)


def slurm_plugins(root: Path) -> list[Any]:
    """Return plugins that keep Lightning from saving and requeueing by itself on SLURM; none elsewhere.

    Args:
        root: Where Lightning would look for checkpoints that it wrote before a requeue.

    Raises:
        UserError: If there is one: Lightning would start from it, however old it is.
    """
    # torchrun on a SLURM node gives the ranks itself
    if not SLURMEnvironment.detect():
        return []
    if stale := sorted(root.glob("hpc_ckpt_*")):
        raise UserError(f"{stale[0]} was written by Lightning for another run, which would go on from it; move it away")
    return [] if TorchElasticEnvironment.detect() else [SLURMEnvironment(auto_requeue=False)]
