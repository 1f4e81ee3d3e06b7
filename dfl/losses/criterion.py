"""What a classifier is trained with: a module that maps outputs and a batch to named losses.

A config names one by ``class_path``, which may be anyone's. A checkpoint names one of dfl's own, with plain arguments.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from dfl.errors import subclasses
from dfl.losses.classification import binary_cross_entropy, cross_entropy, mean_of
from dfl.losses.cvar import Outer, bilevel_cvar, cvar, gather_over_ranks
from dfl.runs.plain import Misfit, arguments, shown


class Criterion(nn.Module, ABC):
    """A loss of a classifier; one with arguments begins with ``super().__init__(locals())``.

    Args:
        made_with: The local variables of the subclass's ``__init__``: its arguments, from which it can be made again.
    """

    def __init__(self, made_with: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.arguments = {k: v for k, v in (made_with or {}).items() if k not in ("self", "__class__")}

    def build(self, feature: int, logits: int) -> None:
        """Make parameters, called once, with the dimensions of ``feature`` and ``logits`` of `Outputs`."""

    @abstractmethod
    def forward(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the total under ``loss`` and its parts under their names, scalars.

        Args:
            out: `Outputs` of N images.
            batch: With ``label``, ``weight``, ``group`` (N,).
        """

    @property
    def spec(self) -> dict[str, Any]:
        """Class and arguments as plain values."""
        kind = type(self)
        name = kind.__name__ if kind.__module__.startswith("dfl.") else f"{kind.__module__}.{kind.__qualname__}"
        plain = {k: v.spec if isinstance(v, Criterion) else v for k, v in self.arguments.items()}
        return {"class_path": name, "init_args": plain}

    @staticmethod
    def of(value: "Criterion | Mapping[str, Any] | None") -> "Criterion":
        """Return the criterion of its `spec`; cross-entropy for None, and a criterion as it is.

        Raises:
            Misfit: If a value is not the spec of one of dfl's.
        """
        if value is None:
            return CrossEntropy()
        if isinstance(value, Criterion):
            return value
        plain = Criterion.from_file(value)
        return _own()[plain["class_path"]](**plain["init_args"])

    @staticmethod
    def from_file(value: Any) -> dict[str, Any]:
        """Return the spec that a file gives, if it is that of one of dfl's criterions with plain arguments.

        Raises:
            Misfit: If it is not.
        """
        name = value.get("class_path") if isinstance(value, Mapping) else None
        if not isinstance(name, str) or name not in _own():
            raise Misfit(f"is {shown(name or value)}, and it must be one of dfl's: {', '.join(_own())}")
        return {"class_path": name, "init_args": arguments(_own()[name], value.get("init_args") or {}, {})}


class CrossEntropy(Criterion):
    """Cross-entropy of two logits, or the binary one of a single logit."""

    def forward(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``loss`` and ``ce``, the same."""
        ce = of_images(out, batch).mean()
        return {"loss": ce, "ce": ce}


class SquaredError(Criterion):
    """Squared distance of the probability of fake from the label, as MesoNet is trained (Afchar et al., WIFS 2018)."""

    def forward(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``loss`` and ``mse``, the same."""
        each = (out["logit"].float().sigmoid() - batch["label"].float()).square()
        mse = mean_of(each, batch.get("weight"), each=False)
        return {"loss": mse, "mse": mse}


class DagFdd(Criterion):
    """CVaR of the cross-entropy over the batch, which needs no groups: DAG-FDD (Ju et al., WACV 2024).

    Args:
        alpha: Share of the worst samples.
        groups: ``global``: samples of all ranks together; ``official``: each rank for itself.
    """

    def __init__(self, alpha: float = 0.5, groups: Literal["global", "official"] = "global") -> None:
        super().__init__(locals())
        self.alpha, self.groups = alpha, groups

    def forward(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``loss`` and ``cvar``, the same, and the mean ``ce``."""
        own = of_images(out, batch)
        each, groups = own, batch["group"]
        if self.groups == "global":
            each, groups = gather_over_ranks(each, groups)
        risk = self.risk(each, groups)
        return {"loss": risk, "cvar": risk, "ce": own.detach().mean()}

    def risk(self, each: Tensor, groups: Tensor) -> Tensor:
        """Return the CVaR of the losses of images (n,), a scalar."""
        return cvar(each, self.alpha)


class DawFdd(DagFdd):
    """CVaR over groups of the CVaR within each: DAW-FDD (Ju et al., WACV 2024).

    Args:
        alpha: Share of the worst groups.
        alpha_inner: Share of the worst samples in each group.
        cvar: How the outer level is computed: ``plain`` as DAW-FDD's code, ``official`` as PG-FDD's, ``exact``.
        groups: ``global``: groups span ranks; ``official``: each rank for itself.
    """

    def __init__(
        self,
        alpha: float = 0.5,
        alpha_inner: float = 0.9,
        cvar: Outer = "plain",
        groups: Literal["global", "official"] = "global",
    ) -> None:
        super().__init__(alpha, groups)
        self.arguments |= {"alpha_inner": alpha_inner, "cvar": cvar}
        self.alpha_inner, self.cvar = alpha_inner, cvar

    def risk(self, each: Tensor, groups: Tensor) -> Tensor:
        """Return the CVaR over groups, a scalar."""
        return bilevel_cvar(each, groups, self.alpha_inner, self.alpha, self.cvar)


def of_images(out: Mapping[str, Any], batch: Mapping[str, Any]) -> Tensor:
    """Return the weighted cross-entropy of every image, (N,) float32."""
    if "logits" in out:
        return cross_entropy(out["logits"], batch["label"], batch.get("weight"), each=True)
    return binary_cross_entropy(out["logit"], batch["label"], batch.get("weight"), each=True)


def _own() -> dict[str, type[Criterion]]:
    classes: list[type[Criterion]] = subclasses(Criterion)  # type: ignore[type-abstract]
    return {c.__name__: c for c in classes if c.__module__.startswith("dfl.")}
