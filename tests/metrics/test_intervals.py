"""Intervals and corrections by hand and against scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from dfl.metrics.intervals import clopper_pearson, holm, interval


def test_exact_intervals_are_those_of_scipy() -> None:
    for hits, n in ((0, 20), (3, 20), (20, 20), (1, 1)):
        theirs = stats.binomtest(hits, n).proportion_ci(0.9, method="exact")
        assert clopper_pearson(hits, n, 0.9) == pytest.approx((theirs.low, theirs.high))
    assert all(map(math.isnan, clopper_pearson(0, 0)))


def test_a_rate_of_zero_has_an_interval_that_admits_more() -> None:
    none = interval(0.0, np.zeros(100), 20, rate=True)
    assert none["low"] == 0
    assert none["high"] == pytest.approx(1 - 0.025 ** (1 / 20))  # Clopper and Pearson
    assert interval(1.0, np.ones(100), 20, rate=True)["low"] == pytest.approx(0.025 ** (1 / 20))


def test_intervals_are_percentiles_of_what_is_defined() -> None:
    resampled = np.append(np.arange(1001.0), math.nan)
    assert interval(500.0, resampled) == pytest.approx({"value": 500.0, "low": 25.0, "high": 975.0})
    assert math.isnan(interval(0.5, np.full(3, math.nan))["low"])
    assert all(map(math.isnan, interval(math.nan, resampled).values()))


def test_of_few_units_percentiles_are_as_wide_as_students_t() -> None:
    grid, n = np.linspace(0, 1, 200_001)[1:-1], 5
    resampled = stats.norm.ppf(grid) * math.sqrt((n - 1) / n)  # what a bootstrap of n values makes of deviation 1
    assert interval(0.0, resampled, n)["high"] == pytest.approx(stats.t.ppf(0.975, n - 1), rel=1e-3)
    assert interval(0.0, resampled, 10**6)["high"] == pytest.approx(1.96 * math.sqrt((n - 1) / n), rel=1e-3)


def test_holm_by_hand() -> None:
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
