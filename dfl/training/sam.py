"""Sharpness-aware minimisation (SAM; Foret et al., ICLR 2021): step with the gradient of a point that is worse.

    g = gradient at w;   w + e,  e = rho g / (|g| + 1e-12);   the base optimizer steps from w with the gradient at w + e

The second pass sees the same batch with new dropout. BatchNorm normalises by the batch in both passes, but its running
statistics learn from the first alone.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from dfl.errors import UserError


class SAM(Optimizer):
    """An optimizer around another one. In a config it stands where any optimizer stands, with ``base`` inside.

    ``step(closure)`` calls the closure, which computes the loss and its gradient, twice; by hand it is ``first_step()``
    after one gradient and ``second_step()`` after the other. Ranks of DDP average both gradients, so that all of them
    go to the same point. Clipping holds for both gradients. Between steps its state is the base optimizer's.

    Args:
        params: Parameters, or groups of them.
        base: Makes the optimizer that steps from the parameters, for example ``lambda p: SGD(p, lr=5e-4)``.
        rho: Length of e.
        adaptive: e = rho w^2 g / (|w g| + 1e-12), for weights of different scales (ASAM; Kwon et al., ICML 2021).
    """

    def __init__(
        self,
        params: Iterable[Any],
        base: Callable[[Iterable], Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
    ) -> None:
        if rho < 0:
            raise UserError(f"SAM goes rho uphill, 0 or more; got {rho}")
        self.base, self.rho, self.adaptive = base(params), rho, adaptive
        super().__init__(self.base.param_groups, self.base.defaults)
        self._share()
        #: The network whose running statistics rest in the second pass.
        self._module: nn.Module | None = None
        self._before: list[tuple[nn.Parameter, Tensor]] = []
        self._momentum: list[tuple[_BatchNorm, float | None]] = []

    def prepare(self, module: nn.Module) -> None:
        """Tell whose BatchNorm layers rest in the second pass."""
        self._module = module

    @torch.no_grad()
    def first_step(self) -> None:
        """Go from w to w + e, by the gradients that are there, and clear them."""
        trained = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        scaled = [p.abs() * p.grad if self.adaptive else p.grad for p in trained]
        length = self.rho / (torch.nn.utils.get_total_norm(scaled) + 1e-12)
        for p in trained:
            self._before.append((p, p.detach().clone()))
            p.addcmul_(p.grad * p.square() if self.adaptive else p.grad, length)
        for norm_layer in self._module.modules() if self._module is not None else ():
            if isinstance(norm_layer, _BatchNorm):
                self._momentum.append((norm_layer, norm_layer.momentum))
                norm_layer.momentum = 0.0
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        """Go back to w, and step there with the gradients that are there now."""
        self._go_back()
        self.base.step()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Compute both gradients and step; return what the closure gave at w.

        Raises:
            UserError: If there is no closure to compute them with.
        """
        if closure is None:
            raise UserError("SAM computes two gradients a step: set trainer.precision to bf16-mixed or 32-true")
        with torch.enable_grad():
            result = closure()
        self.first_step()
        try:
            with torch.enable_grad():
                closure()
        except BaseException:
            self._go_back()
            raise
        self.second_step()
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state: between two steps there is no other."""
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the base optimizer's state."""
        self.base.load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    @torch.no_grad()
    def _go_back(self) -> None:
        for p, value in self._before:
            p.copy_(value)
        for layer, momentum in self._momentum:
            layer.momentum = momentum
        self._before, self._momentum = [], []
