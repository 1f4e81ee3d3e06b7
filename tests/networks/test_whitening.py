"""Whitening: every direction of a patch comes out equally loud, and none of them is another's shadow."""

import torch
from torch import nn

from dfl.networks import whiten_patch_embed


def pictures(n: int = 64) -> torch.Tensor:
    """Smooth noise: strong slow changes, weak fast ones, and a mean."""
    g = torch.Generator().manual_seed(0)
    return 0.3 + nn.functional.avg_pool2d(torch.randn(n, 3, 36, 36, generator=g), 5, 1)


def responses(conv: nn.Conv2d, image: torch.Tensor) -> torch.Tensor:
    return conv(image).flatten(2).transpose(1, 2).reshape(-1, conv.out_channels).detach()


def test_outputs_are_white() -> None:
    conv, image = nn.Conv2d(3, 12, 2, stride=2), pictures()
    whiten_patch_embed(conv, image, noise=0.0)
    out = responses(conv, image)
    torch.testing.assert_close(out.mean(0), torch.zeros(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.cov(out.T), torch.eye(12), atol=5e-3, rtol=0)


def test_fewer_outputs_take_the_strongest_directions_and_more_stay() -> None:
    image = pictures()
    few, all_, more = (nn.Conv2d(3, k, 2, stride=2) for k in (4, 12, 20))
    left = more.weight[12:].detach().clone()
    for conv in (few, all_, more):
        whiten_patch_embed(conv, image)
    assert torch.equal(few.weight, all_.weight[:4])
    assert torch.equal(more.weight[12:], left)
    strength = 1 / all_.weight.flatten(1).norm(dim=1)
    assert (strength[:-1] >= strength[1:] - 1e-4).all()
