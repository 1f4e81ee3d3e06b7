"""Mask metrics against a loop of scikit-learn over images; PatchForensics against the same cut in the whole network.

The loop is what evaluation codes of localization papers amount to; ``features_only`` is timm's way to a feature map.
"""

import numpy as np
import timm
import torch
from sklearn import metrics as sk
from torch import nn

from dfl.detectors import PatchForensics
from dfl.losses import patch_loss
from dfl.metrics.localization import counts, curves
from tests.bench.timing import in_turns


def main() -> dict[str, float]:
    """Print and return the ratios."""
    ratios = _metrics() | _network()
    goals = {"counts": 20, "curves": 3, "forward": 1.5, "step": 1.5}
    print("maps: " + ", ".join(f"{name} {value:.1f}x (goal {goals[name]})" for name, value in ratios.items()))
    return ratios


def _metrics(n: int = 16) -> dict[str, float]:
    torch.manual_seed(0)
    prob = torch.rand(n, 256, 256)
    mask = torch.rand(n, 8, 8).repeat_interleave(32, 1).repeat_interleave(32, 2) > 0.7
    pairs = [(prob[i].flatten().numpy(), mask[i].flatten().numpy()) for i in range(n)]

    def counted() -> None:
        for score, truth in pairs:
            found = score > 0.5
            sk.jaccard_score(truth, found)
            sk.accuracy_score(truth, found)
            sk.f1_score(truth, found)

    def ranked() -> None:
        for score, truth in pairs:
            sk.average_precision_score(truth, score)
            sk.roc_auc_score(truth, score)
            precision, recall, _ = sk.precision_recall_curve(truth, score)
            np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))

    seconds = in_turns(
        {
            "sk counts": counted,
            "counts": lambda: (counts(prob, mask), None)[1],
            "sk curves": ranked,
            "curves": lambda: (curves(prob, mask), None)[1],
        },
        rounds=3,
    )
    return {name: seconds[f"sk {name}"] / seconds[name] for name in ("counts", "curves")}


class _Whole(nn.Module):
    """timm's features of the whole network, and a 1 x 1 head on those after block2."""

    def __init__(self) -> None:
        super().__init__()
        self.body = timm.create_model("legacy_xception", features_only=True)
        self.head = nn.Conv2d(256, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.body(image)[2])
        return logits[:, 1] - logits[:, 0]


def _network() -> dict[str, float]:
    image, label = torch.randn(4, 3, 256, 256), torch.arange(4) % 2
    ours, whole = PatchForensics().train(), _Whole().train()
    ours.setup("fit")
    channels_last = image.to(memory_format=torch.channels_last)
    optimizers = [torch.optim.Adam(m.parameters(), 1e-3) for m in (ours, whole)]

    def forward(which: int) -> torch.Tensor:
        return whole(image) if which else ours(channels_last)["mask_logit"]

    def step(which: int) -> None:
        optimizers[which].zero_grad()
        patch_loss(forward(which), label).backward()
        optimizers[which].step()

    @torch.no_grad()
    def only(which: int) -> None:
        forward(which)

    ways = {
        "whole forward": lambda: only(1),
        "forward": lambda: only(0),
        "whole step": lambda: step(1),
        "step": lambda: step(0),
    }
    seconds = in_turns(ways, rounds=3)
    return {name: seconds[f"whole {name}"] / seconds[name] for name in ("forward", "step")}


if __name__ == "__main__":
    main()
