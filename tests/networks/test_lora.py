"""LoRA's identities: it starts as the network, trains only what it should, and merges to the same outputs."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from dfl.errors import UserError
from dfl.networks import add_lora, merge_lora

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "vit_lora.npz")


def small_vit() -> torch.nn.Module:
    return timm.models.VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=2, num_heads=4, num_classes=2)


def test_equals_a_merge_by_hand() -> None:
    vit = small_vit()
    vit.load_state_dict({k[5:]: torch.tensor(GOLDEN[k]) for k in GOLDEN.files if k.startswith("base.")})
    add_lora(vit, rank=4, alpha=8, dropout=0.0).eval()
    x = torch.tensor(GOLDEN["x"])
    torch.testing.assert_close(vit(x).detach().numpy(), GOLDEN["logits_init"], rtol=1e-5, atol=1e-5)
    state = {k[5:]: torch.tensor(GOLDEN[k]) for k in GOLDEN.files if k.startswith("lora.")}
    missing = vit.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    torch.testing.assert_close(vit(x).detach().numpy(), GOLDEN["logits"], rtol=1e-5, atol=1e-5)
    feature = vit.forward_head(vit.forward_features(x), pre_logits=True)
    torch.testing.assert_close(feature.detach().numpy(), GOLDEN["pre_logits"], rtol=1e-5, atol=1e-5)
    merged = merge_lora(vit)
    assert not [n for n, _ in merged.named_parameters() if "lora" in n]
    assert merged.state_dict().keys() == small_vit().state_dict().keys()
    torch.testing.assert_close(merged(x), vit(x), rtol=1e-5, atol=1e-5)


def test_a_step_changes_only_what_is_trained() -> None:
    vit = add_lora(small_vit(), rank=2, train_also=["norm.*"])
    before = {n: p.detach().clone() for n, p in vit.named_parameters()}
    optimizer = torch.optim.SGD([p for p in vit.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # B starts at zero, so A moves from the second step on
        vit(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    changed = {n for n, p in vit.named_parameters() if not torch.equal(p, before[n])}
    assert changed == {n for n in before if "lora_" in n or n.startswith("norm.")}


@pytest.mark.parametrize(
    ("words", "says"),
    [({"targets": ["query"]}, "no linear layer is named 'query'"), ({"train_also": ["stem*"]}, "'stem*'")],
)
def test_names_that_meet_nothing_are_errors(words: dict[str, list[str]], says: str) -> None:
    with pytest.raises(UserError, match=says.replace("*", r"\*")):
        add_lora(small_vit(), **words)
