"""Single-center loss (Li et al., Frequency-aware Discriminative Feature Learning, CVPR 2021, eq. 2-4).

Real faces look alike in what matters here; fakes are fake in many ways. So real features are drawn to one center C,
and fake ones are only asked to be farther from it than the real ones by a margin:

    M_real = mean of |f_i - C| over the real samples of the batch,   M_fake likewise over the fake ones
    L = M_real + max(M_real - M_fake + m, 0)

The margin is m * sqrt(D) for features of D dimensions in the paper, because Euclidean distances grow so.
The means run over the batch of all ranks: sums and counts are added up across ranks, with gradients, so the loss is
that of one big batch, and ranks may hold different numbers of samples.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dfl.losses.criterion import Criterion

Center = Literal["learnable", "batch_mean", "ema"]
EmptyClass = Literal["real_only", "public"]


def single_center_loss(
    feature: Tensor, label: Tensor, center: Tensor, margin: float | Tensor, empty_class: EmptyClass = "real_only"
) -> Tensor:
    """Return the loss, a float32 scalar.

    Args:
        feature: (N, D), any float dtype; computed in float32.
        label: (N,) 0 real, 1 fake.
        center: (D,) the point that real features are drawn to.
        margin: Distance by which fakes should be farther away, in feature units.
        empty_class: What a batch with one class gives. ``real_only``: the terms that are defined, which is M_real
            without fakes, and 0 without reals. ``public``: the published class's behaviour, in which an empty class
            has distance about 0, so that a batch without fakes gives 2 M_real + m.
    """
    with torch.autocast(feature.device.type, enabled=False):
        distance = torch.linalg.vector_norm(feature.float() - center.float(), dim=1)  # gradient 0 at distance 0
        fake = label.to(distance)
        real = 1 - fake
        sums = _over_ranks(torch.stack([(distance * real).sum(), (distance * fake).sum(), real.sum(), fake.sum()]))
        n_real, n_fake = sums[2].detach(), sums[3].detach()
        total_real, total_fake = sums[0], sums[1]
        if empty_class == "public":  # its clamp adds 1e-12 for each sample of the other class
            total_real, total_fake = total_real + 1e-12 * n_fake, total_fake + 1e-12 * n_real
        m_real, m_fake = total_real / n_real.clamp_min(1), total_fake / n_fake.clamp_min(1)
        push = (m_real - m_fake + margin).clamp_min(0)
        if empty_class == "real_only":
            push = push * (n_real * n_fake > 0)
        return m_real + push


class SingleCenter(Criterion):
    """Cross-entropy, or another criterion, and weight x the single-center loss of a feature.

    Args:
        weight: Of the single-center loss.
        feature: What it looks at: the input of the last layer, or the logits.
        margin: m; 0.3 in every public copy, the paper's value is not known to us.
        margin_mode: ``sqrt_dim`` uses m * sqrt(D) (the paper), ``absolute`` uses m.
        center: ``learnable``: a parameter, in the optimizer (the paper). ``batch_mean``: the mean of the batch's real
            features, gradient included (Kong et al. 2023 as ported). ``ema``: a running mean of real features, without
            gradient.
        empty_class: See :func:`single_center_loss`.
        momentum: Share of the old center that stays in each step of ``ema``.
        beside: What it is added to; None: cross-entropy.
    """

    def __init__(
        self,
        weight: float = 0.5,
        feature: Literal["pre_logits", "logits"] = "pre_logits",
        margin: float = 0.3,
        margin_mode: Literal["sqrt_dim", "absolute"] = "sqrt_dim",
        center: Center = "learnable",
        empty_class: EmptyClass = "real_only",
        momentum: float = 0.99,
        beside: Criterion | None = None,
    ) -> None:
        super().__init__(locals())
        self.weight, self.feature, self.mode, self.empty_class = weight, feature, center, empty_class
        self.momentum, self.beside = momentum, Criterion.of(beside)
        self.margin, self.by_dim = margin, margin_mode == "sqrt_dim"
        self.center: Tensor
        self.started: Tensor

    def build(self, feature: int, logits: int) -> None:
        """Make the center, of as many dimensions as what it looks at."""
        self.beside.build(feature, logits)
        dim = logits if self.feature == "logits" else feature
        self.margin *= dim**0.5 if self.by_dim else 1
        if self.mode == "learnable":
            self.center = nn.Parameter(torch.randn(dim))
        elif self.mode == "ema":
            self.register_buffer("center", torch.zeros(dim))
            self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    def forward(self, out: Mapping[str, Any], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``loss``, ``scl`` and the parts of the other criterion."""
        losses = self.beside(out, batch)
        scl = self.pull(out["logits" if self.feature == "logits" else "feature"], batch["label"])
        return losses | {"loss": losses["loss"] + self.weight * scl, "scl": scl}

    def pull(self, feature: Tensor, label: Tensor) -> Tensor:
        """Return the single-center loss alone of ``feature`` (N, D) and ``label`` (N,), a float32 scalar."""
        return single_center_loss(feature, label, self._center(feature, label), self.margin, self.empty_class)

    def _center(self, feature: Tensor, label: Tensor) -> Tensor:
        if self.mode == "learnable":
            return self.center
        with torch.autocast(feature.device.type, enabled=False):
            mean, count = _mean_of_real(feature.float(), label)
        if self.mode == "batch_mean":
            return mean
        if self.training:
            share = torch.where(self.started, self.momentum, 0.0)
            new = share * self.center + (1 - share) * mean.detach()
            self.center.copy_(torch.where(count > 0, new, self.center))
            self.started |= count > 0
        return self.center.clone()


def _mean_of_real(feature: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean real feature (D,) over all ranks and the number of real samples."""
    real = (1 - label.to(feature))[:, None]
    sums = _over_ranks(torch.cat([(feature * real).sum(0), real.sum()[None]]))
    count = sums[-1].detach()
    return sums[:-1] / count.clamp_min(1), count


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks; so is its gradient, which DDP then divides by the number of ranks."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        x = x.clone()
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> Tensor:
        return _SumOverRanks.apply(grad)


def _over_ranks(x: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and torch.is_grad_enabled():
        return _SumOverRanks.apply(x)
    return x
