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
    # the loss is linear in the losses, with weights that are constants
    with torch.no_grad(), torch.autocast(losses.device.type, enabled=False):
        flat, place, exact = losses.detach().float(), torch.arange(len(losses), device=losses.device), outer == "exact"
        # sorted by group, and in each group the worst first
        order = flat.argsort(descending=True, stable=True)
        order = order[groups[order].argsort(stable=True)]
        groups = groups[order]
        # rows 0, 1, ... for the groups that are present; there are n of them, so that no size waits for the device
        row = torch.zeros_like(place)
        row[1:] = (groups[1:] != groups[:-1]).cumsum(0)
        count = torch.zeros_like(place).index_add_(0, row, torch.ones_like(place))
        rank = place - (count.cumsum(0) - count)[row]
        loss, inner = _rows(flat[order], row, rank, count, alpha_inner, exact)
        present = count > 0
        if outer == "official":
            value, weight = _smooth(loss, present, alpha_outer, tau1, tau2)
        else:
            loss, worst = torch.where(present, loss, -torch.inf).sort(descending=True, stable=True)
            absent = (place >= present.sum()).long()
            count = torch.zeros_like(place).index_add_(0, absent, torch.ones_like(place))
            found, spread = _rows(torch.where(absent > 0, 0.0, loss), absent, place, count, alpha_outer, exact)
            value, weight = found[0], torch.zeros_like(spread).scatter_(0, worst, spread)
        weight = torch.empty_like(inner).scatter_(0, order, inner * weight[row])
    return value + (weight * (losses.float() - flat)).sum()


def _rows(losses: Tensor, row: Tensor, rank: Tensor, count: Tensor, alpha: float, exact: bool) -> tuple[Tensor, Tensor]:
    """Return the CVaR of each row (n,), and the weight of each loss in it.

    The losses (n,) of a row, which has ``count`` of them, have ranks 0, 1, ... from the worst down.
    """
    size, none = count[row], torch.zeros_like(losses)
    k = alpha * size
    if exact:
        weight = (k - rank).clamp_(0, 1) / k
        return none.index_add_(0, row, losses * weight), weight
    whole = (k + 1e-4).floor()  # alpha n may miss a whole number by rounding
    eta = none.index_add(0, row, torch.where(rank == whole.clamp(max=size - 1), losses, 0.0))
    # a search never quite reaches the largest loss from below; where eta is the smallest, it ends below it in 28 of 40
    # groups of the golden numbers, and in the middle on either side
    weight = ((rank < whole.clamp_min(1)) | (k > size - 1 + 1e-4)) / k
    return none.index_add_(0, row, weight * (losses - eta[row])).add_(eta), weight


def _smooth(losses: Tensor, present: Tensor, alpha: float, tau1: float, tau2: float) -> tuple[Tensor, Tensor]:
    """Return PG-FDD's outer level of the losses (n,) of the rows that are present, and the weight of each."""
    share = present / (alpha * present.sum())
    top = torch.where(present, losses, -torch.inf).max()
    below = torch.where(present, losses - top, -torch.inf) / tau1
    # eta = top - tau1 x with x in [0, LOG_MAX]; the objective is convex, so x is where its slope changes sign: four
    # times the 32nd part
    x, width, tries = torch.zeros_like(top), LOG_MAX, torch.arange(1, 33, device=losses.device) / 32
    for _ in range(4):
        at = x + width * tries
        slope = 1 + tau2 / alpha * (top - tau1 * at) - (below + at[:, None]).sigmoid_() @ share
        width /= 32
        x = x + width * (slope > 0).sum().clamp_max(31)
    eta, over = top - tau1 * x, below + x
    soft = torch.where(present, tau1 * torch.nn.functional.softplus(over), 0.0)
    return eta + tau2 / (2 * alpha) * eta**2 + (share * soft).sum(), share * over.sigmoid()


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
