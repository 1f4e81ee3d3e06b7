"""Fusion: what it concatenates, that both heads learn, always the same, and which spectra are refused."""

from pathlib import Path
from typing import Any

import pytest
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
