"""What explains a benchmark's numbers: curves, scores, generators, calibration, thresholds, groups, wrong images."""

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import special

from dfl.benchmark.entries import Entry, Images
from dfl.benchmark.store import MAP
from dfl.metrics import binary, calibration, fairness
from dfl.metrics.names import FAIRNESS

#: Points of a curve, and bins of a histogram.
POINTS, BINS = 200, 40
#: Rates that thresholds are given for.
FPRS = (0.05, 0.01, 0.001)
#: Most wrong images of a domain and method, of each class.
WRONG = 4

Rows = list[dict[str, Any]]


def first_of_methods(entries: Sequence[Entry]) -> dict[str, Entry]:
    """Return the first seed of each method."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(entry.method, entry)
    return first


def curves(images: Images, entry: Entry) -> dict[str, list[float]]:
    """Return ROC and precision-recall curves with at most ``POINTS`` points each; empty where undefined."""
    rank, label = torch.from_numpy(images.rank(entry)), torch.from_numpy(images.label)
    found: dict[str, list[float]] = {}
    for names, curve in ((("fpr", "tpr"), binary.roc_curve), (("recall", "precision"), binary.pr_curve)):
        pair = curve(rank, label)
        kept = _spread(pair[0].numpy(), pair[1].numpy())
        found |= {name: np.round(part.numpy()[kept], 5).tolist() for name, part in zip(names, pair, strict=True)}
    return found


def _spread(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the places of at most ``POINTS`` points, evenly spread along a curve, its ends among them."""
    if len(x) <= POINTS:  # none of an undefined curve
        return np.arange(len(x))
    along = np.zeros(len(x))
    step = np.diff(x)
    np.abs(step, out=step)
    step += np.abs(np.diff(y))
    np.cumsum(step, out=along[1:])
    return np.unique(np.searchsorted(along, np.linspace(0, along[-1], POINTS)).clip(max=len(x) - 1))


def histogram(stored: Images, entry: Entry, alike: Images | None, other: Entry | None) -> dict[str, Any]:
    """Return shares of the scores of each class by bin, as stored and re-encoded alike."""
    edges = np.linspace(0, 1, BINS + 1)

    def shares(images: Images, one: Entry) -> dict[str, list[float]]:
        score = images.score(one)
        counts = {name: np.histogram(score[images.label == y], edges)[0] for y, name in enumerate(("real", "fake"))}
        return {name: np.round(c / max(1, c.sum()), 6).tolist() for name, c in counts.items()}

    after = shares(alike, other) if alike is not None and other is not None else {}
    return {"edges": edges.tolist(), **shares(stored, entry), "threshold": entry.threshold, "alike": after}


def shift(stored: Images, entries: Sequence[Entry], alike: Images, others: Sequence[Entry]) -> dict[str, float]:
    """Return by how much the mean score of each class moves when all images are re-encoded alike, mean over seeds."""

    def means(images: Images, some: Sequence[Entry]) -> list[float]:
        score = np.asarray(np.mean([images.score(one) for one in some], 0, dtype=np.float64))
        return [float(score[images.label == y].mean()) if (images.label == y).any() else math.nan for y in (0, 1)]

    before, after = means(stored, entries), means(alike, others)
    return {"real": after[0] - before[0], "fake": after[1] - before[1]}


def flips(stored: Images, other: Images) -> dict[str, float]:
    """Return the share of images whose verdict changes, by method, of the first seeds.

    None of a method without a threshold, or where images of one of the two could not be read.
    """
    after, shares = first_of_methods(other.entries), {}
    same = stored.same_paths(other)
    for method, entry in first_of_methods(stored.entries).items():
        if method in after and same and not math.isnan(entry.threshold):
            threshold = np.float64(entry.threshold)  # which is no float32 number
            verdicts = (i.score(e) >= threshold for i, e in ((stored, entry), (other, after[method])))
            shares[method] = float(np.not_equal(*verdicts).mean())
    return shares


def generators(images: Images, entries: Sequence[Entry], years: Mapping[str, int], until: int) -> Rows:
    """Return the AUROC of each generator's fakes against all reals of a domain, mean over seeds.

    Args:
        images: Of the domain.
        entries: Of one method.
        years: Year of a generator, where it is known.
        until: Last year of the data of the method's backbone; 0 if unknown.
    """
    (place, words), real, rows = images.names("generator"), images.label == 0, []
    names = words.to_pylist()
    counts = np.bincount(place[~real], minlength=len(names))
    if not any(name for name, n in zip(names, counts, strict=True) if n):  # a set that names none holds one
        place, names, counts = np.zeros(len(images), np.int8), [entries[0].domain], np.array([images.one_class(1)])
    for i, name in enumerate(names):
        if not name or not counts[i]:
            continue
        chosen = real | (place == i)
        label = torch.from_numpy(images.label[chosen])
        areas = [float(binary.auroc(torch.from_numpy(images.rank(e)[chosen]), label)) for e in entries]
        year = years.get(name, 0)
        old = bool(year and until and year <= until)
        rows.append(
            {"generator": name, "year": year or None, "n": int(counts[i])}
            | {"auroc": float(np.mean(areas))}
            | {"flag": f"the backbone's data go up to {until}: it may have seen such images" if old else ""}
        )
    return rows


class Pooled:
    """Scores of the first seed of each method over several domains, a real image that they share once.

    What is kept of a domain is which of its images count; scores are read again when they are asked for.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[Images, np.ndarray, dict[str, Entry]]] = []
        self._seen: list[pa.Array] = []
        #: Of each method, chosen on validation data.
        self.threshold: dict[str, float] = {}

    def add(self, images: Images) -> None:
        """Add the images of a domain."""
        new = np.ones(len(images), bool)
        if self._parts:
            last, counted, _ = self._parts[-1]
            self._seen.append(last.path.filter(pa.array(counted & (last.label == 0))).cast(pa.large_string()))
            seen = pc.is_in(images.path.cast(pa.large_string()), pa.concat_arrays(self._seen))
            new = ~seen.to_numpy(zero_copy_only=False) | (images.label == 1)
        firsts = first_of_methods(images.entries)
        self.threshold |= {method: entry.threshold for method, entry in firsts.items()}
        self._parts.append((images, new, firsts))

    def __contains__(self, method: str) -> bool:
        return any(method in firsts for _, _, firsts in self._parts)

    def reals(self, method: str) -> np.ndarray:
        """Return the scores of real images, float32 or float64 (n,)."""
        parts = self._parts_of(method)
        return np.concatenate([images.score(entry)[new & (images.label == 0)] for images, new, entry in parts])

    def _parts_of(self, method: str) -> list[tuple[Images, np.ndarray, Entry]]:
        return [(images, new, firsts[method]) for images, new, firsts in self._parts if method in firsts]

    def of(self, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return score and log-odds, float32 or float64 (n,), and label, int8 (n,)."""
        parts = self._parts_of(method)
        columns = (
            [images.score(entry)[new] for images, new, entry in parts],
            [images.log_odds(entry).astype(np.float32)[new] for images, new, entry in parts],
            [images.label[new] for images, new, _ in parts],
        )
        score, log_odds, label = map(np.concatenate, columns)
        return score, log_odds, label


def temperature(validation: Pooled, method: str) -> float:
    """Return a method's temperature of validation; NaN without the method."""
    return calibration.temperature(*validation.of(method)[1:]) if method in validation else math.nan


def calibrated(tested: Pooled, method: str, temperature: float) -> dict[str, Any]:
    """Return, of the tested images, ECE before and after the temperature, reliability, abstention.

    Args:
        tested: Domains that hold both classes.
        method: Its name.
        temperature: Of validation; NaN is undefined.
    """
    score, log_odds, label = tested.of(method)
    scaled = special.expit(log_odds / np.float64(temperature))
    del log_odds  # of millions of images, these are large
    labels = torch.from_numpy(label)
    found: dict[str, Any] = {
        "temperature": temperature,
        "ece": float(binary.ece(torch.from_numpy(score), labels)),
        "ece_scaled": float(binary.ece(torch.from_numpy(scaled), labels)),
    }
    del scaled
    found["reliability"] = {name: part.tolist() for name, part in calibration.reliability(score, label).items()}
    coverage, risk = calibration.coverage_risk(score, label, tested.threshold[method])
    kept = _spread(coverage, risk)
    return found | {
        "coverage": np.round(coverage[kept], 5).tolist(),
        "risk": np.round(risk[kept], 5).tolist(),
        "aurc": calibration.risk_area(coverage, risk),
    }


def thresholds(validation: Pooled, method: str, tested: Mapping[str, Pooled]) -> Rows:
    """Return thresholds for wanted FPRs from the reals of validation, with the interval of the true FPR.

    Args:
        validation: Holds the method.
        method: Its name.
        tested: By variant, domains that hold both classes; ``tested`` is the FPR of their real images.
    """
    real, rows = validation.reals(method), []
    others = {variant: pooled.reals(method) for variant, pooled in tested.items() if method in pooled}
    for fpr in FPRS if len(real) else ():
        one = calibration.threshold_at_fpr(real, fpr)
        least = np.float64(one.threshold)
        shares = {variant: float((score >= least).mean()) for variant, score in others.items()}
        rows.append(one._asdict() | {"fpr": fpr, "reached": one.fpr, "tested": shares})
    return rows


def groups(images: Images, entry: Entry, wanted: Sequence[str]) -> Rows:
    """Return how far groups of people lie apart, at the threshold of validation, by attribute.

    Args:
        images: Of a domain.
        entry: One method's.
        wanted: Attributes; empty for all.
    """
    place, names = images.names("group")
    number = {name: i for i, name in enumerate(names.to_pylist()) if name}
    if len(number) < 2:
        return []
    ids = np.where(np.isin(place, [*number.values()]), place, -1)
    columns = {"score": images.score(entry), "logit": images.rank(entry), "label": images.label, "group": ids}
    rows = {name: torch.from_numpy(column) for name, column in columns.items()}
    found = []
    for attribute, one in fairness.compare(rows, number, entry.threshold, images.entries[0].domain).items():
        if not wanted or attribute in wanted:
            values = {name: float(value) for name, value in one.compute().items()}
            end = "" if math.isnan(entry.threshold) else "_val"
            found.append(
                {"attribute": attribute} | {name: values.get(name + end, values.get(name)) for name in FAIRNESS}
            )
    return found


def wrong(images: Images, entry: Entry) -> Rows:
    """Return the most wrong images: fakes and reals in turn, those farthest on the wrong side of the threshold first.

    The threshold is that of validation, or .5 without one. What is on the right side is not among them. ``map`` is the
    map that the detector gave, a PNG in base64.
    """
    score = images.score(entry)
    rows = misjudged(score, images.label, entry.threshold)
    found: Rows = []
    for i, path, png in zip(rows, images.paths(rows), images.some(entry, MAP, rows), strict=True):
        drawn = {"map": base64.b64encode(png).decode()} if png else {}
        found.append({"path": str(path), "score": float(score[i]), "label": int(images.label[i]), **drawn})
    return found


def misjudged(score: np.ndarray, label: np.ndarray, threshold: float) -> np.ndarray:
    """Return the places of at most ``WRONG`` images of each class that are judged wrongly, int64 (k,).

    Fakes and reals take turns, so that the first few of them are of both classes.

    Args:
        score: (n,) probability of fake.
        label: (n,) 0 real, 1 fake.
        threshold: Fake from here on; NaN is .5.
    """
    fake, chosen = score >= np.float64(0.5 if math.isnan(threshold) else threshold), []
    for y in (1, 0):
        own = np.flatnonzero((label == y) & (fake != y))
        chosen.append(own[_least(score[own] if y else -score[own], WRONG)])
    turns = [places[i] for i in range(WRONG) for places in chosen if i < len(places)]
    return np.array(turns, np.int64)


def _least(values: np.ndarray, n: int) -> np.ndarray:
    """Return the places of the n least values, NaN last, the least first; of equal ones those that come first."""
    if len(values) <= n:
        return np.argsort(values, kind="stable")
    highest = np.partition(values, n - 1)[n - 1]
    some = np.flatnonzero(~(values > highest))  # NaN among them
    return some[np.argsort(values[some], kind="stable")[:n]]
