"""Lower the learning rate when validation stands still, and end when it is low enough: the rule of CNNDetection.

Wang et al. (CVPR 2020) wait until accuracy on validation images has not risen by 0.001 for 5 epochs, divide the rate by
ten, and go on with a rise of 0.002 in place of 0.001; a rate that would fall under 1e-6 ends the run. From 1e-4 these
are three phases. After each fall the next value counts as the best one so far, whatever came before, as in their code.
UnivFD (Ojha et al., CVPR 2023) took it over.
"""

from typing import Any, Literal

import pytorch_lightning as pl

from dfl.distributed import say
from dfl.errors import UserError


class StandStill(pl.Callback):
    """Divide the learning rate whenever a metric stands still, and stop the run instead of a rate that is too low.

    A run that goes on takes up best value, patience and phase from its checkpoint; the arguments are those that are
    typed now.

    Args:
        monitor: Metric of the validation.
        mode: Whether more or less of it is better.
        patience: Validations without a rise after which the rate falls.
        rise: Least change that counts as one, in the first phase.
        rise_later: The same in the phases after it.
        factor: What the rate is divided by.
        least: The run ends where the rate would fall under it.

    Raises:
        UserError: For a patience or factor with which the rule has no meaning.
    """

    def __init__(
        self,
        monitor: str = "val/mean/acc",
        mode: Literal["min", "max"] = "max",
        patience: int = 5,
        rise: float = 0.001,
        rise_later: float = 0.002,
        factor: float = 10.0,
        least: float = 1e-6,
    ) -> None:
        if patience < 1 or factor <= 1:
            raise UserError(f"StandStill: patience is {patience} and must be 1 or more, factor {factor} and above 1")
        self.monitor, self.mode, self.patience = monitor, mode, patience
        self.rise, self.rise_later, self.factor, self.least = rise, rise_later, factor, least
        #: Best value of this phase, validations since then, how often the rate fell, whether the run is over.
        self.best: float | None = None
        self.waited = self.falls = 0
        self.over = False

    def on_fit_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Note the rates that the run began with.

        Raises:
            UserError: If a schedule sets the rates too.
        """
        if trainer.lr_scheduler_configs:
            names = ", ".join(type(one.scheduler).__name__ for one in trainer.lr_scheduler_configs)
            raise UserError(f"StandStill and {names} both set the learning rate: keep one (model.scheduler=null)")
        for group in _groups(trainer):
            group.setdefault("initial_lr", group["lr"])

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        """Set the rates as they are by now, from those that may have been typed anew; a run that is over stays so."""
        self._set_rates(trainer)
        trainer.should_stop |= self.over

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        """Look at the newest value."""
        value = trainer.callback_metrics.get(self.monitor)
        if trainer.state.fn != "fit" or trainer.sanity_checking or value is None:
            return
        if self._stands_still(float(value)):
            self.best, self.waited, self.falls = None, 0, self.falls + 1
            self.over = min(self._rates(trainer)) < self.least
            self.falls -= self.over
            trainer.should_stop |= self.over
            self._set_rates(trainer)
            rates = ", ".join(f"{rate:.3g}" for rate in dict.fromkeys(self._rates(trainer)))
            say(f"{self.monitor} stands still: {'the run ends' if self.over else f'the learning rate is now {rates}'}")

    def _stands_still(self, value: float) -> bool:
        """Whether patience is at its end; NaN is no rise, and nobody's best."""
        sign = 1 if self.mode == "max" else -1
        rise = self.rise_later if self.falls else self.rise
        if value == value and (self.best is None or not sign * value < sign * self.best + rise):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
        return self.waited >= self.patience

    def _rates(self, trainer: pl.Trainer) -> list[float]:
        """Return the rate of each group after so many falls, divided one by one, so that it always rounds alike."""
        rates = [float(group["initial_lr"]) for group in _groups(trainer)]
        for _ in range(self.falls):
            rates = [rate / self.factor for rate in rates]
        return rates

    def _set_rates(self, trainer: pl.Trainer) -> None:
        for group, rate in zip(_groups(trainer), self._rates(trainer), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {name: getattr(self, name) for name in ("best", "waited", "falls", "over")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a run."""
        for name, value in state_dict.items():
            setattr(self, name, value)


def _groups(trainer: pl.Trainer) -> list[dict[str, Any]]:
    return [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
