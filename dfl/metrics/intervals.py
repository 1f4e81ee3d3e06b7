"""Intervals of measured values, and p values of many tests at once."""

import math
from collections.abc import Mapping

import numpy as np
from scipy import stats

#: Level of all intervals.
LEVEL = 0.95


def clopper_pearson(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of the exact interval of a rate (Clopper and Pearson 1934); NaN for no tries.

    Args:
        hits: How often it happened.
        n: Of so many independent tries.
        level: Of confidence.
    """
    if not n:
        return math.nan, math.nan
    tail = (1 - level) / 2
    low = float(stats.beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def interval(value: float, resampled: np.ndarray, n: int = 0) -> dict[str, float]:
    """Return ``value`` with ``low`` and ``high``, its 95 % interval: percentiles of resamples.

    A rate of 0 or 1 is the same in all resamples; its interval is that of Clopper and Pearson.

    Args:
        value: As measured; NaN gives NaN.
        resampled: float64 (R,); what is not finite is left out.
        n: Independent units of the rate; 0 for what is no rate.
    """
    if math.isnan(value):
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    if n and value in (0.0, 1.0):
        low, high = clopper_pearson(int(value) * n, n)
    else:
        tail, finite = (1 - LEVEL) / 2, resampled[np.isfinite(resampled)]
        low, high = np.quantile(finite, [tail, 1 - tail]).tolist() if len(finite) else (math.nan, math.nan)
    return {"value": value, "low": low, "high": high}


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p values corrected for their number by Holm's step-down method (Holm 1979).

    Below 0.05, the chance that any of them is there by accident is below 5 %, whatever their dependence.
    """
    corrected, worst = {}, 0.0
    for i, name in enumerate(sorted(p, key=lambda n: p[n])):
        worst = max(worst, min(1.0, (len(p) - i) * p[name]))
        corrected[name] = worst
    return {name: corrected[name] for name in p}
