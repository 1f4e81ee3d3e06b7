"""Variances of AUROC against pairs counted one by one, another implementation, and data whose answer is known."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from dfl.metrics.delong import Areas, delong


def scored(n: int = 60, k: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores (k, n) of detectors that share a part of their errors, with ties."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 3 > 0).astype(int)
    return np.round(rng.normal(size=n) + rng.normal(size=(k, n)) + 1.5 * label, 1), label


def by_pairs(score: np.ndarray, label: np.ndarray, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas and covariance as Obuchowski (1997) writes them: kernels of all pairs, sums by cluster."""
    fakes, reals = np.flatnonzero(label == 1), np.flatnonzero(label == 0)
    kernel = (np.sign(score[:, fakes, None] - score[:, None, reals]) + 1) / 2  # (k, m, n)
    area, m, n = kernel.mean((1, 2)), len(fakes), len(reals)
    clusters = np.unique(unit)
    x = np.stack([(kernel.mean(2) - area[:, None])[:, unit[fakes] == c].sum(1) for c in clusters])
    y = np.stack([(kernel.mean(1) - area[:, None])[:, unit[reals] == c].sum(1) for c in clusters])
    with_fakes, with_reals = len(np.unique(unit[fakes])), len(np.unique(unit[reals]))
    s10, s01 = with_fakes / (with_fakes - 1) * x.T @ x, with_reals / (with_reals - 1) * y.T @ y
    s11 = len(clusters) / (len(clusters) - 1) * x.T @ y
    return area, s10 / m**2 + s01 / n**2 + (s11 + s11.T) / (m * n)


@pytest.mark.parametrize("grouped", ["images", "videos", "sources"])
def test_areas_and_covariance_are_those_of_all_pairs(grouped: str) -> None:
    score, label = scored()
    unit = {
        "images": np.arange(60),
        "videos": np.arange(60) % 3 * 100 + np.arange(60) // 12,
        "sources": np.arange(60) // 3,
    }
    found = delong(score, label, unit[grouped])
    area, covariance = by_pairs(score, label, unit[grouped])
    assert found.area == pytest.approx(area)
    assert found.area == pytest.approx([roc_auc_score(label, one) for one in score])
    assert found.covariance == pytest.approx(covariance)
    for a, b in itertools.combinations(range(3), 2):
        expected = covariance[a, a] + covariance[b, b] - 2 * covariance[a, b]
        assert found.variance_of_difference(a, b) == pytest.approx(expected)


def test_p_is_that_of_another_implementation() -> None:
    theirs = pytest.importorskip("MLstatkit").Delong_test
    score, label = scored(200, 2)
    found = delong(score, label).difference(0, 1)
    p = theirs(label, stats.norm.cdf(score[0]), stats.norm.cdf(score[1]), return_ci=False, return_auc=False)[1]
    assert found["p"] == pytest.approx(p, rel=1e-6)
    half = stats.norm.isf(0.025) * abs(found["value"] / stats.norm.isf(found["p"] / 2))
    assert [found["low"], found["high"]] == pytest.approx([found["value"] - half, found["value"] + half])


def test_the_same_ranks_are_no_difference() -> None:
    score, label = scored(k=1)
    found = delong(np.concatenate([score, np.exp(score)]), label).difference(0, 1)
    assert found == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}


def test_areas_without_variance_promise_no_certainty() -> None:
    label = np.repeat([0, 1], [5, 9])
    found = delong(np.stack([label, np.zeros(14)]), label).difference(0, 1)
    assert found["value"] == 0.5
    assert found["p"] == 2 * 0.5**5  # all five units of the smaller class on one side
    assert (found["low"], found["high"]) == (pytest.approx(0.025 ** (1 / 5) - 0.5), 1.0)
    assert delong(np.stack([label, label]), label).difference(0, 1)["p"] == 1


def test_what_is_undefined_is_nan() -> None:
    score, label = scored()
    for found in (
        delong(score, np.zeros(60, int)),
        delong(np.full((3, 60), math.nan), label),
        delong(np.empty((3, 0)), np.empty(0, int)),
    ):
        assert np.isnan(found.area).all()
        assert all(map(math.isnan, found.difference(0, 1).values()))
    score[1, 0] = math.nan  # of one detector
    assert np.isnan(delong(score, label).area).tolist() == [False, True, False]
    assert not math.isnan(delong(score, label).difference(0, 2)["p"])
    one_unit = delong(score, label, label)
    assert np.isnan(one_unit.covariance).all()
    assert math.isnan(one_unit.difference(0, 2)["p"])


def simulated(rng: np.random.Generator) -> Areas:
    """Two equally good detectors; three frames a video that are much alike, also between the detectors."""
    label, unit = np.repeat([0, 1], 60), np.arange(120) // 3
    video = rng.normal(size=40)[unit] + rng.normal(size=(2, 40))[:, unit]
    return delong(video + rng.normal(size=(2, 120)) + label, label, unit)


def test_deviations_are_those_of_repeated_experiments() -> None:
    rng = np.random.default_rng(0)
    many = [simulated(rng) for _ in range(400)]
    deviation = np.std([one.area for one in many], axis=0)
    assert np.mean([np.sqrt(np.diag(one.covariance)) for one in many], 0) == pytest.approx(deviation, rel=0.1)
    alarms = np.mean([one.difference(0, 1)["p"] < 0.05 for one in many])
    assert 0.02 < alarms < 0.09
