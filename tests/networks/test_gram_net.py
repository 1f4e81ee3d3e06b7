"""Gram-Net: the published code's block and whole network, its files, and what of ImageNet's it starts from."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from dfl.detectors import Classifier
from dfl.detectors.untrained import untrained
from dfl.networks import create_backbone
from dfl.networks.zoo.gram_net import GramBlock, gram

GOLDEN = dict(np.load(Path(__file__).parents[1] / "golden" / "gramnet.npz"))


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


def test_block_is_the_published_one() -> None:
    block = GramBlock(64).eval()
    layers = {"align": block.align, "fc1": block.texture[0], "fc2": block.texture[1]}
    for name, layer in layers.items():
        layer[0].weight.data = golden(f"block_{name}_conv")
        for word in ("weight", "bias", "running_mean", "running_var"):
            getattr(layer[1], word).data = golden(f"block_{name}_bn_{word}")
    with torch.no_grad():
        torch.testing.assert_close(block.align(golden("block_in")), golden("block_align"), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(block(golden("block_in")), golden("block_out"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gram(golden("block_align")), golden("block_gram"), atol=1e-6, rtol=1e-5)


def test_gram_matrix_does_not_know_where_things_are() -> None:
    x = torch.randn(2, 5, 4, 6)
    moved = x.flatten(2)[:, :, torch.randperm(24)].view_as(x)
    torch.testing.assert_close(gram(moved), gram(x))
    assert gram(x.to(torch.bfloat16)).dtype == torch.float32


def official_file(path: Path) -> Path:
    """Write a file in the published names, filled by the formula that the golden outputs are of."""
    model = timm.create_model("gramnet_resnet18", num_classes=2)
    own, state = model.state_dict(), {}
    for index, name in enumerate(word.decode() for word in GOLDEN["names"]):
        head = {"fcnewr.3.weight": torch.zeros(2, 512), "fcnewr.3.bias": torch.zeros(2)}
        (ours,) = model.from_released({name: torch.zeros(2, 2)} | head, "").keys() - {"fc.weight", "fc.bias"} or [
            name.replace("fcnewr.3", "fc")
        ]
        shape = own[ours].shape
        wave = torch.sin(0.37 * torch.arange(own[ours].numel(), dtype=torch.float64) + index).view(shape)
        if name.endswith("running_var"):
            value = 1 + 0.5 * wave
        elif name.endswith("running_mean"):
            value = 0.1 * wave
        elif name == "scale.scale":
            value = torch.full(shape, 1.5)
        elif len(shape) == 1:
            value = 1 + 0.25 * wave if name.endswith("weight") else 0.05 * wave
        else:
            value = wave * (2 / (wave.numel() / len(wave))) ** 0.5
        state[name] = value.float()
    torch.save(state, path)
    return path


def test_a_published_file_gives_the_published_numbers_with_its_classes_turned_round(tmp_path: Path) -> None:
    file = str(official_file(tmp_path / "stylegan-ffhq.pth"))
    detector = Classifier(backbone="gramnet_resnet18_bgr255", weights=file, input_size=64).eval()
    assert untrained(detector) == []
    image = golden("input_bgr").flip(1) / 255  # red first, in [0, 1], as a detector gets it
    with torch.no_grad():
        out = detector(image)
        features = detector.network.forward_features(detector.normalize(image))
    fake_and_real = out["logits"].log_softmax(1).flip(1)
    torch.testing.assert_close(fake_and_real, golden("logp"), atol=1e-5, rtol=1e-5)
    for block, name in enumerate(("gi_fc2", "g0_fc2", "g_fc2r", "g2_fc2", "g3_fc2", "g4_fc2")):
        mine = features[:, 512 + 32 * block :][:, :32]
        torch.testing.assert_close(mine, golden(f"pooled_{name}"), atol=1e-4, rtol=1e-5)


def test_a_resnet_of_imagenet_fills_the_resnet_and_leaves_the_rest_at_random(tmp_path: Path) -> None:
    donor = timm.create_model("resnet18", num_classes=1000)
    torch.save(donor.state_dict(), tmp_path / "resnet18.pth")
    detector = Classifier(backbone="gramnet_resnet18", weights=str(tmp_path / "resnet18.pth"))
    assert torch.equal(detector.network.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    fresh = sum(p.numel() for n, p in detector.named_parameters() if n in set(untrained(detector)))
    assert fresh == 558_211  # what the paper adds


@pytest.mark.parametrize("size", [32, 48])
def test_images_of_any_size(size: int) -> None:
    model = create_backbone("gramnet_resnet18", pretrained=False, num_classes=1).eval()
    assert model(torch.rand(2, 3, size, size + 16)).shape == (2, 1)
    assert isinstance(create_backbone("gramnet_resnet18", pretrained=False, num_classes=0).fc, nn.Identity)
