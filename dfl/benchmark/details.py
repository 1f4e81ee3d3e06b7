"""What explains a benchmark's numbers: curves, scores, generators, calibration, thresholds, groups, wrong images."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from scipy import special

from dfl.benchmark.entries import Entry, Images
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
    fpr, tpr = binary.roc_curve(rank, label)
    recall, precision = binary.pr_curve(rank, label)
    found: dict[str, list[float]] = {}
    for names, pair in ((("fpr", "tpr"), (fpr, tpr)), (("recall", "precision"), (recall, precision))):
        kept = _spread(pair[0].numpy(), pair[1].numpy())
        found |= {name: np.round(part.numpy()[kept], 5).tolist() for name, part in zip(names, pair, strict=True)}
    return found


def _spread(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the places of at most ``POINTS`` points, evenly spread along a curve, its ends among them."""
    if len(x) <= POINTS:  # none of an undefined curve
        return np.arange(len(x))
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
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
        score = np.mean([images.score(one) for one in some], 0)
        return [float(score[images.label == y].mean()) if (images.label == y).any() else math.nan for y in (0, 1)]

    before, after = means(stored, entries), means(alike, others)
    return {"real": after[0] - before[0], "fake": after[1] - before[1]}


def flips(stored: Images, other: Images) -> dict[str, float]:
    """Return the share of images whose verdict changes, by method, of the first seeds.

    None of a method without a threshold, or where images of one of the two could not be read.
    """
    after, shares = first_of_methods(other.entries), {}
    same = stored.path.equals(other.path)
    for method, entry in first_of_methods(stored.entries).items():
        if method in after and same and not math.isnan(entry.threshold):
            verdicts = (i.score(e) >= entry.threshold for i, e in ((stored, entry), (other, after[method])))
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
    names, real, rows = images.text("generator"), images.label == 0, []
    if not names[~real].any():  # a set that names none holds one, by the name of the domain
        names = np.full(len(names), entries[0].domain, object)
    for name in sorted(set(names[images.label == 1].tolist()) - {""}):
        chosen = real | (names == name)
        label = torch.from_numpy(images.label[chosen])
        areas = [float(binary.auroc(torch.from_numpy(images.rank(e)[chosen]), label)) for e in entries]
        year = years.get(name, 0)
        old = bool(year and until and year <= until)
        rows.append(
            {"generator": name, "year": year or None, "n": int((names[images.label == 1] == name).sum())}
            | {"auroc": float(np.mean(areas))}
            | {"flag": f"the backbone's data go up to {until}: it may have seen such images" if old else ""}
        )
    return rows


class Pooled:
    """Scores of the first seed of each method over several domains, a real image that they share once."""

    def __init__(self) -> None:
        self._parts: dict[str, list[tuple[np.ndarray, ...]]] = {}
        self._seen: list[pa.Array] = []
        #: Of each method, chosen on validation data.
        self.threshold: dict[str, float] = {}

    def add(self, images: Images) -> None:
        """Add the images of a domain."""
        new = np.ones(len(images), bool)
        if self._seen:
            seen = pc.is_in(images.path.cast(pa.large_string()), pa.concat_arrays(self._seen)).to_numpy(
                zero_copy_only=False
            )
            new = ~seen | (images.label == 1)
        self._seen.append(images.path.filter(pa.array(new & (images.label == 0))).cast(pa.large_string()))
        for method, entry in first_of_methods(images.entries).items():
            self.threshold[method] = entry.threshold
            columns = (
                images.of(entry, "score"),
                images.log_odds(entry).astype(np.float32),
                images.label.astype(np.int8),
            )
            self._parts.setdefault(method, []).append(tuple(column[new] for column in columns))

    def __contains__(self, method: str) -> bool:
        return method in self._parts

    def of(self, method: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return score and log-odds, float64 (n,), and label, int64 (n,)."""
        score, log_odds, label = (np.concatenate(part) for part in zip(*self._parts[method], strict=True))
        return score.astype(np.float64), log_odds.astype(np.float64), label.astype(np.int64)


def calibrated(validation: Pooled, tested: Pooled, method: str) -> dict[str, Any]:
    """Return temperature (of validation), and of the tested images ECE before and after it, reliability, abstention.

    Args:
        validation: Without the method the temperature is undefined.
        tested: Domains that hold both classes.
        method: Its name.
    """
    score, log_odds, label = tested.of(method)
    temperature = math.nan
    if method in validation:
        temperature = calibration.temperature(*validation.of(method)[1:])
    coverage, risk = calibration.coverage_risk(score, label, tested.threshold[method])
    kept = _spread(coverage, risk)
    scaled = special.expit(log_odds / temperature)
    return {
        "temperature": temperature,
        "ece": float(binary.ece(torch.from_numpy(score), torch.from_numpy(label))),
        "ece_scaled": float(binary.ece(torch.from_numpy(scaled), torch.from_numpy(label))),
        "reliability": {name: part.tolist() for name, part in calibration.reliability(score, label).items()},
        "coverage": np.round(coverage[kept], 5).tolist(),
        "risk": np.round(risk[kept], 5).tolist(),
        "aurc": calibration.risk_area(coverage, risk),
    }


def thresholds(validation: Pooled, method: str) -> Rows:
    """Return thresholds for wanted FPRs from the reals of validation, with the interval of the true FPR."""
    score, _, label = validation.of(method)
    real = score[label == 0]
    found = [(fpr, calibration.threshold_at_fpr(real, fpr)._asdict()) for fpr in FPRS if len(real)]
    return [one | {"fpr": fpr, "reached": one["fpr"]} for fpr, one in found]


def groups(images: Images, entry: Entry, wanted: Sequence[str]) -> Rows:
    """Return how far groups of people lie apart, at the threshold of validation, by attribute.

    Args:
        images: Of a domain.
        entry: One method's.
        wanted: Attributes; empty for all.
    """
    names = images.text("group")
    number = {name: i for i, name in enumerate(sorted(set(names.tolist()) - {""}))}
    if len(number) < 2:
        return []
    ids = torch.tensor([number.get(name, -1) for name in names.tolist()])
    rows = {"score": torch.from_numpy(images.score(entry)), "label": torch.from_numpy(images.label), "group": ids}
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
    """Return the images whose scores are farthest from their labels, of both classes."""
    score, rows = images.score(entry), []
    for y in (0, 1):
        own = np.flatnonzero(images.label == y)
        order = np.argsort(-score[own] if y == 0 else score[own], kind="stable")[:WRONG]
        rows += [{"path": str(images.path[i]), "score": float(score[i]), "label": y} for i in own[order]]
    return rows
