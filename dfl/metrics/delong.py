"""Areas under the ROC curves of detectors on the same images, and how surely they differ (DeLong et al. 1988).

The variance counts units, not images: a unit is whatever was made or filmed together, such as the frames of a video, or
a real image with the fakes made from it. It is that of Obuchowski (1997), which is DeLong's where each image is a unit.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
from scipy import stats

from dfl.metrics.intervals import LEVEL


@dataclass(frozen=True)
class Areas:
    """Areas of k detectors, and what each unit adds to their errors.

    Attributes:
        area: float64 (k,); NaN where a class is absent or a score is NaN.
        fake: float64 (k, U): by unit, the sum over its fakes of (share of reals that score below) - area, ties counting
            one half, divided by the number of fakes.
        real: float64 (k, U), likewise of its reals: (share of fakes that score above) - area.
        fakes: Units that hold fakes.
        reals: Units that hold reals.
    """

    area: np.ndarray
    fake: np.ndarray
    real: np.ndarray
    fakes: int
    reals: int

    @property
    def covariance(self) -> np.ndarray:
        """Of the areas, float64 (k, k); NaN where a class has one unit, which says nothing of variance."""
        return self._products(self.fake, self.real)

    def variance_of_difference(self, a: int, b: int) -> float:
        """Of area a - area b; exactly 0 where both rank all images alike, which the covariance is only nearly."""
        return float(self._products(*(part[[a]] - part[[b]] for part in (self.fake, self.real)))[0, 0])

    def _products(self, fake: np.ndarray, real: np.ndarray) -> np.ndarray:
        if min(self.fakes, self.reals) < 2:
            return np.full((len(fake), len(fake)), math.nan)
        units = fake.shape[1]
        cross = fake @ real.T * (units / (units - 1))
        own = fake @ fake.T * (self.fakes / (self.fakes - 1)) + real @ real.T * (self.reals / (self.reals - 1))
        return np.asarray(own + cross + cross.T)

    def difference(self, a: int, b: int) -> dict[str, float]:
        """Return area a - area b: ``value``, the ends ``low`` and ``high`` of its 95 % interval, and ``p`` (two-sided).

        Detectors that rank all images alike have a difference of 0 without width, and p = 1. Where areas differ but
        no unit varies (1 against 0, or against a constant score), the variance of 0 promises too much: p is then that
        of a sign test of the units of the smaller class, and the interval reaches as far as Clopper's and Pearson's.
        """
        value, variance = float(self.area[a] - self.area[b]), self.variance_of_difference(a, b)
        if math.isnan(value) or math.isnan(variance):
            return dict.fromkeys(("value", "low", "high", "p"), math.nan) | {"value": value}
        if value == 0 and variance <= 0:
            return {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
        if variance <= sys.float_info.epsilon**2:
            least = min(self.fakes, self.reals)
            half, p = 1 - ((1 - LEVEL) / 2) ** (1 / least), 0.5 ** (least - 1)
        else:
            half, p = stats.norm.isf((1 - LEVEL) / 2) * math.sqrt(variance), normal_p(value, math.sqrt(variance))
        low, high = max(value - half, -1.0), min(value + half, 1.0)
        return {"value": value, "low": low, "high": high, "p": max(p, sys.float_info.min)}


def normal_p(value: float, deviation: float) -> float:
    """Return the two-sided p of a normal value that should be 0; never 0 itself."""
    return max(float(2 * stats.norm.sf(abs(value) / deviation)), sys.float_info.min)


def delong(score: np.ndarray, label: np.ndarray, unit: np.ndarray | None = None) -> Areas:
    """Compare k detectors on the same images.

    Args:
        score: (k, n), float32 or float64.
        label: (n,) 0 real, 1 fake.
        unit: (n,) integer ids of units; by default each image is one.
    """
    label = np.asarray(label)
    unit = np.arange(len(label)) if unit is None else np.unique(unit, return_inverse=True)[1]
    units = int(unit.max()) + 1 if len(unit) else 0
    own = {y: np.flatnonzero(label == y) for y in (0, 1)}
    n = {y: len(rows) for y, rows in own.items()}
    area = np.full(len(score), math.nan)
    parts = {y: np.full((len(score), units), math.nan) for y in (0, 1)}
    if min(n.values()):
        for i, one in enumerate(score):
            if np.isnan(one).any():
                continue
            everyone = stats.rankdata(one)
            for y, rows in own.items():
                below = (everyone[rows] - stats.rankdata(one[rows])) / n[1 - y]  # share of the other class, ties half
                share = below if y else 1 - below
                area[i] = share.mean()
                parts[y][i] = np.bincount(unit[rows], share - area[i], units) / n[y]
    reals, fakes = (len(np.unique(unit[rows])) for rows in own.values())
    return Areas(area, parts[1], parts[0], fakes, reals)
