"""PG-FDD against a direct transcription of its published step: CVaR, training step and inference.

The transcription searches each eta by Brent's method with a wait at each try, decodes four times a pass, steps SAM
parameter by parameter, keeps NCHW, and tests with all three encoders. Both compute the same losses, which is checked.
Steps are timed on one thread by processor time, since they are long and machines are shared.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from scipy.optimize import fminbound
from torch import Tensor

from dfl.detectors import FairDisentangle
from dfl.detectors.disentangle.losses import contrastive_triplets, ldam
from dfl.losses import bilevel_cvar
from tests.bench.timing import in_turns

PAIRS, SIDE = 2, 128
TAU1, TAU2 = 1e-3, 1e-4
LARGEST = torch.finfo(torch.float32).max


def searched(objective: Callable[[float], Tensor], losses: Tensor) -> float:
    """Find eta as the published codes do."""

    def value(eta: float) -> float:
        found = objective(eta).item()
        return found if found < LARGEST else LARGEST

    low, high = losses.min().item() - 1000, losses.max().item()
    return float(fminbound(value, low, high))


def transcribed_cvar(losses: Tensor, groups: Tensor, inner: float = 0.9, outer: float = 0.5) -> Tensor:
    """Return PG-FDD's fairness loss with a search for each eta."""
    found = []
    for group in groups.unique():
        own = losses[groups == group]

        def plain(eta: float, own: Tensor = own) -> Tensor:
            return eta + (own - eta).relu().mean() / inner

        with torch.no_grad():
            eta = searched(plain, own)
        found.append(plain(eta))
    rows = torch.stack(found)

    def smooth(eta: float) -> Tensor:
        soft = TAU1 * torch.log(1 + torch.exp((rows - eta) / TAU1))
        return eta + TAU2 / (2 * outer) * eta**2 + soft.relu().mean() / outer

    with torch.no_grad():
        eta = searched(smooth, rows)
    return smooth(eta)


def transcribed_loss(model: FairDisentangle, batch: dict[str, Tensor], perms: dict[str, Tensor]) -> Tensor:
    """Return the sum of all losses of a batch [reals..., fakes...], term by term."""
    image, label, method, group = (batch[k] for k in ("image", "label", "generator", "group"))
    p = len(image) // 2
    forgery, content, everyone = model.encoder_f(image), model.encoder_c(image), model.encoder_fair(image)
    specific, common, mine = model.block_spe(forgery), model.block_sha(forgery), model.block_fair(everyone)
    content = adain(everyone, content)
    told = torch.cat([specific, common], 1)
    (common_logits, pooled), (specific_logits, pooled_specific) = model.head_sha(common), model.head_spe(specific)
    (group_logits, _), (logits, _) = model.head_fair(mine), model.head_fused(adain(mine, common))
    real, fake = slice(0, p), slice(p, 2 * p)
    distance = sum(
        (model.con_gan(told[a], content[b]) - image[b]).abs().mean()
        for a, b in ((fake, fake), (real, real), (fake, real), (real, fake))
    )
    shuffles = (perms["perm_real"], perms["perm_fake"], perms["perm_specific"])
    return (
        F.cross_entropy(common_logits, label)
        + 0.1 * F.cross_entropy(specific_logits, method)
        + 0.3 * distance
        + 0.05 * contrastive_triplets(pooled, pooled_specific, 3.0, *shuffles)
        + 0.1 * ldam(group_logits, group, model.group_counts)
        + transcribed_cvar(F.cross_entropy(logits, label, reduction="none"), group)
    )


def adain(x: Tensor, y: Tensor, eps: float = 1e-5) -> Tensor:
    """Return x with y's statistics, in the published order of operations."""
    n, c = x.shape[:2]
    mean_x, mean_y = (t.view(n, c, -1).mean(2).view(n, c, 1, 1).expand(x.size()) for t in (x, y))
    sd_x, sd_y = ((t.view(n, c, -1).var(2) + eps).sqrt().view(n, c, 1, 1).expand(x.size()) for t in (x, y))
    return (x - mean_x) / sd_x * sd_y + mean_y


def sam_step(model: FairDisentangle, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """Take one step of SAM as published."""
    optimizer.zero_grad()
    loss().backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    norm = torch.stack([p.grad.norm() for p in parameters]).norm()
    kept = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for p in parameters:
            p.add_(p.grad * (0.05 / (norm + 1e-12)))
    optimizer.zero_grad()
    loss().backward()
    with torch.no_grad():
        for p, before in zip(parameters, kept, strict=True):
            p.copy_(before)
    optimizer.step()


def build() -> FairDisentangle:
    torch.manual_seed(0)
    model = FairDisentangle(pretrained=False, dropout=0.0)
    model.con_gan.dropout.p = 0.0  # so that both ways compute the same
    return model.train()


def main() -> dict[str, float]:
    """Print and return the three ratios."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure()
    finally:
        torch.set_num_threads(threads)


def measure() -> dict[str, float]:
    """Print and return the three ratios, of one thread."""
    g = torch.Generator().manual_seed(0)
    losses, groups = torch.rand(128, generator=g) * 2, torch.randint(0, 8, (128,), generator=g)
    theirs, ours_loss = transcribed_cvar(losses, groups), bilevel_cvar(losses, groups, outer="official")
    assert abs(theirs - ours_loss) < 1e-5, (theirs, ours_loss)

    def backward(calls: int, function: Callable[..., Tensor], **words: str) -> Callable[[], None]:
        leaf = losses.clone().requires_grad_()

        def way() -> None:
            for _ in range(calls):
                function(leaf, groups, **words).backward()

        return way

    # calls in a row, as timeit makes them; a single one after a search finds its code out of the caches
    ratios, told = {}, {}
    for name, calls in {"cvar": 20, "cvar_alone": 1}.items():
        ways = {"search": backward(calls, transcribed_cvar), "ours": backward(calls, bilevel_cvar, outer="official")}
        seconds = in_turns(ways, rounds=15, clock=time.process_time)
        ratios[name] = seconds["search"] / seconds["ours"]
        told[name] = f"{1e3 * seconds['ours'] / calls:.2f} and {1e3 * seconds['search'] / calls:.1f} ms"
    print(
        f"fair CVaR, batch 128, 8 groups, forward and backward, closed form and Brent's search: {told['cvar']}, "
        f"{ratios['cvar']:.1f}x (goal 20x); calls one at a time {told['cvar_alone']}, {ratios['cvar_alone']:.1f}x"
    )

    n = 2 * PAIRS
    label = (torch.arange(n) >= PAIRS).long()
    image = torch.randn(n, 3, SIDE, SIDE, generator=g)
    batch = {"image": image, "label": label, "generator": label, "group": torch.arange(n) % 2}
    bare, ours = build(), build().to(memory_format=torch.channels_last)
    perms = ours.draw(label)
    ours.draw = lambda method: perms  # type: ignore[method-assign]
    sgd = torch.optim.SGD(bare.parameters(), lr=5e-4, momentum=0.9, weight_decay=5e-3)
    sam = ours.configure_optimizers()
    fast = batch | {"image": image.contiguous(memory_format=torch.channels_last)}

    def loss() -> Tensor:
        return ours.loss(ours(fast["image"]), fast)["loss"]

    def closure() -> None:
        sam.zero_grad()
        loss().backward()

    first, same = transcribed_loss(bare, batch, perms), loss()
    assert abs(first - same) < 1e-3, (first, same)
    ways = {
        "bare": lambda: sam_step(bare, sgd, lambda: transcribed_loss(bare, batch, perms)),
        "ours": lambda: sam.step(closure),
    }
    seconds = in_turns(ways, rounds=3, clock=time.process_time)
    ratios["train"] = seconds["bare"] / seconds["ours"]
    bare.eval()
    ours.eval()
    with torch.no_grad():
        ways = {"bare": lambda: bare.encode(image), "ours": lambda: ours(fast["image"])}
        inference = in_turns(ways, rounds=5, clock=time.process_time)
    ratios["infer"] = inference["bare"] / inference["ours"]
    print(
        f"fair step: ours {seconds['ours']:.2f} s, transcription {seconds['bare']:.2f} s, 3 Xceptions, {PAIRS} pairs "
        f"of {SIDE} px, SAM, processor time of one thread, {ratios['train']:.2f}x (goal 1.3x)\n"
        f"fair inference: ours {inference['ours']:.2f} s, three encoders {inference['bare']:.2f} s, "
        f"{ratios['infer']:.2f}x (goal 2.5x)"
    )
    return ratios


if __name__ == "__main__":
    main()
