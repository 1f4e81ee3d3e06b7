"""What an edit does to a detector: how many fakes it finds before and after, and those that a surrogate let pass.

    before: {smiling: neutral, vae: reals}    by domain, the one to compare it with; `reals`: its own real images
    surrogate: other                          one of the runs

Both sides of a change are drawn with the same photos wherever they are of the same photos (`statistics.Resamples`), so
the interval is a paired one. Where they are not, draws are independent, which makes it wider.

With a surrogate each such domain is there a second time, `DOMAIN_past_SURROGATE`, with those of its fakes alone that
the surrogate calls real: what an attacker keeps who asks a detector of his own before he sends anything. The surrogate
has no part in it, and it is in no mean.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.benchmark.entries import Columns, Entry
from dfl.benchmark.spec import STORED, Spec, safe
from dfl.benchmark.store import digest
from dfl.errors import UserError, near
from dfl.metrics.intervals import clopper_pearson, interval

#: In place of a domain: the real images of the domain itself, that its fakes were made from.
REALS = "reals"
#: A share that is called fake, its resamples, float64 (R,), and how many units it is of.
Rate = tuple[float, np.ndarray, int]


def asked(spec: Spec) -> tuple[dict[str, str], str]:
    """Return, by domain, what a spec compares it with, and the surrogate or ''.

    Raises:
        UserError: For a domain or a run that is none.
    """
    domains, surrogate = [*spec.domains, *spec.reals], spec.content.get("surrogate") or ""
    before = {safe(key): safe(value) for key, value in (spec.content.get("before") or {}).items()}
    for name in before:
        if name not in domains:
            raise UserError(f"{spec.file}: before names {name!r}{near(name, domains)}")
        others = [*domains, *([REALS] if name in spec.domains else [])]
        if before[name] not in others:
            raise UserError(f"{spec.file}: before: {name} names {before[name]!r}{near(before[name], others)}")
    methods = [run.method for run in spec.runs]
    if surrogate and surrogate not in methods:
        raise UserError(f"{spec.file}: surrogate names {surrogate!r}{near(surrogate, methods)}")
    if surrogate and not before:
        raise UserError(f"{spec.file}: surrogate chooses among the fakes of the domains under before, which names none")
    return before, surrogate


def past(
    parts: Mapping[tuple[str, str], Sequence[Entry]], before: Mapping[str, str], surrogate: str
) -> tuple[dict[tuple[str, str], list[Entry]], dict[str, str]]:
    """Return the domains of what a surrogate lets pass, by domain and variant, and what each is compared with.

    Args:
        parts: Entries by domain and variant.
        before: See `asked`.
        surrogate: A method; '' for none.

    Raises:
        UserError: If it has no threshold.
    """
    more: dict[tuple[str, str], list[Entry]] = {}
    compared: dict[str, str] = {}
    for (domain, variant), entries in parts.items() if surrogate else ():
        judge = next((one for one in parts.get((domain, STORED), ()) if one.method == surrogate), None)
        if domain not in before or judge is None:
            continue
        score, label = (judge.scored.column(column).to_numpy() for column in ("score", "label"))
        if not label.any():
            continue
        if math.isnan(judge.threshold):
            raise UserError(f"surrogate: {judge.title} has no threshold, so it calls nothing real")
        name = f"{domain}_past_{safe(surrogate)}"
        passes = (label == 1) & (score < judge.threshold)
        kept = pa.array(passes | (label == 0))
        words = f"{passes.sum():,} of {(label == 1).sum():,} fakes of {domain}, which {surrogate} calls real"
        compared[name] = before[domain]
        more[name, variant] = [_of(entry, name, judge, kept, words) for entry in entries if entry.method != surrogate]
    return more, compared


def _of(entry: Entry, domain: str, judge: Entry, kept: pa.Array, words: str) -> Entry:
    """Return the part of an entry that is kept of a judge's images, as a domain of its own."""
    facts, paths = entry.scored.facts | {"domain": domain, "part": words}, entry.scored.column("path")
    if facts.get("data") != judge.scored.facts.get("data") or len(paths) != len(kept):  # else they have one order
        kept = pc.is_in(paths, judge.scored.column("path").filter(kept))
    columns = {name: entry.scored.column(name).filter(kept) for name in entry.scored.names}
    if facts.get("data"):
        facts["data"] = digest(facts["data"], kept.to_pylist())
    return Entry(entry.method, entry.seed, domain, entry.variant, "other", Columns(facts, columns))


def changes(
    rates: Mapping[tuple[str, str, str], Mapping[str, Rate]], before: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return by method, domain and variant the share called fake ``before``, ``after``, and the change.

    Args:
        rates: By method, domain and variant, those of its images that are ``real`` and ``fake``.
        before: By domain, what it is compared with.
    """
    rows = []
    for (method, domain, variant), own in rates.items():
        base = before.get(domain)
        if base is None:
            continue
        other = own if base == REALS else rates.get((method, base, variant), {})
        side = "fake" if base == REALS or "fake" in other else "real"  # of domains of reals alone, the real ones
        first, last = other.get("real" if base == REALS else side), own.get(side)
        if first is not None and last is not None:
            row = {"method": method, "domain": domain, "compared": base, "variant": variant, "before": first[0]}
            rows.append(row | {"after": last[0]} | _change(first, last))
    return rows


def _change(first: Rate, last: Rate) -> dict[str, float]:
    """Return the change of a share with its interval; where no verdict or every one changes, it is that of a rate."""
    value, resampled, units = last[0] - first[0], last[1] - first[1], min(first[2], last[2])
    found = interval(value, resampled, units)
    if abs(value) in (0, 1) and units and np.ptp(resampled) == 0:
        reach = clopper_pearson(0, units)[1]
        found |= {"low": max(-1.0, value - reach), "high": min(1.0, value + reach)}
    return found
