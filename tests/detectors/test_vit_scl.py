"""VitScl: the published parameter counts, and small checkpoints that know their backbone."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import timm
import torch
from safetensors.torch import save_file

from dfl import detectors
from dfl.detectors import Classifier, VitScl
from dfl.errors import UserError
from dfl.losses import SingleCenter
from dfl.networks import without_weights


def counts(detector: VitScl) -> tuple[int, int]:
    parameters = list(detector.network.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


def test_parameter_counts() -> None:
    """The seed's 589,824 of 87,157,480 keep the head of 1,000 classes; the two-way head adds its own 1,538."""
    with torch.device("meta"), without_weights():
        assert counts(VitScl(head="frozen")) == (589_824, 87_157_480)
        assert counts(VitScl()) == (591_362, 86_391_556 - 1_538)


def test_original_reads_classes_0_and_1_of_the_frozen_head() -> None:
    detector = VitScl("test_vit", pretrained=False, head="frozen", criterion=SingleCenter(feature="logits")).eval()
    out = detector(torch.randn(3, 3, detector.input_size, detector.input_size))
    assert out["logits"].shape == (3, 1000)
    assert torch.equal(out["logit"], out["logits"][:, 1] - out["logits"][:, 0])
    assert detector.criterion.center.shape == (1000,)


def test_merged_network_gives_the_same_outputs() -> None:
    detector = VitScl("test_vit", pretrained=False).eval()
    for name, p in detector.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    image = torch.randn(2, 3, detector.input_size, detector.input_size)
    merged = detector.merged()
    assert merged.state_dict().keys() == Classifier("test_vit", pretrained=False).state_dict().keys()
    torch.testing.assert_close(merged(image)["logits"], detector(image)["logits"])


def save(detector: VitScl, path: Path) -> Path:
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(detector)
    trainer.save_checkpoint(path)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> str:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    return str(tmp_path / "w.safetensors")


def test_checkpoint_holds_only_what_was_trained(tmp_path: Path, weights: str) -> None:
    detector = VitScl("test_vit", weights=weights)
    file = save(detector, tmp_path / "a.ckpt")
    held = torch.load(file, weights_only=True)
    assert {k for k in held["state_dict"] if k != "threshold"} == {
        n for n, p in detector.named_parameters() if p.requires_grad
    }
    with pytest.raises(UserError, match="not those frozen weights: give weights"):
        detectors.load(file)  # the file names where they lie, and is not followed
    again = detectors.load(file, weights=weights)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in detector.state_dict().items() if k != "threshold")


def test_checkpoint_refuses_another_backbone(tmp_path: Path, weights: str) -> None:
    file = save(VitScl("test_vit", weights=weights), tmp_path / "a.ckpt")
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="this backbone is another one"):
        detectors.load(file, weights=str(tmp_path / "other.safetensors"))


def test_checkpoint_of_a_random_backbone_is_whole(tmp_path: Path) -> None:
    detector = VitScl("test_vit", pretrained=False)
    file = save(detector, tmp_path / "a.ckpt")
    assert torch.load(file, weights_only=True)["state_dict"].keys() == detector.state_dict().keys()
    assert torch.equal(detectors.load(file).network.norm.weight, detector.network.norm.weight)
