"""Rates by group with intervals, how far groups lie apart, and what of it is more than chance.

Every domain is examined by itself: where domains hold groups in different shares, a mixture shows differences that no
domain has. `docs/fairness.md` says what each number means and what it cannot say.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy import stats

from dfl.evaluation.scores import Scores
from dfl.fairness import resample
from dfl.fairness.findings import findings
from dfl.metrics import attributes, auroc
from dfl.metrics.fairness import TOGETHER, VERDICTS, GroupFairness, rates, verdict_gaps
from dfl.metrics.intervals import holm, interval

#: The chance of any false alarm in the whole audit.
ALARMS = 0.05
#: Shuffles of the tests: at most so many, and so many values at once.
SHUFFLES, MOST_SHUFFLED = 19_999, 50_000_000
#: Thresholds of the curves.
GRID = np.linspace(0, 1, 101)
RATES = ("fpr", "tpr", "acc", "positive")

#: Plain values, as audit.json has them.
Content = dict[str, Any]


def examine(scores: Scores, threshold: float = math.nan, resamples: int = 1000, seed: int = 0) -> Content:
    """Compare the groups of every domain.

    Args:
        scores: Of one detector.
        threshold: Of the verdict; NaN takes that of the scores, or 0.5.
        resamples: Of the intervals.
        seed: Of resamples and shuffles.

    Returns:
        Plain values: ``images``, ``threshold`` and where it is ``from``, ``left_out``, ``domains`` (see `_domain`),
        and ``findings``, each with ``severity`` and ``text``.
    """
    source = "typed"
    if math.isnan(threshold):
        in_file = not math.isnan(scores.threshold)
        threshold, source = (scores.threshold, "of the scores' file") if in_file else (0.5, "by default")
    content: Content = {
        "images": len(scores.score),
        "threshold": threshold,
        "threshold_from": source,
        "left_out": scores.left_out,
        "repeated": scores.repeated,
        "resamples": resamples,
        "seed": seed,
        "domains": {},
    }
    for place, domain in enumerate(dict.fromkeys(scores.domain.tolist())):
        rows = scores.domain == domain
        part = {name: getattr(scores, name)[rows] for name in ("score", "label", "group", "video")}
        rng = np.random.default_rng([seed, place])
        content["domains"][domain] = _domain(**part, threshold=threshold, resamples=resamples, rng=rng)
    tests = {
        f"{domain}/{attribute}/{i}": test
        for domain, one in content["domains"].items()
        for attribute, by in one["attributes"].items()
        for i, test in enumerate(by["tests"])
    }
    for name, p in holm({name: test["p"] for name, test in tests.items()}).items():
        tests[name]["p_corrected"] = p
    content["comparisons"] = len(tests)
    content["findings"] = [{"severity": s, "text": t} for s, t in findings(content, ALARMS)]
    return content


def _domain(
    score: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    video: np.ndarray,
    threshold: float,
    resamples: int,
    rng: np.random.Generator,
) -> Content:
    """Return ``real``, ``fake``, ``auroc``, ``by_video``, and ``attributes``: by name what `_attribute` returns."""
    names = sorted(set(group.tolist()))
    number = {name: i for i, name in enumerate(names)}
    units = resample.Units(score, label, np.array([number[g] for g in group], np.int64), video)
    scores, labels, groups = (torch.from_numpy(column) for column in (score, label, units.group))
    parts = {
        attribute: GroupFairness(ids, scores, labels, groups, threshold)
        for attribute, ids in attributes(number).items()
    }
    times = SHUFFLES if units.alone else min(SHUFFLES, max(999, MOST_SHUFFLED // len(units.size)))
    shuffled = units.shuffled(threshold, times, rng)
    resampled = _resampled(
        units, [ids for one in parts.values() for ids in one.groups.values()], threshold, resamples, rng
    )
    ones = np.ones((1, len(score)))
    grid = np.concatenate([units.confusion(ones, t) for t in GRID])
    counts = units.confusion(ones, threshold)
    return {
        "real": int((label == 0).sum()),
        "fake": int((label == 1).sum()),
        "auroc": float(auroc(scores, labels)),
        "by_video": not units.alone,
        "attributes": {name: _attribute(one, units, counts, resampled, shuffled, grid) for name, one in parts.items()},
    }


def _resampled(
    units: resample.Units, groups: list[list[int]], threshold: float, times: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Return resampled ``counts`` (times, G, 2, 2), and the resampled AUROC (times,) of each group by its ids."""
    counts: list[np.ndarray] = []
    areas: dict[str, list[np.ndarray]] = {}
    sets = {str(ids): np.flatnonzero(np.isin(units.group, ids)) for ids in [*groups, [*range(units.groups)]]}
    for weight in units.resampled(times, rng):
        counts.append(units.confusion(weight, threshold))
        for key, rows in sets.items():
            area = resample.auroc(units.score[rows], units.label[rows], weight[:, rows])
            areas.setdefault(key, []).append(area)
    return {"counts": np.concatenate(counts)} | {key: np.concatenate(parts) for key, parts in areas.items()}


def _attribute(
    measured: GroupFairness,
    units: resample.Units,
    counts: np.ndarray,
    resampled: Mapping[str, np.ndarray],
    shuffled: np.ndarray,
    grid: np.ndarray,
) -> Content:
    """Return ``groups``, ``left_out``, ``gaps``, ``curves``, ``tests`` and ``least_difference`` of one attribute.

    Args:
        measured: Its groups and their rates.
        units: The images.
        counts: (1, G, 2, 2) at the threshold; the same resampled, shuffled and at every threshold of `GRID`.
        resampled: Of `_resampled`.
        shuffled: (times, G, 2, 2).
        grid: (101, G, 2, 2).
    """
    groups, of_group = measured.groups, measured.rates()
    compared = [name for name in groups if name not in measured.left_out]

    def pool(cells: np.ndarray) -> torch.Tensor:
        """Sum (k, G, 2, 2) over the ids of each compared group, and over all groups last."""
        sums = [cells[:, groups[name]].sum(1) for name in compared] + [cells.sum(1)]
        return torch.from_numpy(np.stack(sums, 1).astype(np.float64))

    table: Content = {}
    for name in [*groups, TOGETHER]:
        ids, row = groups.get(name, [*range(units.groups)]), of_group[name]
        many = rates(torch.from_numpy(resampled["counts"][:, ids].sum(1)))
        table[name] = {"real": row["real"], "fake": row["fake"], "eer": row["eer"]}
        for rate in RATES:
            n = units.count(0, ids) if rate == "fpr" else units.count(1, ids) if rate == "tpr" else 0
            table[name][rate] = interval(row[f"{rate}_val"], many[rate].numpy(), n, rate=True)
        table[name]["auroc"] = interval(row["auroc"], resampled[str(ids)])
    pooled, by_chance = pool(counts), pool(shuffled)
    gaps: Content = {}
    own, many, null, curves = (_gaps(p) for p in (pooled, pool(resampled["counts"]), by_chance, pool(grid)))
    for measure in VERDICTS:
        value = float(own[measure][0])
        gaps[measure] = interval(value, many[measure].numpy()) | _against(value, null[measure].numpy())
    gaps["gap_auroc"] = {"value": math.nan, "low": math.nan, "high": math.nan}
    if len(compared) > 1:
        areas = np.stack([resampled[str(groups[name])] for name in compared], 1)
        area = [of_group[name]["auroc"] for name in compared]
        gaps["gap_auroc"] = interval(max(area) - min(area), areas.max(1) - areas.min(1))
    return {
        "groups": table,
        "left_out": measured.left_out,
        "gaps": gaps,
        "curves": {"threshold": GRID.tolist()} | {n: curves[n].tolist() for n in ("gap_fpr", "gap_tpr", "F_FPR")},
        "tests": list(_tests(compared, pooled[0], by_chance)) if len(compared) > 1 else [],
        "least_difference": _least(compared, table, units, groups) if len(compared) > 1 else None,
    }


def _gaps(pooled: torch.Tensor) -> dict[str, torch.Tensor]:
    return verdict_gaps(pooled[:, :-1], pooled[:, -1])


def _against(value: float, null: np.ndarray) -> dict[str, float]:
    """Return the mean of a measure ``by_chance``, and ``p``: how often chance gives as much."""
    if math.isnan(value):
        return {"by_chance": math.nan, "p": math.nan}
    more = int((null >= value - 1e-12).sum())
    return {"by_chance": float(null.mean()), "p": (1 + more) / (1 + len(null))}


def _tests(compared: list[str], pooled: torch.Tensor, by_chance: torch.Tensor) -> Iterator[Content]:
    """Yield a test of each group against the others together, for FPR and TPR; of two groups only the first."""
    for i, name in enumerate(compared if len(compared) > 2 else compared[:1]):
        own, others = rates(pooled[i]), rates(pooled[-1] - pooled[i])
        own_null, others_null = rates(by_chance[:, i]), rates(by_chance[:, -1] - by_chance[:, i])
        for rate, label in (("fpr", 0), ("tpr", 1)):
            difference = float(own[rate] - others[rate])
            if math.isnan(difference):
                continue
            null = (own_null[rate] - others_null[rate]).abs().numpy()
            yield {
                "group": name,
                "rate": rate,
                "value": float(own[rate]),
                "others": float(others[rate]),
                "n": int(pooled[i, label].sum()),
                "n_others": int((pooled[-1] - pooled[i])[label].sum()),
                "p": _against(abs(difference), null)["p"],
            }


def _least(compared: list[str], table: Content, units: resample.Units, groups: Mapping[str, list[int]]) -> Content:
    """Return the difference in FPR that the smallest group would need to be found in 4 of 5 cases (Bonferroni)."""
    n = {name: units.count(0, groups[name]) for name in compared}
    smallest = min(n, key=lambda name: n[name])
    rest = sum(n.values()) - n[smallest]
    p = min(max(table[TOGETHER]["fpr"]["value"], 0.05), 0.95)  # at 0 or 1 the formula would promise too much
    comparisons = 2 * (len(compared) if len(compared) > 2 else 1)
    reach = float(stats.norm.ppf(1 - ALARMS / 2 / comparisons) + stats.norm.ppf(0.8))
    difference = reach * math.sqrt(p * (1 - p) * (1 / n[smallest] + 1 / rest))
    return {"group": smallest, "units": n[smallest], "difference": min(difference, 1.0)}
