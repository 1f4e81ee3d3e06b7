"""Tuned: what is trained, the published counts, UnivFD's head, Effort's decomposition, GenD's losses."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dfl import detectors
from dfl.detectors import Tuned
from dfl.errors import UserError
from dfl.networks import without_weights
from dfl.networks.svd import SvdLinear, last_directions

GOLDEN = Path(__file__).parents[1] / "golden" / "univfd.npz"
SMALL: dict[str, Any] = {"backbone": "test_vit", "pretrained": False, "input_size": 32}


def trained(detector: Tuned) -> dict[str, int]:
    """Return how many weights are trained in the backbone and in the last layer."""
    sizes = {name: p.numel() for name, p in detector.network.named_parameters() if p.requires_grad}
    head = sum(size for name, size in sizes.items() if name.startswith("head."))
    return {"head": head, "rest": sum(sizes.values()) - head}


@pytest.mark.parametrize(
    ("words", "head", "rest"),
    [
        ({"projection": True, "timm_args": {"num_classes": 1}}, 769, 0),  # UnivFD
        ({"tune": "layernorm"}, 2_050, 102_400),  # GenD: 0.03 % of the tower
        ({"tune": "svd"}, 2_050, 24 * 4 * (1024 + 1 + 1024)),  # Effort: about 0.19 million
        ({"tune": "lora", "rank": 8, "alpha": 1, "targets": ("qkv", "proj", "fc1", "fc2")}, 2_050, 3_145_728),
    ],
)
def test_counts_of_clip_l14(words: dict[str, Any], head: int, rest: int) -> None:
    with torch.device("meta"), without_weights():
        detector = Tuned(**words)
    assert trained(detector) == {"head": head, "rest": rest}
    frozen = {p.numel() for n, p in detector.network.named_parameters() if n.startswith("projection.weight")}
    assert frozen == ({768 * 1024} if "projection" in words else set())


@pytest.mark.parametrize("tune", ["linear", "layernorm", "svd", "lora"])
def test_only_what_is_named_moves(tune: Any) -> None:
    detector = Tuned(**SMALL, tune=tune)
    start = {name: value.clone() for name, value in detector.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=1.0)
    image, batch = torch.rand(4, 3, 32, 32), {"label": torch.tensor([0, 1, 0, 1])}
    for _ in range(2):
        optimizer.zero_grad()
        detector.loss(detector(image), batch)["loss"].backward()
        optimizer.step()
    moved = {n for n, v in detector.state_dict().items() if n != "threshold" and not torch.equal(v, start[n])}
    assert moved
    ends = {
        "linear": (),
        "layernorm": (".norm1.weight", ".norm1.bias", ".norm2.weight", ".norm2.bias", "k.norm.weight", "k.norm.bias"),
        "svd": (".u", ".s", ".v"),
        "lora": ("lora_A.default.weight", "lora_B.default.weight"),
    }[tune]
    assert all(name.startswith("network.head.") or name.endswith(ends) for name in moved)


# UnivFD


def published(path: str) -> dict[str, torch.Tensor]:
    """Write a head as UnivFD publishes it, and return it."""
    golden = np.load(GOLDEN)
    head = {"weight": torch.tensor(golden["weight"]), "bias": torch.tensor(golden["bias"])}
    torch.save(head, path)
    return head


def with_projection(**words: Any) -> Tuned:
    """A small ViT whose last layer, of 768 outputs, is the projection."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfl.detectors.classifier.projection_width", lambda name: 768)
        return Tuned(**SMALL, projection=True, timm_args={"num_classes": 1}, **words).eval()


def test_golden_logits_of_the_published_head() -> None:
    published("fc_weights.pth")
    golden, detector = np.load(GOLDEN), with_projection(head_weights="fc_weights.pth")
    logit = detector.network.head(torch.tensor(golden["feature"]))[:, 0]
    torch.testing.assert_close(logit, torch.tensor(golden["logit"]), rtol=0, atol=1e-5)
    image = torch.rand(3, 3, 32, 32)
    out = detector(image)
    feature = F.linear(plain(detector, image), detector.network.projection.weight, detector.network.projection.bias)
    torch.testing.assert_close(out["feature"], feature)  # not of unit length
    torch.testing.assert_close(out["logit"], detector.network.head(feature)[:, 0])


def plain(detector: Tuned, image: torch.Tensor) -> torch.Tensor:
    network = detector.network
    return network.forward_head(network.forward_features(detector.normalize(image)), pre_logits=True)


def test_a_head_that_does_not_fit_or_is_not_there_is_one_line() -> None:
    published("fc_weights.pth")
    with pytest.raises(UserError, match=r"fc_weights.pth does not fit .* 2 of another shape \(bias, weight\)"):
        Tuned(**SMALL, head_weights="fc_weights.pth")
    with pytest.raises(UserError, match="no weights file 'none.pth'"):
        Tuned(**SMALL, head_weights="none.pth")


def test_a_head_starts_as_wide_as_it_is_told() -> None:
    detector = with_projection(head_std=0.02)
    assert 0.018 < float(detector.network.head.weight.detach().std()) < 0.022
    assert float(with_projection().network.head.weight.detach().abs().max()) <= 768**-0.5


def test_a_checkpoint_leaves_the_frozen_tower_out(tmp_path: Path) -> None:
    save_file(timm.create_model("test_vit").state_dict(), "tower.safetensors")
    words: dict[str, Any] = {"backbone": "test_vit", "weights": "tower.safetensors", "projection": True}
    detector = Tuned(**words)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(detector)
    trainer.save_checkpoint("a.ckpt")
    held = torch.load("a.ckpt", weights_only=True)
    assert held["state_dict"].keys() == {"threshold", "network.head.weight", "network.head.bias"}
    again = detectors.load("a.ckpt", weights="tower.safetensors")
    image = torch.rand(2, 3, again.input_size, again.input_size)
    assert torch.equal(again(image)["logit"], detector.eval()(image)["logit"])


# Effort


@pytest.mark.parametrize("matrices", [1, 3])
def test_svd_starts_as_the_layer_was_and_moves_its_last_directions(matrices: int) -> None:
    layer = torch.nn.Linear(40, 40 * matrices)
    weight, x = layer.weight.detach().clone(), torch.randn(2, 5, 40)
    before = layer(x)
    tuned = SvdLinear(layer, 2, matrices)
    assert torch.equal(tuned(x), before)
    with torch.no_grad():
        tuned.s.zero_()
    rest = tuned(x) - tuned.bias
    u, s, vh = torch.linalg.svd(weight.double().unflatten(0, (matrices, 40)))
    kept = (u[..., :-2] * s[:, None, :-2] @ vh[:, :-2]).flatten(0, 1).float()  # the first 38 directions, frozen
    torch.testing.assert_close(rest, x @ kept.T, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tuned.start_s.double(), s[:, -2:], rtol=1e-4, atol=1e-6)


def test_svd_of_odd_matrices_is_that_of_lapack() -> None:
    generator = torch.Generator().manual_seed(1)
    for shape, rank in (((64, 64), 3), ((30, 50), 2), ((50, 30), 1), ((6, 6), 2)):
        matrix = torch.randn(shape, generator=generator, dtype=torch.float64)
        u, s, v = last_directions(matrix, rank)
        torch.testing.assert_close(s, torch.linalg.svdvals(matrix)[-rank:], rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(matrix @ v, u * s, rtol=1e-6, atol=1e-8)
    matrix = torch.ones(20, 20, dtype=torch.float64)  # of rank 1
    u, s, v = last_directions(matrix, 1)
    assert float(s) < 1e-9


def test_svd_resumes_on_a_tower_that_the_checkpoint_leaves_out() -> None:
    save_file(timm.create_model("test_vit").state_dict(), "tower.safetensors")
    detector = Tuned("test_vit", weights="tower.safetensors", tune="svd")
    with torch.no_grad():
        for name, value in detector.named_parameters():
            if name.endswith((".u", ".s", ".v")):
                value.add_(0.1)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(detector)
    trainer.save_checkpoint("a.ckpt")
    again = detectors.load("a.ckpt", weights="tower.safetensors").state_dict()
    assert all(n == "threshold" or torch.equal(value, again[n]) for n, value in detector.state_dict().items())


# GenD


def test_features_of_unit_length() -> None:
    detector = Tuned(**SMALL, tune="layernorm", unit_length=True).eval()
    out = detector(torch.rand(3, 3, 32, 32))
    torch.testing.assert_close(out["feature"].norm(dim=1), torch.ones(3))
    torch.testing.assert_close(out["logits"], detector.network.head(out["feature"]))


# mistakes


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"tune": "linear", "rank": 4}, "rank and targets are of tune: lora and svd, not of linear"),
        ({"tune": "layernorm", "targets": ("qkv",)}, "not of layernorm"),
        ({"tune": "svd", "rank": 64}, "has 64 singular directions: take 1 to 63"),
        ({"tune": "svd", "targets": ("query",)}, "no linear layer is named 'query'"),
        ({"tune": "layernorm", "backbone": "test_resnet"}, "the backbone has no LayerNorm"),
        ({"backbone": "micro_none"}, "timm has no model 'micro_none'"),
    ],
)
def test_what_contradicts_itself_is_one_line(words: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Tuned(**SMALL | words)


def test_a_backbone_without_a_projection_is_one_line() -> None:
    with pytest.raises(UserError, match="vit_small_patch14_dinov2 has no pretrained last layer"):
        Tuned("vit_small_patch14_dinov2", pretrained=False, projection=True)
