"""All numbers of a benchmark as plain values: what benchmark.json holds, and tables and page show."""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import dfl
from dfl.benchmark import changes, details, means
from dfl.benchmark.compare import DRAWS, Comparison, all_fake
from dfl.benchmark.entries import Entry, Images, by_domain
from dfl.benchmark.leaks import leaks
from dfl.benchmark.lookup import BY_METHOD
from dfl.benchmark.spec import ALIKE, STORED, TWICE
from dfl.benchmark.store import digest
from dfl.data.chains import FAMILIES
from dfl.errors import UserError

#: A leak score from here on is flagged.
LEAKS = 0.75


@dataclass
class Settings:
    """What a comparison is to show, beside the entries."""

    name: str
    command: str = ""
    #: The spec as it was written.
    spec: dict[str, Any] = field(default_factory=dict)
    metrics: Sequence[str] = ("auroc",)
    groups: Sequence[str] = ()
    years: Mapping[str, int] = field(default_factory=dict)
    #: Last year of the data of a method's backbone.
    data_until: Mapping[str, int] = field(default_factory=dict)
    #: Hash of all that a method and seed learned from: configs, options, sources.
    learned: Mapping[tuple[str, int], str | None] = field(default_factory=dict)
    reference: Sequence[Mapping[str, Any]] = ()
    #: Domains by the name of a mean over them, see `means.asked`.
    means: Mapping[str, Sequence[str]] = field(default_factory=dict)
    #: Domains to compare with others, and who lets fakes pass, see `changes.asked`.
    before: Mapping[str, str] = field(default_factory=dict)
    surrogate: str = ""
    resamples: int = 1000
    seed: int = 0
    #: Whether the most wrong images are named, for the page to show.
    pictures: bool = True
    #: Folder where leak scores are kept.
    leaks: Path = Path()
    #: Cost by method, which is no part of what must be the same another time.
    cost: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def build(entries: Sequence[Entry], settings: Settings) -> dict[str, Any]:
    """Return all numbers, see docs/benchmark.md for the keys.

    Args:
        entries: Of all methods, domains and variants, validation included.
        settings: What to show.

    Raises:
        UserError: If methods were measured on different images of one domain.
    """
    tested = [one for one in entries if one.role != "val"]
    chains = {f"{name}_{s}": (name, s) for name, family in FAMILIES.items() for s in family.strengths}
    comparison = Comparison(settings.resamples, settings.seed, settings.means, draws=DRAWS in settings.metrics)
    pooled = {variant: details.Pooled() for variant in TWICE}
    parts = by_domain(tested)
    more, compared = changes.past(parts, settings.before, settings.surrogate)
    parts |= more
    content: dict[str, Any] = {
        **{"name": settings.name, "version": dfl.__version__, "command": settings.command, "spec": settings.spec},
        "spec_sha256": digest(settings.spec) if settings.spec else None,
        "methods": [_method(name, tested, settings) for name in dict.fromkeys(one.method for one in tested)],
        **{"domains": [], "variants": _ordered((v for _, v in parts), chains), "all_fake": []},
        **{"curves": {}, "histograms": {}, "shifts": [], "wrong": {}, "generators": [], "fairness": []},
        "reference": [dict(one) for one in settings.reference],
    }
    flips: dict[tuple[str, str], list[float]] = {}
    for domain in dict.fromkeys(domain for domain, _ in parts):  # one at a time: memory is for one
        stored: Images | None = None
        alike: Images | None = None
        for variant in _ordered((v for d, v in parts if d == domain), chains):
            images = Images(parts[domain, variant])
            comparison.add(domain, variant, images)
            content["all_fake"] += [{"domain": domain, "variant": variant, **one} for one in all_fake(images)]
            stored, alike = images if variant == STORED else stored, images if variant == ALIKE else alike
            if stored is not None and variant in chains:
                for method, share in details.flips(stored, images).items():
                    flips.setdefault((method, variant), []).append(share)
        if stored is not None:
            content["domains"].append(_domain(domain, stored, comparison.units[domain], settings))
            _explain(content, domain, stored, alike, settings)
        for variant, shown in ((STORED, stored), (ALIKE, alike)):
            if shown is not None and shown.one_class(1):
                pooled[variant].add(shown)
    comparison.finish()
    content["all_fake"] += means.of_all_fake(content["all_fake"], settings.means)
    robustness = sorted(comparison.robustness(chains), key=lambda row: [*chains].index(row["variant"]))
    for row in robustness:
        shares = flips.get((row["method"], row["variant"]), [])
        row["flips"] = sum(shares) / len(shares) if shares else math.nan
    metrics = _metrics(comparison, settings.metrics)
    return (
        content
        | {"metrics": metrics, "first": [name for name in metrics if name in settings.metrics] or metrics[:1]}
        | {"cells": comparison.cells + comparison.named()}
        | {"changes": changes.changes(comparison.rates, {**settings.before, **compared})}
        | {"summaries": comparison.summaries(), "differences": comparison.differences, "ranks": _ranks(comparison)}
        | {"robustness": robustness, "robustness_area": _areas(robustness)}
        | _calibration(content["methods"], entries, pooled)
    )


def _ordered(variants: Iterable[str], chains: Iterable[str]) -> list[str]:
    """Return variants, each once: stored, alike, degradations by strength, views. Files come as blur 30, blur 5."""
    place = {variant: i for i, variant in enumerate((STORED, ALIKE, *chains))}
    return sorted(dict.fromkeys(variants), key=lambda variant: (place.get(variant, len(place)), variant))


def _ranks(comparison: Comparison) -> dict[str, Any]:
    """Return ranks of methods; none, with a line that says why, where a package lacks."""
    try:
        return comparison.ranks()
    except UserError as error:
        warnings.warn(f"{error}; the tables are without ranks", stacklevel=2)
        return {}


def _method(name: str, tested: Sequence[Entry], settings: Settings) -> dict[str, Any]:
    """Return what a method is."""
    own = [one for one in tested if one.method == name]
    seeds = {one.seed: one for one in own}
    facts = own[0].scored.facts
    cost = settings.cost.get(name, {})
    return {
        **{"name": name, "detector": facts.get("detector"), "seeds": list(seeds)},
        "trained_on": list(facts.get("trained_on") or []),
        **{"parameters": cost.get("parameters"), "macs": cost.get("macs"), "images_per_s": cost.get("images_per_s")},
        **{"memory_mb": cost.get("memory_mb"), "device": cost.get("device")},
        **{"size": facts.get("size"), "transform": facts.get("resize") or {}},
        "threshold": [one.threshold for one in seeds.values()],
        "weights": [one.scored.facts.get("weights") for one in seeds.values()],
        "learned": [settings.learned.get((name, seed)) for seed in seeds],
        **{"external": "external" in facts, "data_until": settings.data_until.get(name) or None},
    }


def _domain(domain: str, images: Images, units: int, settings: Settings) -> dict[str, Any]:
    """Return what a domain is, and what is wrong with it."""
    place, names = images.names("generator")
    counts = np.bincount(place[images.label == 1], minlength=len(names))
    generators = {name: int(n) for name, n in zip(names.to_pylist(), counts, strict=True) if name and n}
    facts = images.facts
    leak = leaks(images, settings.leaks, settings.seed) if images.one_class(0) and images.one_class(1) else {}
    flags, roles = [], {one.role for one in images.entries}
    if (worst := leak.get("metadata")) and worst["value"] >= LEAKS:
        flags.append(
            f"the files alone, without a pixel, tell real from fake with AUROC {worst['value']:.3f}: read the table of "
            "images re-encoded alike"
        )
    flags += [facts["part"]] if "part" in facts else []
    if unreadable := facts.get("unreadable", 0):
        flags.append(f"{unreadable} of {facts.get('listed')} images could not be read")
    return {
        **{"name": domain, "role": roles.pop() if len(roles) == 1 else BY_METHOD},
        **{"real": images.one_class(0), "fake": images.one_class(1)},
        **{"units": units, "generators": generators},
        **{"sha256": facts.get("data"), "unreadable": unreadable, "leak": leak, "flags": flags},
    }


def _metrics(comparison: Comparison, first: Sequence[str]) -> list[str]:
    """Return the metrics that were measured, those that are asked for first."""
    measured = dict.fromkeys(cell["metric"] for cell in comparison.cells)
    return [*(name for name in first if name in measured), *(name for name in measured if name not in first)]


def _explain(content: dict[str, Any], domain: str, images: Images, alike: Images | None, settings: Settings) -> None:
    """Add what explains the numbers of a domain."""
    firsts = details.first_of_methods(images.entries)
    others = details.first_of_methods(alike.entries) if alike is not None else {}
    both = bool(images.one_class(0) and images.one_class(1))
    if settings.pictures:
        content["wrong"][domain] = {method: details.wrong(images, one) for method, one in firsts.items()}
    content["histograms"][domain] = {
        method: details.histogram(images, one, alike if method in others else None, others.get(method))
        for method, one in firsts.items()
    }
    if both:
        content["curves"][domain] = {method: details.curves(images, one) for method, one in firsts.items()}
    for method, one in firsts.items():
        own = [entry for entry in images.entries if entry.method == method]
        seen = [(STORED, images, own, one)]
        if alike is not None and method in others:
            again = [entry for entry in alike.entries if entry.method == method]
            moved = details.shift(images, own, alike, again)
            content["shifts"].append({"method": method, "domain": domain, **moved})
            seen.append((ALIKE, alike, again, others[method]))
        for variant, shown, entries, first in seen if both else ():
            whose = {"method": method, "domain": domain, "variant": variant}
            rows = details.generators(shown, entries, settings.years, settings.data_until.get(method, 0))
            content["generators"] += [whose | row for row in rows]
            content["fairness"] += [whose | row for row in details.groups(shown, first, settings.groups)]


def _calibration(
    methods: Sequence[Mapping[str, Any]], entries: Sequence[Entry], tested: Mapping[str, details.Pooled]
) -> dict[str, Any]:
    """Return calibration, by variant, and thresholds of the first seed of each method."""
    firsts = {one["name"]: one["seeds"][0] for one in methods}
    validation = {name: details.Pooled() for name in firsts if name in tested[STORED]}
    for one in entries:
        if one.role == "val" and one.seed == firsts.get(one.method) and one.method in validation:
            validation[one.method].add(Images([one]))
    heat = {method: details.temperature(own, method) for method, own in validation.items()}
    rows = [(m, row) for m, own in validation.items() if m in own for row in details.thresholds(own, m, tested)]
    found = {
        variant: {m: details.calibrated(pooled, m, t) for m, t in heat.items() if m in pooled}
        for variant, pooled in tested.items()
    }
    return {
        "calibration": {variant: own for variant, own in found.items() if own},
        "thresholds": [{"method": method, **row} for method, row in rows],
    }


def _areas(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean AUROC over the strengths of a family, the stored images among them, by family and method."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        values.setdefault(row["family"], {}).setdefault(row["method"], [row["stored"]]).append(row["value"])
    return {family: {m: sum(v) / len(v) for m, v in by.items()} for family, by in values.items()}
