"""Dct against the official code's numbers, and its regression against scikit-learn."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.fft import dctn
from sklearn.linear_model import LogisticRegression

from dfl.detectors import Dct
from dfl.detectors.fitted import LogisticHead
from dfl.networks.spectrum import dct_basis

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "dct.npz")


def image() -> torch.Tensor:
    return torch.from_numpy(GOLDEN["image"]).permute(0, 3, 1, 2) / 255


def test_spectra_equal_the_official_ones() -> None:
    pixels = torch.from_numpy(GOLDEN["image"]).permute(0, 3, 1, 2).double()
    basis = dct_basis(64)
    found = (basis @ pixels @ basis.T).permute(0, 2, 3, 1)[:, ::5, ::5]
    np.testing.assert_allclose(found, GOLDEN["dct"], atol=1e-9)
    features = Dct(64).features(image()).view(6, 3, 64, 64).permute(0, 2, 3, 1)[:, ::5, ::5]
    clear = np.abs(GOLDEN["dct"]) > 1e-3
    np.testing.assert_allclose(features[clear], GOLDEN["log"][clear], atol=1e-6, rtol=1e-6)


def test_z_scores_equal_the_official_ones() -> None:
    detector = Dct(64)
    features = detector.features(image()).double()
    detector.fit(features, torch.tensor([0, 1, 0, 1, 0, 1]))
    scores = ((features - detector.head.mean) / detector.head.std).view(6, 3, 64, 64).permute(0, 2, 3, 1)[:, ::5, ::5]
    clear = (np.abs(GOLDEN["dct"]) > 1e-3).all(0)
    np.testing.assert_allclose(scores[:, clear], GOLDEN["norm"][:, clear], atol=1e-4)


def test_grey_is_pillow_s() -> None:
    grey = np.asarray(Image.fromarray(GOLDEN["image"][0]).convert("L"), dtype=float)
    found = Dct(64, "grey").features(image()[:1]).view(64, 64)
    coefficients = dctn(grey, norm="ortho")
    clear = np.abs(coefficients) > 1e-3
    np.testing.assert_allclose(found[clear], np.log(np.abs(coefficients) + 1e-12)[clear], atol=1e-6, rtol=1e-6)


def test_the_regression_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    features, label = rng.normal(3, 2, (60, 5)), rng.integers(0, 2, 60)
    features[:, 0] += label
    features[:, 4] = 7.0  # without variance
    head = LogisticHead(5, penalty=0.5)
    head.fit(torch.from_numpy(features), torch.from_numpy(label))
    z = (features - features.mean(0)) / np.where(features.std(0) > 0, features.std(0), 1)
    expected = LogisticRegression(C=2.0).fit(z, label).decision_function(z)
    np.testing.assert_allclose(head(torch.from_numpy(features)).detach(), expected, atol=1e-4)
