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
        flat, exact = losses.detach().float(), outer == "exact"
        # sorted by group, and in each group the worst first
        order = flat.argsort(descending=True, stable=True)
        order = order.index_select(0, groups.index_select(0, order).argsort(stable=True))
        groups = groups.index_select(0, order)
        # a group is named by the place of its first loss, so that no number of groups waits for the device
        row = torch.searchsorted(groups, groups)
        place, ones = torch.arange(len(flat), device=flat.device), torch.ones_like(flat)
        count = torch.zeros_like(flat).index_add_(0, row, ones)
        loss, inner = _rows(flat.index_select(0, order), row, (place - row).float(), count, alpha_inner, exact)
        loss = loss.masked_fill_(count == 0, -torch.inf)
        if outer == "official":
            value, weight = _smooth(loss, count.clamp_(max=1), alpha_outer, tau1, tau2)
        else:
            loss, worst = loss.sort(descending=True, stable=True)
            absent = loss.isneginf().long()
            count = torch.zeros_like(flat).index_add_(0, absent, ones)
            values, spread = _rows(loss.masked_fill_(absent > 0, 0), absent, place.float(), count, alpha_outer, exact)
            value, weight = values[0], torch.zeros_like(spread).scatter_(0, worst, spread)
        weight = torch.empty_like(inner).scatter_(0, order, inner.mul_(weight.index_select(0, row)))
    return value + weight.dot(losses.float() - flat)


def _rows(losses: Tensor, row: Tensor, rank: Tensor, count: Tensor, alpha: float, exact: bool) -> tuple[Tensor, Tensor]:
    """Return the CVaR of each row (n,), and the weight of each loss in it.

    The losses (n,) of a row, which has ``count`` of them, have ranks 0, 1, ... from the worst down.
    """
    size, none = count.index_select(0, row), torch.zeros_like(losses)
    k = alpha * size
    if exact:
        weight = (k - rank).clamp_(0, 1).div_(k)
        return none.index_add_(0, row, losses * weight), weight
    whole, last = (k + 1e-4).floor_(), size - 1  # alpha n may miss a whole number by rounding
    eta = none.index_add(0, row, losses * (rank == torch.minimum(whole, last)))
    # a search never quite reaches the largest loss from below; where eta is the smallest, it ends below it in 28 of 40
    # groups of the golden numbers, and in the middle on either side
    weight = ((rank < whole.clamp_min_(1)) | (k > last + 1e-4)) / k
    return none.index_add_(0, row, weight * (losses - eta.index_select(0, row))).add_(eta), weight


def _smooth(losses: Tensor, present: Tensor, alpha: float, tau1: float, tau2: float) -> tuple[Tensor, Tensor]:
    """Return PG-FDD's outer level of the losses (n,) of rows, and the weight of each.

    ``present`` is 1 for a row that is there, 0 for one that is not and has a loss of minus infinity.
    """
    share, pull = present / present.sum().mul_(alpha), tau2 / alpha
    top = losses.max()
    below = (losses - top).div_(tau1)
    # eta = top - tau1 x with x in [0, LOG_MAX]; the objective is convex, so x is where its slope changes sign, which is
    # where a sum that grows with x reaches its end: four times the 32nd part
    end, x, tries = top.mul(pull).add_(1), torch.zeros_like(top), torch.arange(1.0, 32.0, device=top.device)
    for level in range(1, 5):
        step = LOG_MAX / 32**level
        at = torch.add(x, tries, alpha=step)
        grown = (below + at[:, None]).sigmoid_().mv(share).add_(at, alpha=pull * tau1)
        x = torch.add(x, torch.searchsorted(grown, end), alpha=step)
    eta, over = torch.sub(top, x, alpha=tau1), below + x
    soft = share.dot(torch.nn.functional.softplus(over))
    return torch.addcmul(eta, eta, eta, value=pull / 2).add_(soft, alpha=tau1), over.sigmoid_().mul_(share)


def gather_over_ranks(values: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return values (n,) or (n, D) and groups (n,) of all ranks, in the order of ranks, so that a group may span them.

    Gradients flow to this rank's values, times the number of ranks, which DDP divides by again. Ranks may hold
    different numbers; one small wait for the device tells them. Without ranks both come back as they are.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1 and torch.is_grad_enabled()):
        return values, groups
    world, rank = dist.get_world_size(), dist.get_rank()
    counts = [torch.zeros(1, dtype=torch.long, device=values.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(values)], device=values.device))
    sizes = torch.cat(counts).tolist()
    mine = torch.cat([values.detach()[:, None].flatten(1).double(), groups[:, None].double()], 1)
    room = mine.new_zeros(max(sizes), mine.shape[1])
    room[: len(mine)] = mine
    rooms = [torch.zeros_like(room) for _ in range(world)]
    dist.all_gather(rooms, room)
    whole = [r[:size] for r, size in zip(rooms, sizes, strict=True)]
    all_values = [r[:, :-1].to(values.dtype).reshape(-1, *values.shape[1:]) for r in whole]
    all_values[rank] = values.detach() + world * (values - values.detach())
    return torch.cat(all_values), torch.cat([r[:, -1].to(groups.dtype) for r in whole])


def _check(losses: Tensor, alpha: float) -> None:
    if losses.ndim != 1 or not len(losses):
        raise UserError(f"CVaR is of losses (n,), n at least 1; got {tuple(losses.shape)}")
    if not 0 < alpha <= 1:
        raise UserError(f"CVaR takes the worst share alpha of the losses, over 0 and at most 1; got {alpha}")
