"""What of a table of detectors and domains is more than chance: resamples of its images, and ranks over its domains.

Paired DeLong tests are in `dfl.metrics.delong`, intervals and Holm's correction in `dfl.metrics.intervals`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from lightning_utilities.core.imports import RequirementCache
from scipy import sparse, stats

from dfl.benchmark.units import Units, sorted_units
from dfl.errors import UserError
from dfl.metrics.delong import normal_p
from dfl.metrics.intervals import LEVEL, interval

#: Units of one class that are drawn one by one; of more, as many packs of units are drawn.
MOST_UNITS = 16_384
#: Distinct scores that are told apart; of more, quantiles of each class are, and the highest 4 % more finely.
MOST_SCORES = 4096
QUANTILES = np.concatenate([np.linspace(0, 0.96, 769), np.linspace(0.96, 1, 257)[1:-1]])
#: Resamples that are computed at once.
BLOCK = 125
RANKED, VERDICTS = ("auroc", "ap", "eer", "tpr_at_1fpr"), ("bacc_val", "acc_real", "acc_fake", "fpr")
MAX_FPR = 0.01


class Resamples:
    """Bootstrap resamples of the images of a domain, the same for all detectors and variants: paired.

    Units are drawn with replacement, as many as there are, among reals and among fakes apart. The draws of a class
    depend on the seed and on the names of its units alone, so domains that share their reals draw the same reals, and
    where reals and fakes have the same units (each fake from a real that is there) both are drawn together. Where only
    some units are in both classes, the classes are drawn independently, which makes intervals of rank measures wider
    rather than too narrow.

    Of a class with more than ``MOST_UNITS`` units, units are packed at random into as many packs, all of one size
    but for one unit, and packs are drawn. That is a bootstrap of clusters; that clusters are fewer than units blurs
    widths by 1 / sqrt(2 x packs) = 0.6 %.

    Args:
        label: (n,) 0 real, 1 fake.
        unit: (n,) names, see `unit_names`; or what `sorted_units` returns of them.
        resamples: How many.
        seed: Of the draws.
        most_units: Of a class, drawn one by one.
    """

    def __init__(
        self, label: np.ndarray, unit: Any, resamples: int = 1000, seed: int = 0, most_units: int = MOST_UNITS
    ) -> None:
        self.label, self.resamples = np.asarray(label), resamples
        units = unit if isinstance(unit, Units) else sorted_units(unit, self.label)
        #: Units of reals and of fakes, and of both together.
        self.units, self.all_units = {0: 0, 1: 0}, int(units.place.max(initial=-1)) + 1
        # By class that is there: the pack of each of its images, and how often each pack was drawn.
        self._pack: dict[int, np.ndarray] = {}
        self._drawn: dict[int, list[np.ndarray]] = {}
        for y, key in units.keys.items():
            own, there = units.place[self.label == y], np.zeros(self.all_units, bool)
            there[own] = True
            pack = (np.cumsum(there, dtype=np.int32) - 1)[own]
            self.units[y] = int(there.sum())
            rng, packs = np.random.default_rng([seed, *key]), min(self.units[y], most_units)
            if packs < self.units[y]:
                pack = (rng.permutation(self.units[y]) % packs).astype(np.int32)[pack]
            self._pack[y] = pack.astype(np.min_scalar_type(-packs))
            self._drawn[y] = list(_draws(packs, resamples, rng))

    def metrics(self, score: np.ndarray, threshold: float = math.nan) -> dict[str, np.ndarray]:
        """Return what each resample gives, float64 (R,), by name: those of ``RANKED`` and ``VERDICTS``.

        They are those of `dfl.metrics.binary`, each image counting as often as it was drawn; NaN where those are. But
        ``tpr_at_1fpr`` lets one real less through, so that 1 % of all reals pass in the mean. Of more than
        ``MOST_SCORES`` distinct scores, neighbours are tied into about 2,000 bins, and all resamples are shifted by
        what that changes in the images as they are. Verdicts are exact, as a bin ends at the threshold.

        Args:
            score: float32 or float64 (n,).
            threshold: Fake from here; NaN leaves verdicts undefined.
        """
        found = {name: np.full(self.resamples, math.nan) for name in (*RANKED, *VERDICTS)}
        if np.isnan(score).any():
            return found
        distinct, place = _distinct(np.asarray(score))
        rows = {y: self.label == y for y in self._pack}
        counts = {y: np.bincount(place[own], minlength=len(distinct)).astype(np.int32) for y, own in rows.items()}
        first = _bins(distinct, counts, threshold)
        fake = None if math.isnan(threshold) else int((distinct[first] >= np.float64(threshold)).sum())
        shift = _shift(counts, first) if len(counts) == 2 and len(first) < len(distinct) else {}
        place = np.repeat(np.arange(len(first), dtype=np.int32), np.diff([*first, len(distinct)]))[place]
        del distinct, counts
        cells = {y: self._cells(y, place[own], len(first)) for y, own in rows.items()}
        parts = [
            _measures({y: cells[y] @ block for y, block in zip(cells, blocks, strict=True)}, fake)
            for blocks in zip(*self._drawn.values(), strict=True)
        ]
        found |= {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
        return found | {name: np.clip(found[name] + change, 0, 1) for name, change in shift.items()}

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return the mean of each resample of one number per image, float64 (R,), such as an IoU.

        Args:
            values: float64 (n,); NaN is left out.
        """
        sums = np.zeros((2, self.resamples))
        for y, pack in self._pack.items():
            own = values[self.label == y]
            known = ~np.isnan(own)
            weights = own[known], np.ones(known.sum())
            of_pack = [np.bincount(pack[known], w, len(self._drawn[y][0])) for w in weights]
            sums += np.concatenate([np.stack(of_pack) @ block.astype(np.float64) for block in self._drawn[y]], 1)
        with np.errstate(invalid="ignore"):
            return np.asarray(sums[0] / sums[1])

    def _cells(self, y: int, bin_of: np.ndarray, bins: int) -> sparse.csr_array:
        """Return how many images of a class are in each bin and pack, int32 (bins, packs)."""
        ones = np.ones(len(bin_of), np.int32)
        return sparse.coo_array((ones, (bin_of, self._pack[y])), (bins, len(self._drawn[y][0]))).tocsr()


def _distinct(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct scores, from the highest down, and the place of each image's among them, int32 (n,)."""
    order = np.argsort(-score)
    falling = score[order]
    new = np.ones(len(score), bool)
    np.not_equal(falling[1:], falling[:-1], out=new[1:])
    place = np.empty(len(score), np.int32)
    place[order] = np.cumsum(new, dtype=np.int32) - 1
    return falling[new], place


def _draws(units: int, resamples: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield how often each unit was drawn, integers (units, up to BLOCK) as small as may be, for all resamples."""
    for start in range(0, resamples, BLOCK):
        drawn = np.empty((min(BLOCK, resamples - start), units), np.int32)
        for row in drawn:
            row[:] = np.bincount(rng.integers(0, units, units), minlength=units)
        yield drawn.T.astype(np.min_scalar_type(drawn.max(initial=0)), order="C")


def _bins(distinct: np.ndarray, counts: Mapping[int, np.ndarray], threshold: float) -> np.ndarray:
    """Return where bins of falling distinct scores begin, int64 (K,); one begins with the first below the threshold."""
    if len(distinct) <= MOST_SCORES:
        return np.arange(len(distinct))
    first = [np.zeros(1, np.int64), np.flatnonzero(np.diff(distinct >= np.float64(threshold))) + 1]
    for own in counts.values():
        upto = own.cumsum()
        first.append(np.searchsorted(upto, (1 - QUANTILES) * upto[-1], "right"))
    places = np.unique(np.concatenate(first))
    return places[places < len(distinct)]


def _measures(counts: Mapping[int, np.ndarray], fake: int | None) -> dict[str, np.ndarray]:
    """Return the defined measures of weighted images, float64 (R,).

    Args:
        counts: By class that is there, the weight of each score (K, R), from the highest score down.
        fake: So many of the scores are called fake; None leaves verdicts out.
    """
    upto = {y: np.cumsum(own, 0, dtype=np.float64) for y, own in counts.items()}
    found: dict[str, np.ndarray] = {}
    if fake is not None:
        share = {y: (own[fake - 1] if fake else 0 * own[0]) / own[-1] for y, own in upto.items()}
        if 0 in share:
            found |= {"acc_real": 1 - share[0], "fpr": share[0]}
        if 1 in share:
            found["acc_fake"] = share[1]
        if len(share) == 2:
            found["bacc_val"] = (1 - share[0] + share[1]) / 2
    return found | _ranked(counts, upto[0], upto[1]) if len(counts) == 2 else found


def _shift(counts: Mapping[int, np.ndarray], first: np.ndarray) -> dict[str, np.ndarray]:
    """Return what tying scores into bins takes from the measures of `RANKED`, (1,) each.

    Args:
        counts: By class, images of each score (K,).
        first: Where bins begin.
    """
    tied = _measures({y: np.add.reduceat(own, first)[:, None] for y, own in counts.items()}, None)
    exact = _measures({y: own[:, None] for y, own in counts.items()}, None)
    return {name: exact[name] - tied[name] for name in exact}


def _ranked(counts: Mapping[int, np.ndarray], fp: np.ndarray, tp: np.ndarray) -> dict[str, np.ndarray]:
    """Return the measures of `RANKED`, float64 (R,), of weights and their cumulative sums (K, R)."""
    reals, fakes, columns = fp[-1], tp[-1], np.arange(fp.shape[1])

    def at(row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return FPR and TPR where ``row`` scores are called fake."""
        there = np.maximum(row - 1, 0), columns
        return np.where(row, fp[there] / reals, 0), np.where(row, tp[there] / fakes, 0)

    ties = np.einsum("kr,kr->r", counts[0], counts[1], dtype=np.float64)
    auroc = (np.einsum("kr,kr->r", counts[0], tp) - ties / 2) / (reals * fakes)
    precision = tp + fp
    np.divide(tp, np.maximum(precision, 1, out=precision), out=precision)  # nothing drawn yet: 0 / 1, and no gain
    ap = np.einsum("kr,kr->r", counts[1], precision) / fakes
    np.multiply(fp, fakes / reals, out=precision)
    precision += tp
    row = (precision < fakes * (1 - 1e-12)).sum(0)  # FPR + TPR < 1
    del precision
    (fpr, tpr), (fpr_right, tpr_right) = at(row), at(row + 1)
    share = (1 - fpr - tpr) / (fpr_right + tpr_right - fpr - tpr)
    # above the k-th highest of n reals lie k / (n + 1) of all reals, in the mean: the measure allows one more
    allowed = np.maximum(np.floor((reals + 1) * MAX_FPR + 1e-9) - 1, 0)
    tpr_at_fpr = at((fp <= allowed).sum(0))[1]
    return {"auroc": auroc, "ap": ap, "eer": fpr + share * (fpr_right - fpr), "tpr_at_1fpr": tpr_at_fpr}


def difference(value: float, resampled: np.ndarray) -> dict[str, float]:
    """Return a paired difference, such as of two detectors' means over domains: ``value``, ``low``, ``high`` and ``p``.

    The interval is that of the resampled differences, and p (two-sided) the normal one with their deviation: counting
    resamples could not go below 2 / (R + 1), too much for Holm's correction of many pairs. Without any deviation p is
    1 for a difference of 0, and else that count.

    Args:
        value: As measured; NaN gives NaN.
        resampled: The same of each resample, float64 (R,).
    """
    found, deviation = interval(value, resampled), float(np.nanstd(resampled)) if len(resampled) else math.nan
    if math.isnan(value) or math.isnan(deviation):
        return found | {"p": math.nan}
    if deviation > 1e-12:
        return found | {"p": normal_p(value, deviation)}
    return found | {"p": 2 / (len(resampled) + 1) if abs(value) > 1e-12 else 1.0}


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds, NaN of fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def ranks(values: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Rank detectors in each domain and ask whether ranks differ by more than chance (Demsar 2006).

    Args:
        values: float64 (domains, k), higher is better; domains with NaN are left out.
        names: Of the k detectors.

    Returns:
        ``average`` rank by name (1 is best, ties share), ``domains`` that count, ``friedman`` with ``statistic`` and
        ``p``, ``nemenyi`` p by pair, and ``critical``, the difference of average ranks that is significant at 5 %.
        Nothing for fewer than three detectors or two domains.

    Raises:
        UserError: If scikit-posthocs is not installed.
    """
    values = values[~np.isnan(values).any(1)]
    domains, k = values.shape
    if k < 3 or domains < 2:
        return {}
    if not RequirementCache("scikit-posthocs>=0.11"):
        raise UserError("ranks of detectors need the package scikit-posthocs: pip install 'dfl[benchmark]'")
    from scikit_posthocs import posthoc_nemenyi_friedman  # an extra, and it imports pandas and seaborn

    average = stats.rankdata(-values, axis=1).mean(0)
    statistic, p = (0.0, 1.0) if np.ptp(values, 1).max() == 0 else stats.friedmanchisquare(*values.T)
    nemenyi = np.asarray(posthoc_nemenyi_friedman(values))
    reach = stats.studentized_range.ppf(LEVEL, k, math.inf) / math.sqrt(2)
    return {
        "average": dict(zip(names, average.tolist(), strict=True)),
        "domains": domains,
        "friedman": {"statistic": float(statistic), "p": float(p)},
        "nemenyi": {a: dict(zip(names, row.tolist(), strict=True)) for a, row in zip(names, nemenyi, strict=True)},
        "critical": float(reach * math.sqrt(k * (k + 1) / (6 * domains))),
    }
