"""The fusion: the published one is dead, ours is not."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.detectors.sida.masks import SidaFusion

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "sida.npz")


def test_official_equals_the_official_code() -> None:
    fusion = SidaFusion(32, mode="official")
    names = {"in_proj_weight": "attention.in_proj_weight", "in_proj_bias": "attention.in_proj_bias"}
    names |= {f"out_proj.{k}": f"attention.out_proj.{k}" for k in ("weight", "bias")}
    names |= {f"fc_{k}": f"project.{k}" for k in ("weight", "bias")}
    fusion.load_state_dict({ours: torch.from_numpy(GOLDEN[f"fusion/{theirs}"]) for theirs, ours in names.items()})
    out = fusion(*(torch.from_numpy(GOLDEN[f"fusion/{k}"]) for k in ("class_logit", "seg")))
    torch.testing.assert_close(out, torch.from_numpy(GOLDEN["fusion/out"]), rtol=1e-5, atol=1e-6)


def test_official_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    # on some processors the backward pass of the fused kernel gives 1e-7 here
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", None)
    fusion, kind = SidaFusion(32, mode="official"), torch.randn(4, 3, requires_grad=True)
    seg = torch.randn(4, 32)
    fusion(kind, seg).square().sum().backward()
    assert kind.grad.abs().max() == 0
    assert fusion.project.weight.grad.abs().max() == 0
    asks_and_keys, values = fusion.attention.in_proj_weight.grad.split((64, 32))
    assert asks_and_keys.abs().max() == 0
    assert values.abs().max() > 0
    torch.testing.assert_close(fusion(kind, seg), fusion(-kind, seg))


def test_two_keys_let_the_class_in() -> None:
    fusion, kind = SidaFusion(32), torch.randn(4, 3, requires_grad=True)
    seg = torch.randn(4, 32)
    fusion(kind, seg).square().sum().backward()
    assert (kind.grad.abs().amax(1) > 0).all()
    assert all(p.grad.abs().max() > 0 for n, p in fusion.named_parameters() if "in_proj_bias" not in n)
    assert (fusion(kind, seg) - fusion(-kind, seg)).abs().max() > 1e-3
