"""Stop when a loss is no number any more, and name the loss and the images.

One infinite loss spoils all weights at the next step. Looking at each loss on the host would make a GPU wait at each
step, so the losses of the last steps stay on the device and are looked at together. A checkpoint is only written
after such a look, so the newest one is from before the first bad step.
"""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from dfl.distributed import largest
from dfl.errors import UserError

ADVICE = "what is saved is from before it; lower the learning rate or set trainer.gradient_clip_val"


class FiniteLoss(pl.Callback):
    """End training at a loss that is NaN or infinite.

    Args:
        every: Steps between two looks on a GPU; on a CPU each step is looked at.
    """

    def __init__(self, every: int = 50) -> None:
        self.every = every
        #: Step, named losses and paths of the batches since the last look.
        self._recent: list[tuple[int, dict[str, Tensor], list[str]]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Keep the losses of a step, and look at them from time to time."""
        losses = getattr(module, "losses", None) or _total(outputs)
        paths = list(batch.get("path", ())) if isinstance(batch, dict) else []
        self._recent.append((trainer.fit_loop.epoch_loop.total_batch_idx, losses, paths))
        if module.device.type == "cpu" or len(self._recent) >= self.every:
            self.look(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Let no spoilt weights be saved; a gradient can be bad where the loss is not."""
        self.look(trainer)
        spoilt = [name for name, p in module.named_parameters() if p.requires_grad and not p.isfinite().all()]
        if spoilt:
            raise UserError(f"the weights {spoilt[0]} are no numbers any more, though the loss is; {ADVICE}")

    def look(self, trainer: pl.Trainer) -> None:
        """Check the losses since the last look; all ranks look at the same batches.

        Raises:
            UserError: On every rank, if a loss of any rank is not finite.
        """
        recent, self._recent = self._recent, []
        values = [value for _, losses, _ in recent for value in losses.values()]
        bad = bool(values) and not bool(torch.stack(values).isfinite().all())
        if not largest(trainer, int(bad)):
            return
        for step, losses, paths in recent:
            wrong = [f"{name} is {value.item()}" for name, value in losses.items() if not value.isfinite()]
            if wrong:
                named = ", ".join(paths) or "without names"
                raise UserError(f"the loss is no number at batch {step}: {', '.join(wrong)}; {ADVICE}; images: {named}")
        raise UserError(f"the loss of another process is no number; {ADVICE}")


def _total(outputs: Any) -> dict[str, Tensor]:
    """Return the loss that the training step returned; none in manual optimization."""
    loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
    return {"loss": loss.detach()} if isinstance(loss, Tensor) else {}
