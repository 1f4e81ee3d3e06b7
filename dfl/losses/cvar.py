"""Conditional value at risk (CVaR): the mean of the worst losses; and CVaR over groups of CVaRs within them.

DAG-FDD takes the worst share alpha of a batch, DAW-FDD the worst groups (Ju et al., Improving Fairness in Deepfake
Detection, WACV 2024), PG-FDD the same on its fused head (Lin et al., CVPR 2024, eq. 2a, 2b):

    L_j = min_eta  eta + 1/(alpha' n_j) sum over i in group j of [l_i - eta]+        inner, alpha' = 0.9
    L   = min_eta  eta + 1/(alpha J)    sum over groups j of     [L_j - eta]+        outer, alpha  = 0.5

The published codes search eta with SciPy, waiting for the device at each of some 40 tries. But the minimum is known:
with k = alpha n it is the mean of the k largest losses, the last of them counted in part. One sort gives it for all
groups, on the device, without a wait.
"""

from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor

from dfl.errors import UserError

Outer = Literal["exact", "plain", "official"]
#: Where exp overflows in float32, as in the published search.
LOG_MAX = 88.72283905206835


def cvar(losses: Tensor, alpha: float) -> Tensor:
    """Return the mean of the worst share of the losses, a float32 scalar; its weights on the losses sum to 1.

    Args:
        losses: (n,), any float dtype.
        alpha: The share, in (0, 1]; 1 is the plain mean.

    Raises:
        UserError: If alpha is no share, or there are no losses.
    """
    _check(losses, alpha)
    with torch.autocast(losses.device.type, enabled=False):
        worst = losses.float().sort(descending=True, stable=True).values
        k = alpha * len(worst)
        rank = torch.arange(len(worst), device=worst.device)
        return (worst * ((k - rank).clamp(0, 1) / k)).sum()


def bilevel_cvar(
    losses: Tensor,
    groups: Tensor,
    alpha_inner: float = 0.9,
    alpha_outer: float = 0.5,
    outer: Outer = "exact",
    tau1: float = 1e-3,
    tau2: float = 1e-4,
) -> Tensor:
    """Return the CVaR over groups of the CVaR within each, a float32 scalar.

    Args:
        losses: (n,), any float dtype.
        groups: (n,) integers, any; only those that are present count.
        alpha_inner: Share of the worst samples in each group.
        alpha_outer: Share of the worst groups.
        outer: ``exact``: the paper's formula; the weights sum to 1 at both levels. ``plain``: DAW-FDD's code; the same
            value, but eta is a constant, so that a loss above it weighs 1/(alpha n), and the one at it nothing, unless
            it is the largest or the smallest. ``official``: PG-FDD's code; inner level as ``plain``, outer level with
            softplus of temperature tau1 in place of [.]+ and tau2/(2 alpha) eta^2 added. In float32 its exp overflows,
            which keeps eta above max L - tau1 ln(float32 max): only the groups within 0.0887 of the worst get a
            gradient.
        tau1: Temperature of ``official``.
        tau2: Weight of its square.

    Raises:
        UserError: If an alpha is no share, there are no losses, or the shapes differ.
    """
    _check(losses, alpha_inner)
    _check(losses, alpha_outer)
    if groups.shape != losses.shape:
        raise UserError(f"a group for each loss: {tuple(losses.shape)} losses, {tuple(groups.shape)} groups")
    with torch.autocast(losses.device.type, enabled=False):
        place, exact = torch.arange(len(losses), device=losses.device), outer == "exact"
        # sorted by group, and in each group the worst first
        order = losses.detach().argsort(descending=True, stable=True)
        order = order[groups[order].argsort(stable=True)]
        groups = groups[order]
        # rows 0, 1, ... for the groups that are present; there are n of them, so that no size waits for the device
        row = torch.cat([torch.zeros_like(place[:1]), (groups[1:] != groups[:-1]).cumsum(0)])
        count = torch.zeros_like(place).index_add(0, row, torch.ones_like(place))
        rank = place - (count.cumsum(0) - count)[row]
        loss = _rows(losses.float()[order], row, rank, count, alpha_inner, exact)
        present = count > 0
        if outer == "official":
            return _smooth(loss, present, alpha_outer, tau1, tau2)
        loss = torch.where(present, loss, -torch.inf).sort(descending=True, stable=True).values
        number = present.sum()
        absent = place >= number
        count = torch.zeros_like(place).index_add(0, absent.long(), torch.ones_like(place))
        return _rows(torch.where(absent, 0.0, loss), absent.long(), place, count, alpha_outer, exact)[0]


def _rows(losses: Tensor, row: Tensor, rank: Tensor, count: Tensor, alpha: float, exact: bool) -> Tensor:
    """Return the CVaR of each row (n,): of the losses in it, which have ranks 0, 1, ... from the worst down."""
    none, count = torch.zeros_like(losses), count.clamp_min(1)
    k = alpha * count[row]
    if exact:
        return none.index_add(0, row, losses * ((k - rank).clamp(0, 1) / k))
    whole = (k + 1e-4).floor()  # alpha n may miss a whole number by rounding
    at = rank == whole.clamp(max=count[row] - 1)
    eta = none.index_add(0, row, torch.where(at, losses.detach(), 0.0))
    # a search never quite reaches the largest loss from below; where eta is the smallest, it ends below it in 28 of 40
    # groups of the golden numbers, and in the middle on either side
    above = (rank < whole.clamp_min(1)) | (k > count[row] - 1 + 1e-4)
    return eta + none.index_add(0, row, above / k * (losses - eta[row]))


def _smooth(losses: Tensor, present: Tensor, alpha: float, tau1: float, tau2: float) -> Tensor:
    """Return PG-FDD's outer level of the losses (n,) of the rows that are present."""
    share = present / (alpha * present.sum())
    with torch.no_grad():
        top = torch.where(present, losses, -torch.inf).max()
        below = torch.where(present, losses - top, -torch.inf)
        # eta = top - x; the objective is convex, so x is where its slope changes sign: 4 times the 64th part
        x, width = torch.zeros_like(top), tau1 * LOG_MAX
        for _ in range(4):
            step = width / 64
            tries = x + step * torch.arange(1, 65, device=x.device)
            slope = 1 + tau2 / alpha * (top - tries) - (share * ((below + tries[:, None]) / tau1).sigmoid()).sum(1)
            x, width = x + step * (slope > 0).sum().clamp_max(63), step
        eta = top - x
    soft = tau1 * torch.nn.functional.softplus((losses - eta) / tau1)
    return eta + tau2 / (2 * alpha) * eta**2 + (share * torch.where(present, soft, 0.0)).sum()


def gather_over_ranks(losses: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return losses and groups (n,) of all ranks, in the order of ranks, so that a group may span them.

    Gradients flow to this rank's losses, times the number of ranks, which DDP divides by again. Ranks may hold
    different numbers; one small wait for the device tells them. Without ranks both come back as they are.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and torch.is_grad_enabled()):
        return losses, groups
    world, rank = dist.get_world_size(), dist.get_rank()
    held = [torch.zeros(1, dtype=torch.long, device=losses.device) for _ in range(world)]
    dist.all_gather(held, torch.tensor([len(losses)], device=losses.device))
    sizes = torch.cat(held).tolist()
    room = torch.zeros(2, max(sizes), dtype=torch.float64, device=losses.device)
    room[0, : len(losses)], room[1, : len(losses)] = losses.detach().double(), groups.double()
    rooms = [torch.zeros_like(room) for _ in range(world)]
    dist.all_gather(rooms, room)
    all_losses = [r[0, :size].to(losses.dtype) for r, size in zip(rooms, sizes, strict=True)]
    all_losses[rank] = losses.detach() + world * (losses - losses.detach())
    return torch.cat(all_losses), torch.cat([r[1, :s].to(groups.dtype) for r, s in zip(rooms, sizes, strict=True)])


def _check(losses: Tensor, alpha: float) -> None:
    if losses.ndim != 1 or not len(losses):
        raise UserError(f"CVaR is of losses (n,), n at least 1; got {tuple(losses.shape)}")
    if not 0 < alpha <= 1:
        raise UserError(f"CVaR takes the worst share alpha of the losses, over 0 and at most 1; got {alpha}")
