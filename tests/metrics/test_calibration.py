"""Calibration, abstention and thresholds by hand, against scikit-learn, and on data whose answer is known."""

import math

import numpy as np
import pytest
import torch
from scipy import special, stats
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from dfl.metrics import binary
from dfl.metrics.calibration import (
    coverage_risk,
    logit,
    platt,
    reliability,
    resolves,
    risk_area,
    softened,
    temperature,
    threshold_at_fpr,
)


def drawn(n: int = 2_000, heat: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are right after division by ``heat``, and labels."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(size=n) * 2
    return odds * heat, (rng.random(n) < special.expit(odds)).astype(int)


def test_bins_are_those_of_scikit_learn_and_make_the_ece() -> None:
    odds, label = drawn()
    score = special.expit(odds)
    found = reliability(score, label, 10)
    share, mean = calibration_curve(label, score, n_bins=10)
    assert found["score"] == pytest.approx(mean)
    assert found["share"] == pytest.approx(share)
    assert found["count"].sum() == len(score)
    own = reliability(torch.from_numpy(score), torch.from_numpy(label))
    gap = np.average(abs(own["score"] - own["share"]), weights=own["count"])
    assert gap == pytest.approx(binary.ece(torch.from_numpy(score), torch.from_numpy(label)).item())
    edge = reliability([0.0, 1.0, 0.5], [0, 1, 1], 2)
    assert {name: values.tolist() for name, values in edge.items()} == {
        "score": [0.0, 0.75],
        "share": [0.0, 1.0],
        "count": [1, 2],
    }
    assert all(len(values) == 0 for values in reliability([math.nan, 1.0], [0, 1]).values())


def test_temperature_is_what_made_the_scores_too_sure() -> None:
    for heat in (0.4, 1.0, 3.0):
        odds, label = drawn(50_000, heat)
        assert temperature(odds, label) == pytest.approx(heat, rel=0.03)
    theirs = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-9).fit(odds[:, None], label).coef_[0, 0]
    assert temperature(odds, label) == pytest.approx(1 / theirs, rel=1e-4)


def test_temperature_at_its_ends_and_of_nothing() -> None:
    label = np.array([0, 0, 1, 1])
    assert temperature(np.array([-2.0, -1, 1, 2]), label) == pytest.approx(0.01)
    assert temperature(np.array([2.0, 1, -1, -2]), label) == pytest.approx(100)
    for odds, labels in (([1.0, 2.0], [1, 1]), ([], []), ([math.nan, 1.0], [0, 1])):
        assert math.isnan(temperature(odds, labels))


def test_platt_is_a_logistic_regression_within_the_range_of_temperatures() -> None:
    odds, label = drawn(20_000, 3.0)
    for shift in (0.0, 5.0, -40.0):
        heat, offset = platt(odds + shift, label)
        theirs = LogisticRegression(C=1e9, tol=1e-9, max_iter=1_000).fit(odds[:, None] + shift, label)
        assert heat == pytest.approx(1 / theirs.coef_[0, 0], rel=1e-3)
        assert offset == pytest.approx(theirs.intercept_[0], abs=1e-2)
    apart, classes = np.array([-2.0, -1, 1, 2]), np.array([0, 0, 1, 1])
    assert platt(apart, classes)[0] == pytest.approx(0.01)
    assert platt(-apart, classes) == (pytest.approx(100), pytest.approx(0, abs=1e-3))
    assert all(math.isnan(one) for one in platt([1.0, 2.0], [1, 1]))


def test_log_odds_of_sure_scores_are_finite_and_rise() -> None:
    found = logit(np.float32([0, 1e-3, 0.5, 1]))
    assert np.isfinite(found).all()
    assert found[1:3] == pytest.approx([math.log(1e-3 / 0.999), 0], abs=1e-6)
    assert (np.diff(found) > 0).all()


def test_coverage_and_risk_by_hand() -> None:
    score, label = [0.9, 0.6, 0.9, 0.5, 0.6], [1, 1, 0, 0, 0]
    coverage, risk = coverage_risk(score, label, 0.5)
    assert coverage == pytest.approx([0.4, 0.8, 1.0])  # equally sure images at once
    assert risk == pytest.approx([1 / 2, 2 / 4, 3 / 5])
    assert risk_area(coverage, risk) == pytest.approx(0.4 / 2 + 0.4 * 2 / 4 + 0.2 * 3 / 5)
    assert math.isnan(risk_area(*coverage_risk(score, label, math.nan)))
    assert math.isnan(risk_area(*coverage_risk([math.nan], [1], 0.5)))


def test_risk_falls_where_the_detector_knows_what_it_does_not_know() -> None:
    odds, label = drawn(20_000)
    coverage, risk = coverage_risk(special.expit(odds), label, 0.5)
    assert coverage[-1] == 1
    assert risk[-1] == np.mean((odds >= 0) != label)
    wanted = [np.mean(((odds >= 0) != label)[abs(odds) >= np.quantile(abs(odds), 1 - c)]) for c in (0.2, 0.5)]
    assert np.interp([0.2, 0.5], coverage, risk) == pytest.approx(wanted, abs=1e-3)
    assert risk_area(coverage, risk) == pytest.approx(risk.mean())
    assert wanted[0] < wanted[1] < risk[-1]


@pytest.mark.parametrize(("n", "fpr", "hits"), [(1000, 0.01, 10), (1000, 0.0199, 19), (700, 0.01, 7), (100, 0.01, 1)])
def test_thresholds_let_through_as_many_reals_as_allowed(n: int, fpr: float, hits: int) -> None:
    real = np.random.default_rng(0).random(n).astype(np.float32)
    found = threshold_at_fpr(real, fpr)
    assert (real >= np.float32(found.threshold)).sum() == hits
    assert found.threshold == float(np.float32(found.threshold))
    assert found.fpr == hits / n
    assert found.resolved
    theirs = stats.binomtest(hits, n).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_too_few_reals_do_not_resolve_an_fpr() -> None:
    assert resolves(100, 0.01)
    assert not resolves(99, 0.01)
    found = threshold_at_fpr(np.linspace(0, 0.8, 99), 0.01)
    assert not found.resolved
    assert (found.fpr, found.reals) == (0, 99)
    assert found.threshold > 0.8
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 99))


def test_thresholds_of_tied_or_absent_reals() -> None:
    tied = threshold_at_fpr([0.5] * 200, 0.1)
    assert tied.fpr == 0
    assert tied.threshold == float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert math.isnan(threshold_at_fpr([], 0.1).threshold)
    assert math.isnan(threshold_at_fpr([math.nan], 0.1).high)


def test_intervals_of_a_chosen_threshold_hold_its_true_fpr() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        found = threshold_at_fpr(rng.random(300), 0.03)
        held += found.low <= 1 - found.threshold <= found.high
    assert 0.93 < held / 400 < 0.995  # a little conservative, as Clopper's and Pearson's are


def test_softened_labels_leave_room_for_doubt_where_the_classes_are_separated() -> None:
    odds, label = np.array([-3.0, -2.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1, 1])
    assert softened(label) == pytest.approx([1 / 4, 1 / 4, 4 / 5, 4 / 5, 4 / 5])
    assert temperature(odds, label) == pytest.approx(0.01)
    assert 0.6 < special.expit(4 / temperature(odds, softened(label))) < 0.95
    many = drawn(2_000)
    assert temperature(many[0], softened(many[1])) == pytest.approx(temperature(*many), rel=0.02)
