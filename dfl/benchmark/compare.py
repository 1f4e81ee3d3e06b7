"""From predictions to the numbers of the tables: values with intervals, means over domains, differences, ranks.

Everything is computed a domain at a time. What is kept of a domain are single numbers and the resampled means that run
over domains, so memory does not grow with the number of images, and hardly with that of methods.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch

from dfl.benchmark.changes import Rate
from dfl.benchmark.entries import Entry, Images
from dfl.benchmark.means import RATES, Sum, cells
from dfl.benchmark.spec import STORED, TWICE
from dfl.benchmark.statistics import Resamples, difference, ranks, spread
from dfl.benchmark.units import sorted_units, unit_names
from dfl.metrics import binary
from dfl.metrics.delong import Areas, delong
from dfl.metrics.intervals import holm, interval
from dfl.metrics.names import about

#: Metrics of scores, in the order of tables; those of maps are means over images.
SCORES = ("auroc", "ap", "eer", "bacc_val", "acc_real", "acc_fake", "bacc", "acc", "tpr_at_1fpr", "bacc_oracle", "ece")
MAPS = {
    **{"mask_iou": "iou", "mask_pbca": "pbca", "mask_f1": "f1", "mask_ap": "pixel_ap"},
    "mask_fpa": "fpa",
}
#: What a map that calls every pixel fake gets of an image, from the share of it that is manipulated.
ALL_FAKE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mask_iou": lambda area: area,
    "mask_pbca": lambda area: area,
    "mask_f1": lambda area: 2 * area / (1 + area),
    "mask_ap": lambda area: np.where(area > 0, area, np.nan),
}
#: Of domains that hold real images alone.
OF_REALS = ("fpr",)
#: The AP of draws of as many reals as fakes is measured where it is asked for: of millions of images it takes long.
DRAWS = "ap_draws"
MEASURED = (*SCORES, "video_auroc", *OF_REALS, *MAPS, DRAWS)
#: A comparison across methods is made of this one.
COMPARED = "auroc"

Cell = dict[str, Any]


class Comparison:
    """Numbers of all methods on all domains.

    Args:
        resamples: Of the intervals.
        seed: Of the resamples.
        means: Domains by the name of a mean over them, see `means`.
        draws: Whether ``ap_draws`` is measured.
    """

    def __init__(
        self,
        resamples: int = 1000,
        seed: int = 0,
        means: Mapping[str, Sequence[str]] | None = None,
        draws: bool = False,
    ) -> None:
        self.resamples, self.seed, self.means, self.draws = resamples, seed, means or {}, draws
        self.cells: list[Cell] = []
        self.differences: list[Cell] = []
        #: By method, variant and metric: domain -> values by seed; and role of the domain.
        self._values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
        self._roles: dict[tuple[str, str], str] = {}
        #: By method, variant and metric, over the cross-domains.
        self._sums: dict[tuple[str, str, str], Sum] = {}
        #: By the name of a mean, method, variant and metric, over its domains.
        self._named: dict[tuple[str, tuple[str, str, str]], Sum] = {}
        #: By domain, as stored: how many units its images are, which are drawn together.
        self.units: dict[str, int] = {}
        #: By method, domain and variant of `TWICE`: shares that are called fake, see `changes`.
        self.rates: dict[tuple[str, str, str], dict[str, Rate]] = {}
        #: By method and variant: the same of COMPARED over the domains that are degraded.
        self._degraded: dict[tuple[str, str], Sum] = {}

    def add(self, domain: str, variant: str, images: Images) -> None:
        """Measure one variant of a domain; of it numbers alone are kept."""
        units = sorted_units(images.unit, images.label)  # their names, of millions, are gone before anything is drawn
        draws = Resamples(images.label, units, self.resamples, self.seed)
        videos, methods = _Videos(images, self.resamples, self.seed), dict[str, list[Entry]]()
        for entry in images.entries:
            methods.setdefault(entry.method, []).append(entry)
        for method, entries in methods.items():
            self._roles[method, domain] = entries[0].role
            values: dict[str, list[float]] = {}
            resampled: dict[str, list[np.ndarray]] = {}
            for entry in entries:
                measured, drawn = _entry(images, entry, draws, videos)
                if self.draws and images.one_class(0) and images.one_class(1):
                    measured[DRAWS] = _draws_ap(images, entry)
                for name, column in MAPS.items():
                    if column in entry.scored.names and not np.isnan(own := images.of(entry, column)).all():
                        measured[name], drawn[name] = float(np.nanmean(own)), draws.means(own)
                for name, value in measured.items():
                    values.setdefault(name, []).append(value)
                    resampled.setdefault(name, []).append(drawn.get(name, np.full(self.resamples, math.nan)))
            for name, of_seeds in values.items():
                mean = np.mean(resampled[name], 0)
                self._cell(method, domain, variant, name, of_seeds, mean, images, draws)
        if variant == STORED:
            self.units[domain] = draws.all_units
        if variant in TWICE:
            self._compare(domain, variant, images, methods, units.place)

    def _cell(
        self,
        method: str,
        domain: str,
        variant: str,
        metric: str,
        of_seeds: list[float],
        resampled: np.ndarray,
        images: Images,
        draws: Resamples,
    ) -> None:
        """Write down a value with its interval, and add it to the mean over domains."""
        value, (reals, fakes) = float(np.mean(of_seeds)), draws.units.values()
        units = {"acc_real": reals, "fpr": reals, "acc_fake": fakes}.get(metric, min(reals, fakes))
        found = interval(value, resampled, units, rate=metric in RATES)
        unresolved = metric == "tpr_at_1fpr" and images.one_class(0) < 100
        self.cells.append(
            {"method": method, "domain": domain, "role": self._roles[method, domain]}
            | {"variant": variant, "metric": metric, **found}
            | {"spread": spread(of_seeds), "seeds": of_seeds}
            | {"note": f"{images.one_class(0)} reals cannot show a rate of 1 %" if unresolved else ""}
        )
        key = (method, variant, metric)
        self._values.setdefault(key, {})[domain] = of_seeds
        if variant in TWICE and metric in ("acc_real", "acc_fake"):
            side = metric.removeprefix("acc_")
            called = (value, resampled, fakes) if side == "fake" else (1 - value, 1 - resampled, reals)
            self.rates.setdefault((method, domain, variant), {})[side] = called
        if math.isnan(value):
            return
        if self._roles[method, domain] == "cross":
            self._sums[key] = self._sums.get(key, Sum()).and_of(resampled, units)
        for name, domains in self.means.items():
            if domain in domains:
                self._named[name, key] = self._named.get((name, key), Sum()).and_of(resampled, units)
        if metric == COMPARED and variant != STORED:
            self._degraded[method, variant] = self._degraded.get((method, variant), Sum()).and_of(resampled, units)

    def _compare(
        self, domain: str, variant: str, images: Images, methods: Mapping[str, list[Entry]], unit: np.ndarray
    ) -> None:
        """Compare the areas of all pairs of methods on one variant of a domain."""
        if len(methods) < 2 or not (images.one_class(0) and images.one_class(1)):
            return
        unit = np.argsort(np.argsort(np.unique(unit, return_index=True)[1]))[unit]  # numbered as they come
        areas = [
            _mean([delong(images.rank(entry)[None].astype(np.float64), images.label, unit) for entry in entries])
            for entries in methods.values()
        ]
        together = Areas(
            np.concatenate([one.area for one in areas]),
            np.concatenate([one.fake for one in areas]),
            np.concatenate([one.real for one in areas]),
            areas[0].fakes,
            areas[0].reals,
        )
        for (i, a), (j, b) in combinations(enumerate(methods), 2):
            whose = {"domain": domain, "variant": variant, "a": a, "b": b}
            self.differences.append(whose | together.difference(i, j))

    def finish(self) -> None:
        """Compare the means over cross-domains of all pairs of methods, by what resamples give, and correct all p.

        Each variant has a correction of its own: what is found as stored does not depend on whether the other is there.
        """
        for variant in TWICE:
            self._compare_means(variant)
            own = [one for one in self.differences if one["variant"] == variant]
            corrected = holm({str(i): one["p"] for i, one in enumerate(own) if not math.isnan(one["p"])})
            for i, one in enumerate(own):
                one["p_holm"] = corrected.get(str(i), math.nan)

    def _compare_means(self, variant: str) -> None:
        means = {method: own for (method, v, m), own in self._sums.items() if (v, m) == (variant, COMPARED)}
        for a, b in combinations(means, 2):
            if self._cross(a, variant) != self._cross(b, variant):  # of other domains, such as of another training set
                continue
            value = self.mean(a, variant, COMPARED, "cross") - self.mean(b, variant, COMPARED, "cross")
            drawn = (means[a].resampled - means[b].resampled) / means[a].n
            whose = {"domain": "", "variant": variant, "a": a, "b": b}
            self.differences.append(whose | difference(value, drawn))

    def _cross(self, method: str, variant: str) -> list[str]:
        return [domain for domain in self._values[method, variant, COMPARED] if self._roles[method, domain] == "cross"]

    def mean(self, method: str, variant: str, metric: str, role: str) -> float:
        """Return the mean over domains of a role, of the means over seeds; NaN of none."""
        values = self._values.get((method, variant, metric), {})
        return _mean_of(float(np.mean(v)) for d, v in values.items() if self._roles[method, d] == role)

    def summaries(self) -> list[Cell]:
        """Return, by method, variant and metric, what holds within and across domains."""
        rows = []
        for (method, variant, metric), by in self._values.items():
            cross = {d: float(np.mean(v)) for d, v in by.items() if self._roles[method, d] == "cross"}
            cross = {d: v for d, v in cross.items() if not math.isnan(v)}
            within, mean = (self.mean(method, variant, metric, role) for role in ("within", "cross"))
            ends = self._sums.get((method, variant, metric), Sum()).interval(mean, metric)
            least = max if about(metric).best == "min" else min
            worst = least(cross, key=cross.__getitem__) if cross else ""
            seeds = list(zip(*(by[d] for d in cross), strict=True)) if len({len(by[d]) for d in cross}) == 1 else []
            rows.append(
                {"method": method, "variant": variant, "metric": metric, "within": within, "cross": mean}
                | {"low": ends["low"], "high": ends["high"], "domains": len(cross), "worst": worst}
                | {"minimum": cross.get(worst, math.nan), "gap": within - mean}
                | {"spread": spread([float(np.mean(one)) for one in seeds])}
            )
        return rows

    def named(self) -> list[Cell]:
        """Return the cells of the means that were asked for, where all of their domains were measured."""
        return cells(self.means, self._values, self._named)

    def ranks(self) -> dict[str, dict[str, Any]]:
        """Return, by variant of `TWICE`, ranks over the domains that all methods were measured on.

        See `statistics.ranks`; a variant without any is left out.
        """
        found = {variant: self._ranks(variant) for variant in TWICE}
        return {variant: own for variant, own in found.items() if own}

    def _ranks(self, variant: str) -> dict[str, Any]:
        of = {m: by for (m, v, metric), by in self._values.items() if (v, metric) == (variant, COMPARED)}
        shared = [d for d in next(iter(of.values()), {}) if all(d in by for by in of.values())]
        table = np.array([[float(np.mean(of[method][domain])) for method in of] for domain in shared])
        return ranks(table.reshape(len(shared), len(of)), list(of))

    def robustness(self, chains: Mapping[str, tuple[str, int | str]]) -> list[Cell]:
        """Return the mean AUROC over the degraded domains, with its interval.

        Args:
            chains: Family and strength by variant.
        """
        rows = []
        for (method, variant), drawn in self._degraded.items():
            if variant in chains:
                domains = [d for d, v in self._values[method, variant, COMPARED].items() if not math.isnan(v[0])]
                both = {
                    one: _mean_of(float(np.mean(self._values[method, one, COMPARED][d])) for d in domains)
                    for one in (variant, STORED)
                }
                family, strength = chains[variant]
                rows.append(
                    {"method": method, "family": family, "strength": strength, "variant": variant}
                    | {**drawn.interval(both[variant], COMPARED), "stored": both[STORED], "domains": domains}
                )
        return rows


class _Videos:
    """The same measures of the mean scores of videos, where images have one."""

    def __init__(self, images: Images, resamples: int, seed: int) -> None:
        self._label, self._video = torch.from_numpy(images.label), torch.from_numpy(images.video)
        self._draws: Resamples | None = None
        key = (2 * self._video.long() + self._label)[self._video >= 0]
        if len(key):
            keys = torch.bincount(key).nonzero().flatten().numpy()
            names = np.array([f"video {key // 2}" for key in keys], object)
            empty = np.full(len(names), "", object)
            self._draws = Resamples(keys % 2, unit_names(names, empty, names), resamples, seed)

    def measured(self, score: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Return ``video_auroc``, and the same of each resample of the videos; nothing where there are none."""
        if self._draws is None:
            return {}, {}
        own, label = binary.video_scores(torch.from_numpy(score), self._label, self._video)
        drawn = self._draws.metrics(own.numpy())["auroc"]
        return {"video_auroc": float(binary.auroc(own, label))}, {"video_auroc": drawn}


def _entry(
    images: Images, entry: Entry, draws: Resamples, videos: _Videos
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Return the metrics of an entry's scores, and those of each resample."""
    score = images.score(entry)
    measured, drawn = videos.measured(score)
    rank = images.rank(entry)
    measured = measures(score, rank, images.label, entry.threshold) | measured
    lowest = math.nan
    if not math.isnan(entry.threshold):
        lowest = float(rank[score >= np.float64(entry.threshold)].min(initial=math.inf))
    del score  # of millions of images, it is large
    return measured, draws.metrics(rank, lowest) | drawn


def _draws_ap(images: Images, entry: Entry) -> float:
    ranked, labels = torch.from_numpy(images.rank(entry)), torch.from_numpy(images.label)
    return float(binary.balanced_draws_ap(ranked, labels)[0])


def measures(score: np.ndarray, rank: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, float]:
    """Return the metrics of a domain's scores; of reals alone, their FPR.

    Args:
        score: float32 or float64 (n,) probability of fake.
        rank: float32 or float64 (n,) what images are ranked by, see `Images.rank`.
        label: (n,) 0 real, 1 fake.
        threshold: Chosen on validation data; NaN for none.
    """
    known, fake = not math.isnan(threshold), score >= np.float64(threshold)  # which is no float32 number
    shares = {y: float(fake[label == y].mean()) if (label == y).any() and known else math.nan for y in (0, 1)}
    if not label.any():
        return {"fpr": shares[0], "acc_real": 1 - shares[0]}
    values, ranked, labels = (torch.from_numpy(column) for column in (score, rank, label))
    ranks, oracle = binary.by_rank(ranked, labels)
    found: dict[str, Any] = {
        **ranks,
        "bacc_val": binary.balanced_accuracy(values, labels, threshold),
        "acc_real": 1 - shares[0],
        "acc_fake": shares[1],
        "bacc": binary.balanced_accuracy(values, labels),
        "acc": binary.accuracy(values, labels),
        "bacc_oracle": binary.balanced_accuracy(ranked, labels, float(oracle)),
        "ece": binary.ece(values, labels),
    }
    return {name: float(found[name]) for name in SCORES}


def all_fake(images: Images) -> list[Cell]:
    """Return what a map that calls every pixel fake would get, mean over fakes: ``metric`` and ``value``.

    Published numbers lie under it. It is taken of the images as the first method with maps sees them; none without.
    """
    for entry in images.entries:
        if "area" in entry.scored.names and not np.isnan(area := images.of(entry, "area")).all():
            return [
                {"metric": f"{name}_all_fake", "value": float(np.nanmean(of(area)))} for name, of in ALL_FAKE.items()
            ]
    return []


def _mean_of(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _mean(areas: Sequence[Areas]) -> Areas:
    """Return the mean area over seeds: its errors are the means of theirs."""
    first = areas[0]
    area, fake, real = (np.mean([getattr(one, name) for one in areas], 0) for name in ("area", "fake", "real"))
    return Areas(area, fake, real, first.fakes, first.reals)
