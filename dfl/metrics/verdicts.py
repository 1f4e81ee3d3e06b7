"""What a score means: a calibrated probability, a verdict, and the sentence behind it, from what validation showed.

`Verdicts` are plain numbers that a checkpoint holds, `Rule` is what follows from them for a wanted false positive rate
and coverage. A rule asks for a score alone, so it gives the same answers wherever the scores come from.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from dfl.errors import UserError
from dfl.metrics.calibration import (
    COLDEST,
    HOTTEST,
    FprThreshold,
    logit,
    resolves,
    softened,
    temperature,
    threshold_at_fpr,
)
from dfl.metrics.intervals import clopper_pearson

#: False positive rates that have a threshold, and shares of images with a verdict that have a band of doubt.
RATES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
#: In the place of a rate: the threshold of the best balanced accuracy.
BALANCED = 0.0


class Verdict(NamedTuple):
    """The answer for one image: the calibrated probability of fake (NaN where nothing was calibrated), and the word."""

    probability: float
    verdict: Literal["real", "fake", "unsure"]


@dataclass(frozen=True)
class Rule:
    """How a score becomes a verdict.

    Attributes:
        threshold: Fake from this score, a float32 number.
        band: Unsure where the log-odds are nearer to the threshold's than this; 0 for never.
        temperature: Log-odds are divided by it for the probability; NaN for none.
        meaning: All of that in a sentence.
    """

    threshold: float
    band: float
    temperature: float
    meaning: str

    def verdicts(self, score: ArrayLike) -> list[Verdict]:
        """Return the verdicts on scores (N,): the sigmoid of a detector's log-odds, in float32; NaN is real."""
        values = np.asarray(score, np.float64).reshape(-1)
        odds = logit(values)
        near = np.abs(odds - logit(self.threshold)) < self.band
        words = np.where(near, "unsure", np.where(values >= self.threshold, "fake", "real"))
        probability = special.expit(odds / self.temperature)
        return [Verdict(*one) for one in zip(probability.tolist(), words.tolist(), strict=True)]

    def __call__(self, score: float) -> Verdict:
        """Return the verdict on one score."""
        return self.verdicts(score)[0]

    def of_log_odds(self, log_odds: float) -> Verdict:
        """Return the verdict on the log-odds of fake of a detector."""
        return self(float(special.expit(np.float32(log_odds))))


@dataclass(frozen=True)
class Verdicts:
    """What validation says of a detector's scores: nothing but numbers, lists of numbers, and lists of such.

    All lists but ``coverages`` have an item for each threshold. The probability is that of images of which as many are
    fake as of the validation's; an interval takes its images for independent.

    Attributes:
        temperature: Of `dfl.metrics.calibration.temperature`, with softened labels.
        reals: Real images of validation.
        fakes: Fake ones.
        coverages: Shares of validation images with a verdict.
        rates: Wanted false positive rates; `BALANCED` is the threshold of the best balanced accuracy.
        thresholds: Fake from this score.
        fprs: Share of validation's reals that are called fake.
        lows: End of the 95 % interval of that rate on other reals of the same kind.
        highs: Its other end.
        bands: For each coverage the distance in log-odds from the threshold under which nothing is said.
        risks: For each coverage the share of wrong verdicts on validation.
    """

    temperature: float
    reals: int
    fakes: int
    coverages: list[float]
    rates: list[float]
    thresholds: list[float]
    fprs: list[float]
    lows: list[float]
    highs: list[float]
    bands: list[list[float]]
    risks: list[list[float]]

    def __post_init__(self) -> None:
        lists = (self.thresholds, self.fprs, self.lows, self.highs, self.bands, self.risks)
        shares = (*self.thresholds, *self.fprs, *self.lows, *self.highs, *self.rates, *self.coverages)
        inner = [*self.bands, *self.risks]
        if (
            not all(len(one) == len(self.rates) > 0 for one in lists)
            or not all(len(one) == len(self.coverages) for one in inner)
            or not all(0 <= value <= 1.001 for value in (*shares, *(v for one in self.risks for v in one)))
            or not all(value >= 0 for one in self.bands for value in one)
            or not 0.99 * COLDEST <= self.temperature <= 1.01 * HOTTEST
            or min(self.reals, self.fakes) < 1
        ):
            raise ValueError("are not those of a validation")

    @classmethod
    def fitted(cls, score: ArrayLike, label: ArrayLike, threshold: float) -> "Verdicts | None":
        """Return what the scores of a validation say; None where one class is missing or a score is NaN.

        Args:
            score: (N,) probability of fake.
            label: (N,) 0 real, 1 fake.
            threshold: Of the best balanced accuracy.
        """
        score, label = (np.asarray(one, np.float64).reshape(-1) for one in (score, label))
        heat = temperature(logit(score), softened(label))
        if not 0 < label.mean() < 1 or math.isnan(heat) or math.isnan(threshold):
            return None
        real, wrong = score[label == 0], label == 1
        hits = int((real >= threshold).sum())
        own = FprThreshold(threshold, hits / len(real), *clopper_pearson(hits, len(real)), True, len(real))
        points = [(BALANCED, own), *((r, threshold_at_fpr(real, r)) for r in RATES if resolves(len(real), r))]
        bands, risks = [], []
        for _, point in points:
            far = np.abs(logit(score) - logit(point.threshold))
            is_wrong = (score >= point.threshold) != wrong
            last = [math.ceil(c * len(far) - 1e-9) - 1 for c in COVERAGES[:-1]]
            at = [*np.sort(far)[::-1][last].tolist(), 0.0]
            bands.append(at)
            risks.append([float(is_wrong[far >= one].mean()) for one in at])
        thresholds, fprs, lows, highs = ([float(point[i]) for _, point in points] for i in range(4))
        rates = [rate for rate, _ in points]
        counts = (len(real), len(score) - len(real))
        return cls(heat, *counts, list(COVERAGES), rates, thresholds, fprs, lows, highs, bands, risks)

    def plain(self) -> dict[str, Any]:
        """Return the numbers as a checkpoint holds them; ``Verdicts(**plain)`` is the same."""
        return asdict(self)

    def rule(self, fpr: float | None = None, coverage: float = 1.0) -> Rule:
        """Return how scores become verdicts.

        Args:
            fpr: Wanted share of real images that are called fake, one of ``rates``; by default the threshold of the
                best balanced accuracy.
            coverage: Share of images like the validation's that are to have a verdict, one of ``coverages``.

        Raises:
            UserError: For a rate that validation has too few reals for, and for numbers that are not among those.
        """
        if fpr is not None and not 0 < fpr < 1:
            raise UserError(f"--fpr {fpr:g} must be a share of real images between 0 and 1, such as 0.05")
        if fpr is not None and not resolves(self.reals, fpr):
            raise UserError(
                f"--fpr {fpr:g} needs at least {math.ceil(1 / fpr - 1e-9):,} real validation images, and this detector "
                f"had {self.reals:,}: take one of {_listed(self.rates) or 'none'}, or validate on more when training"
            )
        i = _place(self.rates, BALANCED if fpr is None else fpr, "--fpr")
        j = _place(self.coverages, coverage, "--coverage")
        threshold, band = self.thresholds[i], self.bands[i][j]
        chosen = "the best balanced accuracy" if fpr is None else f"a false positive rate of {percent(fpr)}"
        meaning = (
            f"fake from score {threshold:.4g}, chosen for {chosen}: {percent(self.fprs[i])} of {self.reals:,} real "
            f"validation images are called fake, of others like them {percent(self.lows[i])} to "
            f"{percent(self.highs[i])} (95 % interval)"
        )
        if band:
            meaning += (
                f"; unsure within {band:.3g} of it in log-odds: {percent(coverage)} of validation images have a "
                f"verdict, of which {percent(self.risks[i][j])} are wrong"
            )
        return Rule(threshold, band, self.temperature, meaning)


def rule_of(verdicts: Verdicts | None, threshold: float, fpr: float | None = None, coverage: float = 1.0) -> Rule:
    """Return the rule of a detector, also of one whose validation is not known.

    Args:
        verdicts: What its checkpoint holds; None for nothing.
        threshold: Its threshold; NaN for none, which stands for 0.5.
        fpr: See `Verdicts.rule`.
        coverage: See `Verdicts.rule`.

    Raises:
        UserError: If a rate or a coverage is asked for that needs a validation.
    """
    if verdicts is not None:
        return verdicts.rule(fpr, coverage)
    if fpr is not None or coverage != 1:
        flag = "--fpr" if fpr is not None else "--coverage"
        raise UserError(
            f"{flag} needs what a validation showed, and this detector brings no such numbers: train it with this dfl "
            "on validation images of both classes, or leave it out"
        )
    if math.isnan(threshold):
        return Rule(0.5, 0.0, math.nan, "fake from score 0.5, which no validation has chosen; nothing is calibrated")
    meaning = f"fake from score {threshold:.4g}, chosen on validation; it is not known how many reals that calls fake"
    return Rule(threshold, 0.0, math.nan, meaning)


def percent(share: float) -> str:
    """Return a share in percent, with as many digits as it takes."""
    return f"{100 * share:.3g} %"


def _place(values: list[float], wanted: float, flag: str) -> int:
    for i, value in enumerate(values):
        if math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-12):
            return i
    raise UserError(f"{flag} {wanted:g} is none of those that validation was asked about: {_listed(values)}")


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values if value != BALANCED)
