"""Means over lists of domains by name, such as those that a published table prints, beside ours by role.

    means: {common eight: [progan, stylegan, ...], all thirteen: [progan, ...]}

A mean within or across domains leaves out what is not of that role, so it is not that of a paper that counts the domain
of training too. These are over exactly their domains, whatever they are to a method: cells of the role ``mean``, each
by the name of its mean in place of a domain. Where one of the domains lacks, so does the mean.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dfl.benchmark.spec import Spec
from dfl.benchmark.statistics import spread
from dfl.benchmark.values import safe
from dfl.errors import UserError, near
from dfl.metrics.intervals import interval

#: What such a cell is to its method.
MEAN = "mean"
#: Metrics whose interval at 0 and 1 is that of a rate.
RATES = ("acc_real", "acc_fake", "fpr", "auroc")


class Sum(NamedTuple):
    """What the mean of a metric over domains is made of.

    Attributes:
        resampled: Sum of the resampled values, means over seeds, float64 (R,).
        n: Domains.
        units: Of the smaller class, in all domains together; a unit that domains share counts in each.
    """

    resampled: Any = 0.0
    n: int = 0
    units: int = 0

    def and_of(self, resampled: np.ndarray, units: int) -> "Sum":
        """Return the sum with one more domain."""
        return Sum(self.resampled + resampled, self.n + 1, self.units + units)

    def interval(self, value: float, metric: str) -> dict[str, float]:
        """Return the mean with its interval, as that of one domain is made."""
        if not self.n:
            return {"value": value, "low": math.nan, "high": math.nan}
        return interval(value, self.resampled / self.n, self.units, rate=metric in RATES)


def asked(spec: Spec) -> dict[str, list[str]]:
    """Return the domains of each mean that a spec names.

    Raises:
        UserError: For one that makes no sense.
    """
    found: dict[str, list[str]] = {}
    for key, names in (spec.content.get("means") or {}).items():
        where, mean = f"{spec.file}: means: {key}", safe(key)
        if mean in {*spec.domains, *spec.reals}:
            raise UserError(f"{where} is the name of a domain; give the mean another one")
        if not isinstance(names, list) or not names:
            raise UserError(f"{where} takes a list of domains, not {names!r}")
        found[mean] = [safe(name) for name in names]
        for name in found[mean]:
            if name not in spec.domains:
                raise UserError(f"{where} names {name!r}{near(name, [*spec.domains])}")
            if found[mean].count(name) > 1:
                raise UserError(f"{where} names {name!r} twice")
    return found


def cells(
    means: Mapping[str, Sequence[str]],
    values: Mapping[tuple[str, str, str], Mapping[str, Sequence[float]]],
    sums: Mapping[tuple[str, tuple[str, str, str]], Sum],
) -> list[dict[str, Any]]:
    """Return the cells of means, each with its interval.

    Args:
        means: Domains by the name of the mean.
        values: By method, variant and metric: domain -> values by seed.
        sums: By the name of a mean, and those.
    """
    found = []
    for key, by in values.items():
        for name, domains in means.items():
            seeds = [by[d] for d in domains if d in by and not math.isnan(np.mean(by[d]))]
            if len(seeds) < len(domains):
                continue
            even = len({len(one) for one in seeds}) == 1
            of_seeds = [float(np.mean(one)) for one in zip(*seeds, strict=True)] if even else []
            value = math.fsum(float(np.mean(one)) for one in seeds) / len(seeds)
            method, variant, metric = key
            found.append(
                {"method": method, "domain": name, "role": MEAN, "variant": variant, "metric": metric}
                | sums[name, key].interval(value, metric)
                | {"spread": spread(of_seeds), "seeds": of_seeds, "note": ""}
            )
    return found


def of_all_fake(rows: Iterable[Mapping[str, Any]], means: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return the means of what a map that calls every pixel fake would get.

    Args:
        rows: By domain, variant and metric.
        means: Domains by the name of the mean.
    """
    values: dict[tuple[str, str], dict[str, float]] = {}
    for one in rows:
        values.setdefault((one["variant"], one["metric"]), {})[one["domain"]] = one["value"]
    return [
        {"domain": name, "variant": variant, "metric": metric, "value": sum(by[d] for d in domains) / len(domains)}
        for (variant, metric), by in values.items()
        for name, domains in means.items()
        if by.keys() >= set(domains)
    ]
