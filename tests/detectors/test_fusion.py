"""Fusion: what it concatenates, that both heads learn, always the same, and which spectra are refused."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression
from test_contract import trainer

from dfl import detectors
from dfl.detectors import Dct, Fusion, LinearProbe
from dfl.detectors.fusion import MlpHead
from dfl.errors import UserError

ENCODER: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False, "input_size": 32}


def build(**words: Any) -> Fusion:
    torch.manual_seed(0)
    return Fusion(**ENCODER | words)


def images(n: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(1)) / 255


def problem(n: int = 200, d: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of which the product of two says the class: no linear one does."""
    features = torch.randn(n, d, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return 5 + 3 * features, (features[:, 0] * features[:, 1] > 0).long()


def test_features_are_those_of_the_probe_and_of_the_spectra() -> None:
    detector, image = build(spectra=[{"size": 32}, {"size": 16, "colour": "rgb", "noise": "median"}]), images()
    torch.manual_seed(0)
    alone = LinearProbe(**ENCODER).features(image)
    whole, centre = Dct(32, "grey").features(image), Dct(16, "rgb", noise="median").features(image[..., 8:24, 8:24])
    torch.testing.assert_close(detector.features(image), torch.cat([alone, whole, centre], 1))


def test_further_encoders_stand_beside_the_first() -> None:
    detector, image = build(beside=("test_vit",), spectra=()), images()
    parts = [LinearProbe(**ENCODER | {"backbone": name}) for name in ("test_resnet", "test_vit")]
    for part, encoder in zip(parts, (detector.encoder, detector.beside[0]), strict=True):
        part.network.load_state_dict(encoder.network.state_dict())
    torch.testing.assert_close(detector.features(image), torch.cat([part.features(image) for part in parts], 1))
    assert not any(p.requires_grad for p in detector.beside.parameters())
    alone = build(spectra=())
    assert alone.stored_settings() == parts[0].stored_settings()
    assert alone.stored_weights().keys() == parts[0].stored_weights().keys()
    assert detector.stored_settings() != alone.stored_settings()
    with pytest.raises(UserError, match="beside_weights: 2 for 1 encoders"):
        build(beside=("test_vit",), beside_weights=("a", "b"))


def test_weights_of_further_encoders_are_the_users_to_give(tmp_path: Path) -> None:
    files = []
    for name in ("test_resnet", "test_vit"):
        files.append(str(tmp_path / f"{name}.pth"))
        size = {"img_size": 32} if name == "test_vit" else {}
        torch.save(timm.create_model(name, num_classes=0, **size).state_dict(), files[-1])
    words: dict[str, Any] = {"weights": files[0], "beside_weights": [files[1]]}
    detector = Fusion(backbone="test_resnet", input_size=32, beside=["test_vit"], spectra=[], **words).eval()
    run = trainer(tmp_path)
    run.strategy.connect(detector)
    run.save_checkpoint(tmp_path / "a.ckpt")
    assert not any("beside" in key for key in torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"])
    with pytest.raises(UserError, match=r"give weights and beside_weights to"):
        detectors.load(tmp_path / "a.ckpt")
    again = detectors.load(tmp_path / "a.ckpt", **words)
    assert torch.equal(again(images())["logit"], detector(images())["logit"])


def test_the_regression_is_that_of_all_z_scores() -> None:
    detector = build(spectra=[{"size": 8}], penalty=2.0)
    features = torch.randn(40, detector.head.in_features, dtype=torch.float64)
    label = (features[:, 0] + features[:, -1] > 0).long()
    detector.fit(features, label)
    z = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
    expected = LogisticRegression(C=0.5, max_iter=1000).fit(z, label.numpy()).decision_function(z)
    torch.testing.assert_close(
        detector.score(features).detach().double(), torch.from_numpy(expected), atol=1e-4, rtol=0
    )


def test_the_perceptron_learns_what_no_regression_does() -> None:
    features, label = problem()
    head = MlpHead(6)
    head.fit(features, label)
    right = ((head.eval()(features) > 0).long() == label).double().mean()
    z = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
    linear = LogisticRegression().fit(z, label.numpy()).score(z, label.numpy())
    assert linear < 0.65 < 0.9 < right


def test_the_perceptron_is_fitted_the_same_way_whatever_was_drawn_before() -> None:
    features, label = problem(40)
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        head = MlpHead(6, epochs=2)
        before = torch.random.get_rng_state()
        head.fit(features, label)
        assert torch.equal(torch.random.get_rng_state(), before)
        states.append(head.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_fitted_spectra_are_kept_with_their_words(tmp_path: Path) -> None:
    detector = build(spectra=[{"size": 16, "values": "signed"}], head="mlp")
    run = trainer(tmp_path)
    run.strategy.connect(detector)
    run.save_checkpoint(tmp_path / "a.ckpt")
    again = detectors.load(tmp_path / "a.ckpt")
    assert again.hparams["spectra"] == [{"size": 16, "values": "signed"}]
    assert torch.equal(again(images())["logit"], detector.eval()(images())["logit"])


@pytest.mark.parametrize("spectra", [[{"size": 16, "weights": "a"}], [{"size": 16.5}], "abc", [{"size": 4_000}]])
def test_a_checkpoint_cannot_ask_for_other_spectra(spectra: Any, tmp_path: Path) -> None:
    detector = build(spectra=[{"size": 16}])
    run = trainer(tmp_path)
    run.strategy.connect(detector)
    run.save_checkpoint(tmp_path / "a.ckpt")
    held = torch.load(tmp_path / "a.ckpt", weights_only=True)
    held["hyper_parameters"]["spectra"] = spectra
    torch.save(held, tmp_path / "b.ckpt")
    with pytest.raises(UserError, match=r"b\.ckpt.*spectra"):
        detectors.load(tmp_path / "b.ckpt")


@pytest.mark.parametrize(
    ("spectrum", "line"),
    [
        ({"siz": 8}, "a spectrum has no 'siz'.*size"),
        ({"size": 64}, "64 px does not fit into images of 32 px"),
        ({"size": 0}, "0 px does not fit"),
        ({"size": 8, "colour": "gray"}, "colour that is 'gray', and it must be one of rgb, grey"),
        ({"size": 8, "noise": "bm3d"}, "noise that is 'bm3d'"),
        ({"size": "8"}, "must be an integer"),
    ],
)
def test_wrong_spectra_are_one_line(spectrum: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        build(spectra=[spectrum])
