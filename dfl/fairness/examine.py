"""An audit: rates by group with intervals, how far they lie apart, and what of it is more than chance.

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
from dfl.metrics import attributes, auroc
from dfl.metrics.fairness import TOGETHER, VERDICTS, GroupFairness, rates, verdict_gaps

#: Share of intervals that hold what they estimate, and of false alarms that are put up with in the whole audit.
LEVEL, ALARMS = 0.95, 0.05
#: Shuffles of the tests: at most so many, and so many values at once.
SHUFFLES, MOST_SHUFFLED = 19_999, 50_000_000
#: Thresholds of the curves.
GRID = np.linspace(0, 1, 101)
#: A group with fewer images of a class has no firm rate.
FEW = 30
RATES = ("fpr", "tpr", "acc", "positive")
#: What a rate says, by its name: (of which images, what happens to them).
SAID = {"fpr": ("real images", "called fake"), "tpr": ("fake images", "found")}
MOST_FINDINGS = 12

Found = dict[str, Any]


def examine(scores: Scores, threshold: float = math.nan, resamples: int = 1000, seed: int = 0) -> Found:
    """Compare the groups of every domain.

    Args:
        scores: of one detector.
        threshold: of the verdict; NaN takes that of the scores, or 0.5.
        resamples: of the intervals.
        seed: of resamples and shuffles.

    Returns:
        Plain values: ``images``, ``threshold`` and where it is ``from``, ``left_out``, ``domains`` (see `_domain`),
        and ``findings``, each with ``severity`` and ``text``.
    """
    source = "typed"
    if math.isnan(threshold):
        known = not math.isnan(scores.threshold)
        threshold, source = (scores.threshold, "of the scores' file") if known else (0.5, "by default")
    found: Found = {
        "images": len(scores.score),
        "threshold": threshold,
        "threshold_from": source,
        "left_out": scores.lost,
        "repeated": scores.repeated,
        "resamples": resamples,
        "seed": seed,
        "domains": {},
    }
    for place, domain in enumerate(dict.fromkeys(scores.domain.tolist())):
        rows = scores.domain == domain
        part = {name: getattr(scores, name)[rows] for name in ("score", "label", "group", "video")}
        rng = np.random.default_rng([seed, place])
        found["domains"][domain] = _domain(**part, threshold=threshold, resamples=resamples, rng=rng)
    tests = {
        f"{domain}/{attribute}/{i}": test
        for domain, one in found["domains"].items()
        for attribute, by in one["attributes"].items()
        for i, test in enumerate(by["tests"])
    }
    for name, p in resample.holm({name: test["p"] for name, test in tests.items()}).items():
        tests[name]["p_corrected"] = p
    found["comparisons"] = len(tests)
    found["findings"] = [{"severity": s, "text": t} for s, t in findings(found)]
    return found


def _domain(
    score: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    video: np.ndarray,
    threshold: float,
    resamples: int,
    rng: np.random.Generator,
) -> Found:
    """Return ``real``, ``fake``, ``auroc``, ``by_video``, and ``attributes``: by name ``groups``, ``left_out``,
    ``gaps``, ``curves`` and ``tests``."""
    names = sorted(set(group.tolist()))
    number = {name: i for i, name in enumerate(names)}
    units = resample.Units(score, label, np.array([number[g] for g in group], np.int64), video)
    tensors = {k: torch.from_numpy(v) for k, v in (("score", score), ("label", label), ("group", units.group))}
    parts: dict[str, GroupFairness] = {}
    for attribute, groups in attributes(number).items():
        parts[attribute] = GroupFairness(groups, tensors["score"], tensors["label"], tensors["group"], threshold)
    times = SHUFFLES if units.alone else min(SHUFFLES, max(999, MOST_SHUFFLED // len(units.size)))
    chance = units.shuffled(threshold, times, rng)
    drawn = _draw(units, [ids for one in parts.values() for ids in one.groups.values()], threshold, resamples, rng)
    ones = np.ones((1, len(score)))
    grid = np.concatenate([units.confusion(ones, t) for t in GRID])
    return {
        "real": int((label == 0).sum()),
        "fake": int((label == 1).sum()),
        "auroc": float(auroc(tensors["score"], tensors["label"])),
        "by_video": not units.alone,
        "attributes": {
            name: _attribute(one, units, drawn, chance, grid, units.confusion(ones, threshold))
            for name, one in parts.items()
        },
    }


def _draw(
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
    one: GroupFairness,
    units: resample.Units,
    drawn: Mapping[str, np.ndarray],
    chance: np.ndarray,
    grid: np.ndarray,
    counts: np.ndarray,
) -> Found:
    groups, left_out, told = one.groups, one.left_out, one.rates()
    kept = [name for name in groups if name not in left_out]

    def pool(cells: np.ndarray) -> torch.Tensor:
        """Sum (k, G, 2, 2) over the ids of each kept group, and over all groups last."""
        sums = [cells[:, groups[name]].sum(1) for name in kept] + [cells.sum(1)]
        return torch.from_numpy(np.stack(sums, 1).astype(np.float64))

    table: Found = {}
    for name in [*groups, TOGETHER]:
        ids = groups.get(name, [*range(units.groups)])
        row = told[name] if name in groups else one.rates()[TOGETHER]
        resampled = rates(torch.from_numpy(drawn["counts"][:, ids].sum(1)))
        table[name] = {"real": row["real"], "fake": row["fake"], "eer": row["eer"]}
        for rate in RATES:
            n = units.count(0, ids) if rate == "fpr" else units.count(1, ids) if rate == "tpr" else 0
            table[name][rate] = interval(row[f"{rate}_val"], resampled[rate].numpy(), n)
        table[name]["auroc"] = interval(row["auroc"], drawn[str(ids)])
    real, fresh, shuffled, curve = pool(counts), pool(drawn["counts"]), pool(chance), pool(grid)
    gaps: Found = {}
    for measure in VERDICTS:
        value, many, null = (_gap(p)[measure].numpy() for p in (real, fresh, shuffled))
        gaps[measure] = interval(float(value[0]), many) | _against(float(value[0]), null)
    areas = np.stack([drawn[str(groups[name])] for name in kept], 1) if len(kept) > 1 else np.full((1, 1), math.nan)
    gap = max((told[n]["auroc"] for n in kept), default=math.nan) - min((told[n]["auroc"] for n in kept), default=0.0)
    gaps["gap_auroc"] = interval(gap if len(kept) > 1 else math.nan, areas.max(1) - areas.min(1))
    curves = {name: _gap(curve)[name].tolist() for name in ("gap_fpr", "gap_tpr", "F_FPR")}
    tests = list(_tests(kept, real[0], shuffled)) if len(kept) > 1 else []
    return {
        "groups": table,
        "left_out": left_out,
        "gaps": gaps,
        "curves": {"threshold": GRID.tolist(), **curves},
        "tests": tests,
        "least_difference": _least(kept, table, units, groups) if len(kept) > 1 else None,
    }


def _gap(pooled: torch.Tensor) -> dict[str, torch.Tensor]:
    return verdict_gaps(pooled[:, :-1], pooled[:, -1])


def interval(value: float, resampled: np.ndarray, n: int = 0) -> dict[str, float]:
    """Return a value with its 95 % interval: percentiles of resamples.

    A rate of 0 or 1 is the same in all resamples; its interval is that of Clopper and Pearson (1934) for n units.
    """
    if math.isnan(value):
        return {"value": math.nan, "low": math.nan, "high": math.nan}
    tail = (1 - LEVEL) / 2
    if n and value in (0.0, 1.0):
        reach = float(stats.beta.ppf(1 - tail, 1, n))  # n of n failed: the highest rate that does not rule it out
        return {"value": value, "low": 1 - reach if value else 0.0, "high": 1.0 if value else reach}
    known = resampled[np.isfinite(resampled)]
    low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (math.nan, math.nan)
    return {"value": value, "low": float(low), "high": float(high)}


def _against(value: float, null: np.ndarray) -> dict[str, float]:
    """Return the mean of a measure ``by_chance``, and ``p``: how often chance gives as much."""
    if math.isnan(value):
        return {"by_chance": math.nan, "p": math.nan}
    more = int((null >= value - 1e-12).sum())
    return {"by_chance": float(null.mean()), "p": (1 + more) / (1 + len(null))}


def _tests(kept: list[str], real: torch.Tensor, shuffled: torch.Tensor) -> Iterator[Found]:
    """Yield a test of each group against the others together, for FPR and TPR; of two groups only the first."""
    for i, name in enumerate(kept if len(kept) > 2 else kept[:1]):
        own, others = rates(real[i]), rates(real[-1] - real[i])
        mine, rest = rates(shuffled[:, i]), rates(shuffled[:, -1] - shuffled[:, i])
        for rate, label in (("fpr", 0), ("tpr", 1)):
            difference = float(own[rate] - others[rate])
            if math.isnan(difference):
                continue
            null = (mine[rate] - rest[rate]).abs().numpy()
            yield {
                "group": name,
                "rate": rate,
                "value": float(own[rate]),
                "others": float(others[rate]),
                "n": int(real[i, label].sum()),
                "n_others": int((real[-1] - real[i])[label].sum()),
                "p": _against(abs(difference), null)["p"],
            }


def _least(kept: list[str], table: Found, units: resample.Units, groups: Mapping[str, list[int]]) -> Found:
    """Return the difference in FPR that the smallest group would need to be found in 4 of 5 cases (Bonferroni)."""
    n = {name: units.count(0, groups[name]) for name in kept}
    smallest = min(n, key=lambda name: n[name])
    rest = sum(n.values()) - n[smallest]
    p = min(max(table[TOGETHER]["fpr"]["value"], 0.05), 0.95)  # at 0 or 1 the formula would promise too much
    comparisons = 2 * (len(kept) if len(kept) > 2 else 1)
    reach = float(stats.norm.ppf(1 - ALARMS / 2 / comparisons) + stats.norm.ppf(0.8))
    difference = reach * math.sqrt(p * (1 - p) * (1 / n[smallest] + 1 / rest))
    return {"group": smallest, "units": n[smallest], "difference": min(difference, 1.0)}


# in words


def findings(found: Found) -> Iterator[tuple[str, str]]:
    """Yield (severity, sentence): what the numbers say, and no more."""
    for reason, count in found["left_out"].items():
        yield "note", f"{count:,} images have {reason} and are left out"
    if found["repeated"]:
        yield "warning", f"{found['repeated']:,} paths stand in more than one row; copies make intervals too narrow"
    for domain, one in found["domains"].items():
        yield from _quality(domain, one)
        for attribute, by in one["attributes"].items():
            yield from _groups(f"{domain}, {attribute}", by)
    told = sorted(
        (
            (test["p_corrected"], domain, attribute, test)
            for domain, one in found["domains"].items()
            for attribute, by in one["attributes"].items()
            for test in by["tests"]
            if test["p_corrected"] < ALARMS
        ),
        key=lambda t: t[0],
    )
    for p, domain, attribute, test in told[:MOST_FINDINGS]:
        images, done = SAID[test["rate"]]
        yield (
            "warning",
            f"{domain}, {attribute}: {100 * test['value']:.1f} % of the {test['n']:,} {images} of {test['group']!r} "
            f"are {done}, {100 * test['others']:.1f} % of the {test['n_others']:,} of the others: more than chance "
            f"explains (corrected p = {p:.2g}). It says nothing of the cause",
        )
    if len(told) > MOST_FINDINGS:
        yield "warning", f"{len(told) - MOST_FINDINGS} more such differences are in audit.json"
    if not told and found["comparisons"]:
        yield (
            "note",
            f"no group differs from the others by more than chance explains, at {found['comparisons']} comparisons and "
            f"a 5 % chance of any false alarm. That is not proof of fairness",
        )
    for domain, one in found["domains"].items():
        for attribute, by in one["attributes"].items():
            if least := by["least_difference"]:
                yield (
                    "note",
                    f"{domain}, {attribute}: the smallest group, {least['group']!r}, has {least['units']:,} real "
                    f"{'units' if one['by_video'] else 'images'}; a difference in FPR under about "
                    f"{100 * least['difference']:.0f} points could well stay unseen there",
                )
    yield (
        "note",
        "groups are compared as they are in these images: age, pose, light, camera or generator may differ between "
        "them, and group labels may be guesses of another model",
    )


def _quality(domain: str, one: Found) -> Iterator[tuple[str, str]]:
    """Say where the detector is no detector here, so that equal rates mean little."""
    area = one["auroc"]
    together = next(iter(one["attributes"].values()))["groups"][TOGETHER]
    fpr, tpr = together["fpr"]["value"], together["tpr"]["value"]
    if area < 0.4:
        yield "error", f"{domain}: AUROC is {area:.3f}, under 0.4: the scores are upside down; look for inverted labels"
    elif area < 0.55:
        yield "warning", f"{domain}: AUROC is {area:.3f}, hardly better than chance; equal rates mean nothing here"
    if (fpr, tpr) in ((0.0, 0.0), (1.0, 1.0)):
        word = "fake" if fpr else "real"
        yield "warning", f"{domain}: every image is called {word} at this threshold, so no verdict differs by group"
    if one["by_video"]:
        yield "note", f"{domain}: frames of a video count as one unit in intervals and tests"


def _groups(where: str, by: Found) -> Iterator[tuple[str, str]]:
    for name, why in by["left_out"].items():
        yield "warning", f"{where}: {name!r} has {why} and is left out of the differences"
    few = [
        f"{name!r} ({one['real']:,} real, {one['fake']:,} fake)"
        for name, one in by["groups"].items()
        if name not in {*by["left_out"], TOGETHER} and min(one["real"], one["fake"]) < FEW
    ]
    if few:
        yield "warning", f"{where}: too few images for firm rates of {', '.join(few)}"
    shares = [
        one["fake"] / (one["real"] + one["fake"])
        for name, one in by["groups"].items()
        if name not in {*by["left_out"], TOGETHER}
    ]
    if shares and max(shares) - min(shares) > 0.1:
        yield (
            "note",
            f"{where}: {100 * min(shares):.0f} to {100 * max(shares):.0f} % of a group's images are fake; F_DP and "
            "F_OAE would differ from 0 for that alone",
        )
