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
from dfl.metrics.calibration import COLDEST, HOTTEST, logit, platt, resolves, softened, threshold_at_fpr
from dfl.metrics.intervals import clopper_pearson

#: False positive rates that have a threshold, and shares of images with a verdict that have a band of doubt.
RATES = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 1.0)
#: Log-odds beyond these are cut off; and those that all are above.
FAR, NONE = 1e5, -math.inf
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
        odds: Fake from these log-odds among scores that are equal to the threshold, as of a detector whose scores round
            to 1.
        band: Unsure where the log-odds are nearer to the threshold's than this; 0 for never.
        temperature: Log-odds are divided by it for the probability; NaN for none.
        offset: And this is added.
        meaning: All of that in a sentence.
    """

    threshold: float
    odds: float
    band: float
    temperature: float
    offset: float
    meaning: str

    def verdicts(self, score: ArrayLike, log_odds: ArrayLike | None = None) -> list[Verdict]:
        """Return the verdicts on N images; that on NaN is real.

        Args:
            score: (N,) the sigmoid of a detector's log-odds, in float32.
            log_odds: (N,) themselves; by default what the scores tell of them.
        """
        values = np.asarray(score, np.float64).reshape(-1)
        odds = logit(values) if log_odds is None else np.asarray(log_odds, np.float64).reshape(-1)
        near = np.abs(odds - self.odds) < self.band
        # of a score alone no more is known than on which side of the threshold it lies
        fake = values >= self.threshold if log_odds is None else _is_fake(values, odds, self.threshold, self.odds)
        words = np.where(near, "unsure", np.where(fake, "fake", "real"))
        probability = special.expit(odds / self.temperature + self.offset)
        return [Verdict(*one) for one in zip(probability.tolist(), words.tolist(), strict=True)]

    def __call__(self, score: float, log_odds: float | None = None) -> Verdict:
        """Return the verdict on one image."""
        return self.verdicts(score, log_odds)[0]


@dataclass(frozen=True)
class Verdicts:
    """What validation says of a detector's scores: nothing but numbers, lists of numbers, and lists of such.

    All lists but ``coverages`` have an item for each threshold. The probability is that of images of which as many are
    fake as of the validation's; an interval takes its images for independent.

    Attributes:
        temperature: Of `dfl.metrics.calibration.platt`, with softened labels: log-odds are divided by it.
        reals: Real images of validation.
        fakes: Fake ones.
        coverages: Shares of validation images with a verdict.
        rates: Wanted false positive rates; `BALANCED` is the threshold of the best balanced accuracy.
        thresholds: Fake from this score.
        odds: And from these log-odds, see `Rule.odds`.
        fprs: Share of validation's reals that are called fake.
        lows: End of the 95 % interval of that rate on other reals of the same kind.
        highs: Its other end.
        bands: For each coverage the distance in log-odds from the threshold under which nothing is said.
        risks: For each coverage the share of wrong verdicts on validation.
        offset: Of `platt` too, and added to the divided log-odds; checkpoints from before it have none.
    """

    temperature: float
    reals: int
    fakes: int
    coverages: list[float]
    rates: list[float]
    thresholds: list[float]
    odds: list[float]
    fprs: list[float]
    lows: list[float]
    highs: list[float]
    bands: list[list[float]]
    risks: list[list[float]]
    offset: float = 0.0

    def __post_init__(self) -> None:
        lists = (self.thresholds, self.odds, self.fprs, self.lows, self.highs, self.bands, self.risks)
        shares = (*self.thresholds, *self.fprs, *self.lows, *self.highs, *self.rates, *self.coverages)
        inner = [*self.bands, *self.risks]
        if (
            not all(len(one) == len(self.rates) > 0 for one in lists)
            or not all(len(one) == len(self.coverages) for one in inner)
            or not all(0 <= value <= 1.001 for value in (*shares, *(v for one in self.risks for v in one)))
            or not all(value >= 0 for one in self.bands for value in one)
            or not math.isfinite(self.offset)
            or not 0.99 * COLDEST <= self.temperature <= 1.01 * HOTTEST
            or min(self.reals, self.fakes) < 1
        ):
            raise ValueError("are not those of a validation")

    @classmethod
    def fitted(
        cls, score: ArrayLike, label: ArrayLike, threshold: float, log_odds: ArrayLike | None = None
    ) -> "Verdicts | None":
        """Return what a validation says; None where one class is missing or a score is NaN.

        Args:
            score: (N,) probability of fake.
            label: (N,) 0 real, 1 fake.
            threshold: Of the best balanced accuracy.
            log_odds: (N,) of the scores, which still rank what rounds to a score of 1; by default from the scores.
        """
        score, label = (np.asarray(one, np.float64).reshape(-1) for one in (score, label))
        odds = logit(score) if log_odds is None else np.asarray(log_odds, np.float64).reshape(-1).clip(-FAR, FAR)
        if math.isnan(threshold) or np.isnan(odds).any() or not 0 < label.mean() < 1:
            return None
        real = odds[label == 0]
        hits = int((score[label == 0] >= threshold).sum())
        own = (hits / len(real), *clopper_pearson(hits, len(real)))
        # of equal scores all are fake here, as where validation and tests are measured
        points = [(BALANCED, threshold, float(logit(np.nextafter(np.float32(threshold), np.float32(0)))[0]), *own)]
        for rate in (one for one in RATES if resolves(len(real), one)):
            found = threshold_at_fpr(real, rate)
            at = float(np.float32(special.expit(found.threshold)))
            points.append((rate, at, found.threshold, found.fpr, found.low, found.high))
        bands, risks = [], []
        for _, at, at_odds, *_ in points:
            far = np.abs(odds - at_odds)
            is_wrong = _is_fake(score, odds, at, at_odds) != (label == 1)
            last = [math.ceil(c * len(far) - 1e-9) - 1 for c in COVERAGES[:-1]]
            widths = [*np.sort(far)[::-1][last].tolist(), 0.0]
            bands.append(widths)
            risks.append([float(is_wrong[far >= one].mean()) for one in widths])
        names = ("rates", "thresholds", "odds", "fprs", "lows", "highs")
        lists: dict[str, Any] = dict(zip(names, map(list, zip(*points, strict=True)), strict=True))
        lists |= {"coverages": list(COVERAGES), "bands": bands, "risks": risks}
        heat, offset = platt(odds, softened(label))
        return cls(temperature=heat, offset=offset, reals=len(real), fakes=len(score) - len(real), **lists)

    def plain(self) -> dict[str, Any]:
        """Return the numbers as a checkpoint holds them; ``Verdicts(**plain)`` is the same."""
        return asdict(self)

    def scaled(self, digits: int) -> str:
        """Return, in words, the log-odds whose sigmoid is the calibrated probability."""
        sign = "-" if self.offset < 0 else "+"
        return f"log-odds / {self.temperature:.{digits}g} {sign} {abs(self.offset):.{digits}g}"

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
        threshold, odds, band = self.thresholds[i], self.odds[i], self.bands[i][j]
        chosen = "the best balanced accuracy" if fpr is None else f"a false positive rate of {percent(fpr)}"
        meaning = (
            f"fake from score {threshold:.4g} (log-odds {odds:.3g}), chosen for {chosen}: {percent(self.fprs[i])} of "
            f"{self.reals:,} real validation images are called fake, of others like them {percent(self.lows[i])} to "
            f"{percent(self.highs[i])} (95 % interval)"
        )
        if band:
            meaning += (
                f"; unsure within {band:.3g} of it in log-odds: {percent(coverage)} of validation images have a "
                f"verdict, of which {percent(self.risks[i][j])} are wrong"
            )
        return Rule(threshold, odds, band, self.temperature, self.offset, meaning)


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
        meaning = "fake from score 0.5, which no validation has chosen; nothing is calibrated"
        return Rule(0.5, NONE, 0.0, math.nan, math.nan, meaning)
    meaning = f"fake from score {threshold:.4g}, chosen on validation; it is not known how many reals that calls fake"
    return Rule(threshold, NONE, 0.0, math.nan, math.nan, meaning)


def percent(share: float) -> str:
    """Return a share in percent, with as many digits as it takes."""
    return f"{100 * share:.3g} %"


def _is_fake(score: np.ndarray, log_odds: np.ndarray, threshold: float, odds: float) -> np.ndarray:
    return (score > threshold) | ((score == threshold) & (log_odds >= odds))


def _place(values: list[float], wanted: float, flag: str) -> int:
    for i, value in enumerate(values):
        if math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-12):
            return i
    raise UserError(f"{flag} {wanted:g} is none of those that validation was asked about: {_listed(values)}")


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values if value != BALANCED)
