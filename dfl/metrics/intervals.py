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


def interval(value: float, resampled: np.ndarray, units: int = 0, rate: bool = False) -> dict[str, float]:
    """Return ``value`` with ``low`` and ``high``, its 95 % interval: percentiles of resamples.

    A bootstrap of few units is too narrow as a normal interval with sqrt(sum / n) is; percentiles are moved out as
    far as Student's t and n - 1 move that (expanded percentiles, Hesterberg 2015).

    Args:
        value: As measured; NaN gives NaN.
        resampled: float64 (R,); what is not finite is left out.
        units: That were drawn independently, of the smaller class; 0: percentiles as they are.
        rate: Of ``units``. Where it is 0 or 1, all resamples are the same, and its interval is that of Clopper and
            Pearson.
    """
    if math.isnan(value):
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    if rate and units and value in (0.0, 1.0):
        low, high = clopper_pearson(int(value) * units, units)
    else:
        tail, finite = (1 - LEVEL) / 2, resampled[np.isfinite(resampled)]
        if units > 1:
            tail = float(stats.norm.sf(math.sqrt(units / (units - 1)) * stats.t.isf(tail, units - 1)))
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
