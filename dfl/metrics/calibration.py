"""Scores as probabilities, verdicts withheld, and thresholds for a wanted false positive rate.

All functions take arrays or CPU tensors, compute in float64, and never change the order of scores.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from dfl.metrics.intervals import clopper_pearson

#: Temperatures that are tried.
COLDEST, HOTTEST = 0.01, 100.0


class FprThreshold(NamedTuple):
    """A threshold that was chosen on reals.

    Attributes:
        threshold: Fake from here, a float32 number; NaN without reals.
        fpr: Share of the reals that are called fake.
        low: End of the interval of the FPR on other reals of the same kind.
        high: Its other end.
        resolved: Whether the reals were enough for the wanted FPR; else no real is called fake.
        reals: How many there were.
    """

    threshold: float
    fpr: float
    low: float
    high: float
    resolved: bool
    reals: int


def _flat(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, np.float64).reshape(-1)


def logit(score: ArrayLike) -> np.ndarray:
    """Return log-odds of scores, float64 (N,); scores are clamped to [eps, 1 - eps] of float32, as for `log_loss`."""
    eps = float(np.finfo(np.float32).eps)
    return np.asarray(special.logit(_flat(score).clip(eps, 1 - eps)))


def reliability(score: ArrayLike, label: ArrayLike, bins: int = 15) -> dict[str, np.ndarray]:
    """Return the mean score and the share of fakes in bins of equal width, those of `ece`; empty bins are left out.

    Args:
        score: (N,) probability of fake; of NaN nothing is known, and all bins are left out.
        label: (N,) 0 real, 1 fake.
        bins: Of [0, 1], closed on the left, the last one on both sides.

    Returns:
        Of each bin the mean ``score``, the ``share`` of fakes, float64 (B,), and the ``count`` of images, int64 (B,).
        The mean over images of |score - share| is `ece`.
    """
    score, label = _flat(score), _flat(label)
    if np.isnan(score).any():
        score = label = np.empty(0)
    place = (score * bins).astype(np.int64).clip(0, bins - 1)
    count = np.bincount(place, minlength=bins)
    full = count > 0
    mean, share = (np.bincount(place, weights, bins)[full] / count[full] for weights in (score, label))
    return {"score": mean, "share": share, "count": count[full]}


def temperature(logit: ArrayLike, label: ArrayLike) -> float:
    """Return T so that sigmoid(logit / T) has the least log loss (Guo et al. 2017); NaN for one class, or of NaN.

    T is above 0, so ranks stay, and so do verdicts if the threshold's logit is divided too. It lies in [0.01, 100]:
    the lower end is for scores that separate the classes, the upper end for scores that say nothing or the opposite.

    Args:
        logit: (N,) finite log-odds of fake, such as `logit` of the scores.
        label: (N,) 0 real, 1 fake; or between, such as those of `softened`.
    """
    logit, label = _flat(logit), _flat(label)
    if not len(label) or label.min() == label.max() or np.isnan(logit).any():
        return math.nan

    def loss(log_t: float) -> float:
        odds = logit * math.exp(-log_t)
        return float((label * np.logaddexp(0, -odds) + (1 - label) * np.logaddexp(0, odds)).mean())

    # convex in 1 / T, so that the one valley is found
    ends = (math.log(COLDEST), math.log(HOTTEST))
    found = optimize.minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-7})
    return math.exp(min([found.x, *ends], key=loss))


def platt(logit: ArrayLike, label: ArrayLike) -> tuple[float, float]:
    """Return T and b so that sigmoid(logit / T + b) has the least log loss (Platt 1999); NaN where `temperature` is.

    An offset beside the temperature also mends scores that are all too high or too low. T lies in the same range, so
    ranks stay.

    Args:
        logit: (N,) finite log-odds of fake.
        label: (N,) 0 real, 1 fake; or between, such as those of `softened`.
    """
    logit, label = _flat(logit), _flat(label)
    heat = temperature(logit, label)
    if math.isnan(heat):
        return math.nan, math.nan
    scaled = logit / heat  # slope and offset are then of one size

    def loss(at: np.ndarray) -> tuple[float, np.ndarray]:
        odds = scaled * at[0] + at[1]
        wrong = special.expit(odds) - label
        value = (label * np.logaddexp(0, -odds) + (1 - label) * np.logaddexp(0, odds)).mean()
        return float(value), np.array([(wrong * scaled).mean(), wrong.mean()])

    bounds = [(heat / HOTTEST, heat / COLDEST), (None, None)]
    settings = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1_000}
    found = optimize.minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=bounds, options=settings)
    return heat / float(found.x[0]), float(found.x[1])


def softened(label: ArrayLike) -> np.ndarray:
    """Return labels, float64 (N,), that leave room for one more image of each class that is otherwise (Platt 1999).

    With them no number of images is enough for a probability of 0 or 1, also where a detector separates the classes.

    Args:
        label: (N,) 0 real, 1 fake.
    """
    label = _flat(label)
    fakes = label.sum()
    return np.where(label == 1, (fakes + 1) / (fakes + 2), 1 / (len(label) - fakes + 2))


def coverage_risk(score: ArrayLike, label: ArrayLike, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return what is left wrong when a detector abstains where it is least sure: coverage and risk, float64 (K,) each.

    Surest are the scores whose logit is farthest from the threshold's. Coverage, the share of images with a verdict,
    rises to 1; risk is the share of wrong verdicts among them. Equally sure images are taken together.

    Args:
        score: (N,) probability of fake.
        label: (N,) 0 real, 1 fake.
        threshold: Fake from here. NaN, or a NaN score, gives nothing.
    """
    score = np.asarray(score).reshape(-1)
    if math.isnan(threshold) or np.isnan(score).any() or not len(score):
        return np.empty(0), np.empty(0)
    wrong = (score >= np.float64(threshold)) != (np.asarray(label).reshape(-1) == 1)
    sure = logit(score)
    sure -= logit(threshold)
    np.negative(np.abs(sure, out=sure), out=sure)
    order = np.argsort(sure, kind="stable")
    sure, wrong = sure[order], wrong[order]
    del order  # of millions of images, these are large
    last = np.flatnonzero(np.append(sure[1:] != sure[:-1], True))
    del sure
    return (last + 1) / len(score), np.cumsum(wrong)[last] / (last + 1)


def risk_area(coverage: np.ndarray, risk: np.ndarray) -> float:
    """Return the mean risk over coverage (AURC; Geifman and El-Yaniv 2017), of `coverage_risk`; NaN of nothing."""
    return float((np.diff(coverage, prepend=0) * risk).sum()) if len(risk) else math.nan


def resolves(n: int, rate: float) -> bool:
    """Return whether n images can show a rate: one of them is no more than it."""
    return n * rate >= 1 - 1e-9


def threshold_at_fpr(real: ArrayLike, fpr: float) -> FprThreshold:
    """Return a threshold that calls at most the wanted share of reals fake, with as many of them as that allows.

    It lies in the middle between two neighbouring scores of reals, or just above the highest. Since k of n reals are
    above it, its FPR on others is between Beta(k, n - k + 1) and Beta(k + 1, n - k) (order statistics): the interval
    is Clopper's and Pearson's, although the threshold was chosen on the same reals. Ties widen it at most.

    Args:
        real: (n,) scores of real images, each a unit of its own.
        fpr: Wanted, in (0, 1).
    """
    real = np.sort(_flat(real))[::-1]
    n = len(real)
    if not n or np.isnan(real).any():
        return FprThreshold(math.nan, math.nan, math.nan, math.nan, False, n)
    highest_real = real[min(int(fpr * n + 1e-9), n - 1)]  # the highest that must be called real
    above = real[real > highest_real]
    middle = np.float32((highest_real + above[-1]) / 2 if len(above) else highest_real)
    if middle <= highest_real:
        middle = np.nextafter(middle, np.float32(math.inf))
    hits = int((real >= middle).sum())
    return FprThreshold(float(middle), hits / n, *clopper_pearson(hits, n), resolves(n, fpr), n)
