"""Re-synthesis: the published network's numbers, sizes, losses of both stages, and who is trained by what."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from dfl.detectors import Resynthesis, SuperResolution, load
from dfl.detectors.resynthesis.networks import WEIGHTS, Rdn, distance, downscaled
from dfl.errors import UserError
from dfl.networks import without_weights
from dfl.networks.vgg import Vgg

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "resynthesis_rdn.npz")
SR: dict[str, Any] = {"input_size": 32, "dim": 4, "depth": 1, "layers": 1}
SMALL = SR | {"timm_args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "stem_width": 8}}
JOINT = {"sr": "joint", "perceptual": 0.0}


def batch(n: int = 4) -> dict[str, Tensor]:
    return {"image": torch.rand(n, 3, 32, 32), "label": torch.arange(n) % 2, "weight": torch.ones(n)}


def stages(dim: int = 4) -> Vgg:
    """VGG19's layers with few channels, at random."""
    with without_weights():
        vgg = Vgg(None)
    convolutions, channels = [layer for layer in vgg.features if isinstance(layer, torch.nn.Conv2d)], 3
    for layer in convolutions:
        layer.weight = torch.nn.Parameter(torch.randn(dim, channels, 3, 3) * 0.3, requires_grad=False)
        layer.bias = torch.nn.Parameter(torch.zeros(dim), requires_grad=False)
        channels = dim
    return vgg


def test_the_network_gives_the_published_numbers() -> None:
    network = Rdn(8, 2, 3)
    network.load_state_dict({k[2:]: torch.tensor(GOLDEN[k]) for k in GOLDEN if k.startswith("w.")})
    image = torch.tensor(GOLDEN["img_u8"]).float() / 255
    small = downscaled(image)
    torch.testing.assert_close(small, torch.tensor(GOLDEN["lr"]), atol=1e-6, rtol=0)
    made = network(small)
    torch.testing.assert_close(made, torch.tensor(GOLDEN["sr"]), atol=1e-5, rtol=0)
    torch.testing.assert_close((made - image).abs(), torch.tensor(GOLDEN["residual"]), atol=1e-5, rtol=0)


def test_parameters_are_those_of_the_published_networks() -> None:
    with torch.device("meta"), without_weights():
        pixels, features = Resynthesis(), Resynthesis(stage=5, sr="joint")
    counts = [sum(p.numel() for p in part.parameters()) for part in (pixels.sr, pixels.network, features.network)]
    assert counts == [22_271_107, 23_635_906, 23_929_090]
    assert not [name for name, p in pixels.named_parameters() if p.requires_grad and name.startswith("sr.")]
    assert pixels.vgg is None  # nothing compares its features
    assert not [p for p in features.vgg.parameters() if p.requires_grad]


def test_the_classifier_has_the_published_strides() -> None:
    network = Resynthesis(**SMALL).network
    stem = (*network.conv1, network.bn1, network.act1, network.maxpool)
    x, shrunk = torch.rand(1, 3, 64, 64), []
    for layer in (*stem, network.layer1, network.layer2, network.layer3, network.layer4):
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d | torch.nn.Sequential):
            shrunk.append(64 // x.shape[-1])
    assert shrunk == [2, 4, 4, 8, 16, 32, 32, 32]
    with pytest.raises(UserError, match="deep stem"):
        Resynthesis(**SR, backbone="test_vit")


@pytest.mark.parametrize("squared", [True, False])
def test_distance_is_the_formula_of_its_stage(squared: bool) -> None:
    vgg, made, image = stages(), torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)
    found = distance(made, image, vgg, 0.2, squared)
    for i in range(3):
        error = F.mse_loss if squared else F.l1_loss
        parts = zip(WEIGHTS, vgg(made[i : i + 1]), vgg(image[i : i + 1]), strict=True)
        wanted = F.l1_loss(made[i], image[i]) + 0.2 * sum(share * error(a, b) for share, a, b in parts)
        torch.testing.assert_close(found[i], wanted)
    torch.testing.assert_close(distance(made, image, None, 0.2, squared), (made - image).abs().mean((1, 2, 3)))
    assert WEIGHTS == (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1)


def test_stage_one_learns_from_real_images_alone_and_scores_by_what_it_misses() -> None:
    detector, one = SuperResolution(**SR, perceptual=0.0), batch()
    out = detector(one["image"])
    residual = (detector.sr(F.avg_pool2d(one["image"], 4)) - one["image"]).abs().mean((1, 2, 3))
    torch.testing.assert_close(out["logit"], residual.log())
    loss = detector.loss(out, one)["loss"]
    torch.testing.assert_close(loss, residual[::2].mean())
    one["image"][1::2] = 0  # fakes change nothing
    torch.testing.assert_close(detector.loss(detector(one["image"]), one)["loss"], loss)
    assert detector.loss(out, one | {"label": torch.ones(4, dtype=torch.long)})["loss"] == 0


def test_validation_reports_the_loss_of_real_images() -> None:
    detector = SuperResolution(**SR, perceptual=0.0)
    metric = next(m for m in detector.measures if m.output == "image_loss").metric(detector, "a")
    labels = {"label": torch.tensor([0, 1, 0]), "index": torch.arange(3)}
    metric.take(torch.tensor([1.0, 9.0, 2.0]), labels)
    assert float(metric.compute()["loss"]) == 1.5


@pytest.mark.parametrize("stage", [0, 2])
def test_the_classifier_sees_what_the_re_synthesis_misses(stage: int) -> None:
    with without_weights():
        detector = Resynthesis(**SMALL, stage=stage).eval()
    image = torch.rand(2, 3, 32, 32)
    made = detector.sr(F.avg_pool2d(image, 4))
    a, b = (made, image) if not stage else (detector.vgg(made)[1], detector.vgg(image)[1])
    logits = detector.network((a - b).abs())
    out = detector(image)
    torch.testing.assert_close(out["logits"], logits)
    torch.testing.assert_close(out["logit"], logits[:, 1] - logits[:, 0])


def test_who_is_trained_by_what() -> None:
    one, trained = batch(), {}
    for sr in ("fixed", "published", "joint"):
        torch.manual_seed(0)
        detector = Resynthesis(**SMALL, sr=sr, perceptual=0.0)
        losses = detector.loss(detector(one["image"]), one)
        losses["loss"].backward()
        assert all(p.grad is not None for p in detector.network.parameters())
        trained[sr] = [p.grad for p in detector.sr.parameters() if p.grad is not None]
        torch.testing.assert_close(losses["loss"], losses["ce"] + losses.get("auxiliary", torch.tensor(0.0)))
    assert not trained["fixed"]
    assert not trained["published"]  # its auxiliary loss has nothing to train
    assert len(trained["joint"]) == len(list(detector.sr.parameters()))


def test_the_auxiliary_loss_is_of_real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, one = Resynthesis(**SMALL, **JOINT, auxiliary_weight=3.0), batch()
    loss = detector.loss(detector(one["image"]), one)
    made = detector.sr(F.avg_pool2d(one["image"], 4))
    torch.testing.assert_close(loss["auxiliary"], 3 * (made - one["image"]).abs()[::2].mean())


def test_denoising_and_colourisation_disturb_half_of_the_steps() -> None:
    small = torch.rand(2, 3, 40, 40)
    found: dict[str, list[Tensor]] = {}
    for task in ("none", "denoising", "colourisation"):
        detector = Resynthesis(**SMALL | {"sr": "joint", "perceptual": 0.0, "auxiliary": task})
        found[task] = []
        for step in range(40):
            torch.manual_seed(step)
            found[task].append(detector.disturbed(small))
            torch.manual_seed(step)
            assert detector.disturbed(small).equal(found[task][-1])  # a function of the seed of the step
    assert all(one.equal(small) for one in found["none"])
    changed = {task: [one for one in seen if not one.equal(small)] for task, seen in found.items()}
    assert all(8 < len(changed[task]) < 32 for task in ("denoising", "colourisation"))
    noise = torch.stack(changed["denoising"]) - small
    assert noise.std().item() == pytest.approx(4 / 255, rel=0.05)
    for one in changed["colourisation"]:
        grey = (one != small).any(1)
        assert 0.07 < grey.float().mean() < 0.28
        torch.testing.assert_close(one[:, 0][grey], small.mean(1)[grey])
        assert one[:, 0][grey].equal(one[:, 2][grey])


def test_gradients_of_the_classifier_are_scaled_once_whatever_is_accumulated() -> None:
    one, grads = batch(), {}
    for scale in (1.0, 0.5):
        torch.manual_seed(0)
        detector = Resynthesis(**SMALL, **JOINT, gradient_scale=scale).eval()
        detector.on_fit_start()
        for _ in range(2):
            detector.loss(detector(one["image"]), one)["loss"].backward()
        grads[scale] = {name: p.grad.clone() for name, p in detector.named_parameters()}
    for name, grad in grads[1.0].items():
        factor = 0.5 if name.startswith("network.") else 1.0
        torch.testing.assert_close(grads[0.5][name], factor * grad, atol=1e-7, rtol=1e-4)


def test_published_files_fit_and_real_and_fake_are_turned_round(tmp_path: Path) -> None:
    source = Resynthesis(**SMALL).eval()
    torch.save(source.sr.state_dict(), tmp_path / "sr.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in source.network.state_dict().items()}}, tmp_path / "cls.pth")
    files = {"weights": str(tmp_path / "sr.pth"), "classifier": str(tmp_path / "cls.pth")}
    detector, image = Resynthesis(**SMALL, **files).eval(), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(detector(image)["logits"], source(image)["logits"].flip(1))


def test_vgg_is_wanted_from_a_file_with_torchvisions_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model.vgg is None, and VGG19's weights are wanted"):
        SuperResolution(**SR)
    with pytest.raises(UserError, match="no weights file"):
        SuperResolution(**SR, vgg=str(tmp_path / "none.pth"))
    with without_weights():
        state = Vgg(None).half().state_dict()
    file = tmp_path / "vgg.pth"
    torch.save(state | {"features.34.bias": torch.zeros(512), "classifier.0.bias": torch.zeros(4096)}, file)
    detector = Resynthesis(**SMALL, stage=3, vgg=str(file))
    assert all(value.half().equal(state[name]) for name, value in detector.vgg.state_dict().items())
    run = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    run.strategy.connect(detector)
    run.save_checkpoint(tmp_path / "a.ckpt")
    file.unlink()  # the checkpoint holds all
    again, image = load(tmp_path / "a.ckpt"), torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(image)["logit"], detector.eval()(image)["logit"])


def test_stage_two_takes_the_network_of_stage_one_by_name() -> None:
    first, second = SuperResolution(**SR, perceptual=0.0), Resynthesis(**SMALL)
    shared = {k for k in first.state_dict() if k.startswith("sr.")}
    assert shared == {k for k in second.state_dict() if k.startswith("sr.")}
    with pytest.warns(UserWarning, match="frozen and at random"):
        second.on_train_start()
    second.load_state_dict(first.state_dict(), strict=False)
    second.on_train_start()  # warnings are errors here


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"auxiliary": "denoising"}, "leaves nothing to train by it"),
        ({"stage": 6}, "stages of VGG19"),
        ({"input_size": 30}, "multiple of 4"),
    ],
)
def test_contradictions_are_one_line(words: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        Resynthesis(**SMALL | words)
