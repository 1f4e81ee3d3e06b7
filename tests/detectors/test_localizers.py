"""PatchForensics, GradCam and AttentionXception: the papers' counts, sizes and numbers, and official names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from PIL import Image

from dfl import detectors
from dfl.cli import arguments
from dfl.detectors import AttentionXception, Classifier, GradCam, PatchForensics
from dfl.detectors.attention import UNUSED, Appearance, read_templates
from dfl.detectors.cam import grad_cam, stretch
from dfl.errors import UserError
from dfl.networks import create_backbone, find_layer, load_named

GOLDEN = Path(__file__).parent.parent / "golden" / "patch_forensics.npz"
#: Parameters with the head, channels, and side of the map at 128, 224, 256, 299 and 333 px.
CUTS = {
    "relu1": (994, 32, (63, 111, 127, 149, 166)),
    "relu2": (19_618, 64, (61, 109, 125, 147, 164)),
    "block1": (55_010, 128, (31, 55, 63, 74, 82)),
    "block2": (191_330, 256, (16, 28, 32, 37, 41)),
    "block3": (1_108_218, 728, (8, 14, 16, 19, 21)),
    "block4": (2_722_194, 728, (8, 14, 16, 19, 21)),
    "block5": (4_336_170, 728, (8, 14, 16, 19, 21)),
    "block11": (14_020_026, 728, (8, 14, 16, 19, 21)),
    "block12": (16_060_202, 1024, (4, 7, 8, 10, 11)),
}


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    held = dict(np.load(GOLDEN))
    file = tmp_path_factory.mktemp("official") / "patches.pth"
    torch.save({k.removeprefix("w."): torch.from_numpy(v) for k, v in held.items() if k.startswith("w.")}, file)
    return held | {"file": str(file)}


def pixels(array: np.ndarray) -> torch.Tensor:
    return (torch.from_numpy(array).float() / 255).permute(0, 3, 1, 2).contiguous()


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("cut", CUTS)
def test_cuts_have_the_parameters_and_maps_of_the_paper(cut: str) -> None:
    parameters, channels, sides = CUTS[cut]
    with torch.device("meta"):
        detector = PatchForensics(cut).eval()
        assert count(detector) == parameters
        assert detector.network.convout.in_channels == channels
        for size, side in zip((128, 224, 256, 299, 333), sides, strict=True):
            assert detector(torch.empty(1, 3, size, size))["mask_logit"].shape == (1, side, side)


def test_an_unknown_cut_is_one_line() -> None:
    with pytest.raises(UserError, match="cut is 'blok2'; did you mean 'block2'"):
        PatchForensics("blok2")


def test_equals_patch_forensics(golden: dict[str, Any]) -> None:
    detector = PatchForensics(weights=golden["file"]).eval()
    np.testing.assert_allclose(detector.network(2 * pixels(golden["x256"]) - 1).detach(), golden["y256"], atol=5e-5)


@pytest.mark.parametrize(("supervision", "key"), [("label", "train_losses"), ("mask", "train_losses_setup_c")])
def test_six_steps_equal_the_official_ones(golden: dict[str, Any], supervision: str, key: str) -> None:
    detector = PatchForensics(weights=golden["file"], supervision=supervision).train()
    optimizer = detector.optimizer(detector.parameters())
    mask = torch.from_numpy(golden["mask12"]).float()
    batch = {"label": torch.from_numpy(golden["yt"]), "mask": mask, "has_mask": torch.ones(4, dtype=torch.bool)}
    losses = []
    for _ in range(6):
        loss = detector.loss(detector(pixels(golden["xt"])), batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, golden[key], rtol=2e-3)


def test_fake_real_files_are_turned_round(golden: dict[str, Any]) -> None:
    image = pixels(golden["xt"])
    one = PatchForensics(weights=golden["file"]).eval()(image)["logit"]
    other = PatchForensics(weights=golden["file"], label_order="fake_real").eval()(image)["logit"]
    torch.testing.assert_close(one, -other)


def test_whole_weights_load_into_a_part_and_strange_ones_are_refused(tmp_path: Path) -> None:
    whole = create_backbone("legacy_xception", pretrained=False, num_classes=1000)
    torch.save(whole.state_dict(), tmp_path / "imagenet.pth")
    detector = PatchForensics("block1", weights=str(tmp_path / "imagenet.pth"))
    assert torch.equal(detector.network.block1.skip.weight, whole.block1.skip.weight)
    torch.save({"bert.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"does not fit the network: .* missing .*; 1 unknown \(bert.weight\)"):
        PatchForensics("block1", weights=str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match="no weights file"):
        PatchForensics("block1", weights=str(tmp_path / "none.pth"))


@pytest.mark.parametrize("layer", ["block1", "block2"])
def test_cam_equals_the_library_even_in_inference_mode(golden: dict[str, Any], layer: str) -> None:
    network = PatchForensics(weights=golden["file"]).eval().network
    with torch.inference_mode():
        out, cam = grad_cam(
            lambda x: {"logits": network(x).mean((2, 3))},
            find_layer(network, layer),
            2 * pixels(golden["x256"]) - 1,
            lambda out: out["logits"][:, 1],
        )
        shown = stretch(cam, (256, 256))[0, ::4, ::4]
    np.testing.assert_allclose(shown, golden[f"cam_{layer}_s4"], atol=1e-4)
    assert not out["logits"].requires_grad
    assert all(p.grad is None for p in network.parameters())


def test_cam_does_not_change_the_score_and_runs_back_to_the_layer_only() -> None:
    detector = GradCam("test_resnet", pretrained=False, input_size=32).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        out = detector(image.clone())
        plain = Classifier.forward(detector, image)
    torch.testing.assert_close(out["logit"], plain["logit"])
    assert out["mask_logit"].shape == (2, 32, 32)
    prob = out["mask_logit"].sigmoid()
    assert prob.amax((1, 2)).tolist() == pytest.approx([1, 1], abs=1e-4) or (prob.amax((1, 2)) < 1e-4).any()
    assert "mask_logit" not in detector.train()(image)
    assert torch.is_grad_enabled()


def test_cam_of_nothing_is_nothing() -> None:
    assert stretch(torch.zeros(1, 4, 4), (8, 8)).tolist() == torch.zeros(1, 8, 8).tolist()


def test_wrong_layers_are_named() -> None:
    with pytest.raises(UserError, match="layer is 'block99'"):
        GradCam("legacy_xception", layer="block99", pretrained=False)
    for make in (lambda **k: GradCam(head="fcn", **k), AttentionXception):
        with pytest.raises(UserError, match="layer 'fc' gives no feature maps"):
            make(backbone="test_resnet", layer="fc", pretrained=False, input_size=32)
    detector = GradCam("test_resnet", layer="fc", pretrained=False, input_size=32).eval()
    with pytest.raises(UserError, match="feature maps"):
        detector(torch.randn(1, 3, 32, 32))


def test_other_networks_of_that_name_take_their_last_stage() -> None:
    with torch.device("meta"):
        assert GradCam("xception41", pretrained=False).layer == "blocks.12"
        assert AttentionXception(backbone="xception41", pretrained=False).layer == "blocks.12"
        assert AttentionXception(pretrained=False).layer == "block7"


def test_grad_cam_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        assert count(GradCam(pretrained=False)) == 20_811_050
        trained = GradCam(head="fcn", pretrained=False)
        assert count(trained.fcn) == 1_193_194
        assert count(trained) == 15_211_762
        assert trained.eval()(torch.empty(1, 3, 299, 299))["mask_logit"].shape == (1, 19, 19)


def test_a_trained_baseline_opens_as_grad_cam(tmp_path: Path) -> None:
    baseline = Classifier("test_resnet", pretrained=False, input_size=32)
    run = pl.Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False)
    run.strategy.connect(baseline)
    run.save_checkpoint(tmp_path / "a.ckpt")
    image = torch.randn(2, 3, 32, 32)
    for opened in (
        detectors.load(tmp_path / "a.ckpt", kind=GradCam),
        GradCam("test_resnet", weights=str(tmp_path / "a.ckpt"), input_size=32).eval(),
    ):
        torch.testing.assert_close(opened(image)["logit"], baseline.eval()(image)["logit"])
        assert opened(image)["mask_logit"].shape == (2, 32, 32)


def test_attention_has_the_parameters_of_the_paper() -> None:
    with torch.device("meta"):
        plain = AttentionXception(pretrained=False).eval()
        assert count(plain) == 20_818_330
        assert count(plain.network.map) == 7_280
        assert plain(torch.empty(1, 3, 299, 299))["mask_logit"].shape == (1, 19, 19)
        assert plain(torch.empty(1, 3, 256, 256))["mask_logit"].shape == (1, 16, 16)
        assert AttentionXception(pretrained=False).criterion is None
    assert count(AttentionXception("appearance", pretrained=False)) == 21_890_684


def small(**words: Any) -> AttentionXception:
    return AttentionXception(backbone="test_resnet", layer="layer2", pretrained=False, input_size=32, **words)


def test_features_are_multiplied_by_the_map() -> None:
    detector = small().eval()
    seen = {}
    detector.network.layer2.register_forward_hook(lambda m, a, out: seen.update(out=out))
    image = torch.randn(2, 3, 32, 32)
    out = detector(image)
    features = dict(detector.network.named_children())
    x = features["layer2"].forward(features["layer1"](_stem(detector.network, detector.normalize(image))))
    value, logit = detector.network.map(x)
    torch.testing.assert_close(seen["out"], x * value)
    torch.testing.assert_close(out["mask_logit"], logit[:, 0])
    torch.testing.assert_close(out["mask_logit"].sigmoid(), out["map"])


def _stem(network: Any, image: torch.Tensor) -> torch.Tensor:
    x = network.act1(network.bn1(network.conv1(image)))
    return network.maxpool(x)


@pytest.mark.parametrize(
    "words", [{}, {"map_loss": "l1"}, {"map": "appearance", "map_loss": "l1"}, {"map": "appearance"}]
)
@pytest.mark.parametrize("supervision", ["label", "mask"])
def test_both_maps_learn_under_both_losses(words: dict[str, Any], supervision: str) -> None:
    detector = small(supervision=supervision, **words)
    mask = torch.zeros(4, 32, 32)
    mask[1::2, 8:24, :16] = 1
    label = torch.tensor([0, 1, 0, 1])
    batch = {"label": label, "mask": mask, "has_mask": torch.ones(4, dtype=torch.bool)}
    image = torch.randn(4, 3, 32, 32) + mask[:, None]
    optimizer, losses = torch.optim.Adam(detector.parameters(), 0.01), []
    for _ in range(12):
        loss = detector.loss(detector(image), batch)
        optimizer.zero_grad()
        loss["loss"].backward()
        optimizer.step()
        losses.append(loss["loss"].item())
    assert min(losses[-3:]) < losses[0]
    assert loss["loss"].item() == pytest.approx((loss["ce"] + loss["map"]).item(), rel=1e-6)


def test_without_label_loss_nothing_behind_the_map_is_there() -> None:
    detector = small(supervision="mask", label_weight=0.0, mask_resize="bilinear")
    assert not any(name.startswith(("network.layer3", "network.fc")) for name, _ in detector.named_parameters())
    batch = {"mask": torch.ones(2, 32, 32), "has_mask": torch.ones(2, dtype=torch.bool)}
    out = detector(torch.randn(2, 3, 32, 32))
    detector.loss(out, batch)["loss"].backward()
    assert all(p.grad is not None for p in detector.parameters())
    assert torch.equal(out["logit"], out["mask_logit"].amax((1, 2)))


def official(detector: AttentionXception, old: bool) -> dict[str, torch.Tensor]:
    """Name the tensors as FFD (old) or dolos does."""
    named = {}
    for key, value in detector.network.state_dict().items():
        name = key.replace("fc.", "last_linear.") if key.startswith("fc.") else key
        if not old:
            name = name.replace("map.", "map.c.") if name.startswith("map.") else name
            name = name.replace("skipbn", "skip_bn")
            name = name.replace("conv1.weight", "c.weight") if ".rep." in name or "map" in name else name
            name = name.replace("conv1", "c") if name.startswith(("conv3.", "conv4.")) else name
        named[name] = value
    extra = {"bnmap.weight": torch.ones(728), "linearmap.weight": torch.ones(10, 3610)} if old else {}
    return named | extra


@pytest.mark.parametrize("old", [True, False])
def test_official_ffd_names_load(old: bool, tmp_path: Path) -> None:
    first, second = AttentionXception(pretrained=False), AttentionXception(pretrained=False)
    named = official(first, old)
    if not old:
        assert "map.c.c.weight" in named
        assert "block4.skip_bn.weight" not in named
        assert "block12.skip_bn.weight" in named
    torch.save({"net": named}, tmp_path / "xcp_reg.tar")
    load_named(second.network, str(tmp_path / "xcp_reg.tar"), spare=UNUSED)
    assert second.network.at_random == ()
    assert all(torch.equal(v, second.network.state_dict()[k]) for k, v in first.network.state_dict().items())


def test_templates_come_from_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="19x19"):
        small(map="appearance", templates=str(tmp_path))
    for i in range(3):
        Image.new("L", (19, 19), 100 * i).save(tmp_path / f"{i}.png")
    detector = small(map="appearance", templates=str(tmp_path))
    assert detector.network.map.templates.shape == (3, 19, 19)
    assert detector.network.map.linear.out_features == 3


def test_the_papers_form_is_the_mean_plus_components(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    held = {"mean": rng.random((8, 8), np.float32), "components": rng.random((3, 8, 8), np.float32)}
    np.savez(tmp_path / "t.npz", **held)
    shape = Appearance(16, *read_templates(str(tmp_path / "t.npz"))).eval()
    feature = torch.randn(2, 16, 8, 8)
    weight = shape.linear(F.relu(shape.block(feature)).mean((2, 3)))
    want = torch.from_numpy(held["mean"]) + torch.einsum("nk,khw->nhw", weight, torch.from_numpy(held["components"]))
    torch.testing.assert_close(shape(feature)[0][:, 0], want)
    assert shape(torch.randn(2, 16, 5, 5))[0].shape == (2, 1, 5, 5)
    np.save(tmp_path / "t.npy", np.zeros((4, 361)))
    templates, mean = read_templates(str(tmp_path / "t.npy"))
    assert templates.shape == (4, 19, 19)
    assert mean is None


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"components": np.array([object()])}, "cannot be read as arrays"),
        ({"mean": np.zeros((4, 4))}, "cannot be read as arrays"),
        ({"components": np.zeros((2, 4, 4)), "mean": np.zeros((3, 3))}, r"components \(2, 4, 4\), mean \(3, 3\)"),
        ({"components": np.full((2, 4, 4), np.nan)}, "must be finite"),
    ],
)
def test_what_is_no_template_is_refused(held: dict[str, Any], said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", **held)
    with pytest.raises(UserError, match=said):
        read_templates(str(tmp_path / "t.npz"))
    with pytest.raises(UserError, match="no templates"):
        read_templates(str(tmp_path / "none.npz"))


def test_a_checkpoint_brings_its_templates(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", components=np.random.default_rng(0).random((3, 8, 8)), mean=np.full((8, 8), 0.25))
    detector = small(map="appearance", templates=str(tmp_path / "t.npz"))
    run = pl.Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path, enable_checkpointing=False)
    run.strategy.connect(detector)
    run.save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "t.npz").unlink()
    image = torch.randn(2, 3, 32, 32)
    opened = detectors.load(tmp_path / "a.ckpt")
    assert torch.equal(opened(image)["map"], detector.eval()(image)["map"])
    with pytest.raises(UserError, match="no templates"):
        small(map="appearance", templates=str(tmp_path / "t.npz"))


@pytest.mark.parametrize(
    "yaml", [f"{method}_{setup}.yaml" for method in ("patches", "gradcam", "attention") for setup in "abc"]
)
def test_setups_differ_in_data_and_loss_alone(yaml: str) -> None:
    method, setup = yaml.removesuffix(".yaml").split("_")
    (layer, paper) = arguments.plan(["fit", f"--config={yaml}", "--config=setup/paper.yaml"]).layers
    train = layer["data"]["init_args"]["train"]["init_args"]
    assert train["generators"] == {"a": ["p2"], "b": ["repaint-p2-9k"], "c": ["repaint-p2"]}[setup]
    assert train.get("reals", True) == (setup != "c")
    model = layer["model"]["init_args"]
    assert (model.get("supervision", "label") == "mask") == (setup == "c")
    batch, rate, epochs = {"patches": (64, 1e-3, 100), "gradcam": (32, 1e-3, 100), "attention": (16, 1e-4, 15)}[method]
    if setup == "c":
        batch, rate, epochs = 16, {"attention": 3e-4}.get(method, 1e-3), {"attention": 15}.get(method, 50)
    assert layer["data"]["init_args"]["batch_size"] == batch
    assert model["optimizer"]["init_args"]["lr"] == rate
    assert layer["trainer"] == {"max_epochs": epochs}
    assert layer["data"]["init_args"]["epoch_batches"] == 500, "whatever the number of images: 18,000 / 64 are 281"
    assert paper["model"]["init_args"] == {"input_size": 299, "protocol": "dolos"}
    assert paper["checkpoint"] == {"monitor": "val/mean/loss", "mode": "min"}
