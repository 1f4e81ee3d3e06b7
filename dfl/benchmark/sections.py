"""The tables of a benchmark's page, each as HTML; nothing where the content has nothing for it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dfl.benchmark import figures
from dfl.benchmark.lookup import (
    ALL_FAKE,
    BY_METHOD,
    MARK,
    SEEN,
    STORED,
    TITLES,
    Lookup,
    interval,
    is_defined,
    number,
    signed,
    way,
)
from dfl.benchmark.means import MEAN
from dfl.benchmark.tables import Table, gaps
from dfl.evaluation import html
from dfl.metrics.names import FAIRNESS, about

#: Domains beside each other; with more a table goes on below, or paper would cut it off.
ACROSS = 8
Row = Mapping[str, Any]


def summary(look: Lookup, metric: str = "") -> str:
    """Return within, cross, minimum, gap of each method, as stored and re-encoded alike beside each other.

    Args:
        look: The content.
        metric: By default the one that methods are ordered by.
    """
    metric = metric or look.metric
    columns = {
        "within": "mean over the test domains of the training distribution",
        "cross": "mean over all other test domains, with its 95 % interval",
        "min": "on the worst of the other domains",
        "gap": "within minus cross",
    }
    lines, known, domains = [], False, look.domains(metric)
    for method in look.methods:
        cells: list[Any] = [method]
        for variant in look.variants:
            one = look.summary_row(method, variant, metric)
            known = known or any(map(is_defined, map(one.get, ("within", "cross"))))
            marks = [look.mark(method, variant, metric, domains, role) for role in ("within", "cross")]
            ends = " ".join(filter(None, (interval(one), marks[1])))
            spread = f"; spread over seeds {number(one['spread'])}" if is_defined(one.get("spread")) else ""
            cells += [
                html.Cell(number(one.get("within")), marks[0], kind="two first"),
                html.Cell(number(one.get("cross")), ends, f"95 % interval{spread}", "two"),
                html.Cell(number(one.get("minimum")), str(one.get("worst") or ""), kind="two"),
                html.Cell(number(one.get("gap")), kind="two"),
            ]
        lines.append(cells)
    if not known:  # such as of reals alone
        return ""
    head = [html.Cell(name, title=title, kind="first" * (name == "within")) for name, title in columns.items()]
    over = [("", 1), *((TITLES[v], len(columns)) for v in look.variants)]
    order = "" if look.mixed or metric != look.metric else " Best mean over the other domains first."
    words = f"<p class=soft>{html.text(about(metric).label)}, {html.text(about(metric).help)}.{order}</p>"
    below = f"<p class=soft>{html.text(note)}</p>" if (note := look.notes(metric, domains)) else ""
    return words + html.table(["method", *head * len(look.variants)], lines, over=over) + below


def metric(look: Lookup, name: str, intervals: bool = False) -> str:
    """Return method x domain of a metric, each domain as stored and re-encoded alike beside each other.

    Args:
        look: The content.
        name: Of the metric. Below AUROC stands what file facts alone give, below those of maps what all fake pixels do.
        intervals: Whether they stand in the cells; they show under the pointer in any case.
    """
    domains = [*look.domains(name), *(means := look.means(name))]
    methods = [m for m in look.methods if any(look.cell(m, d, v, name) for d in domains for v in look.variants)]
    if not domains or not methods:
        return ""

    def cell(method: str, domain: str, variant: str) -> html.Cell:
        one = look.cell(method, domain, variant, name)
        words = [f"95 % interval {interval(one)}"] if interval(one) else []
        words += (
            [f"spread over {len(one['seeds'])} seeds {number(one['spread'])}"] if is_defined(one.get("spread")) else []
        )
        words += [one["note"]] if one.get("note") else []
        words += ["part of the training"] * look.is_within(method, domain)
        kind = "two" + " first" * (variant == look.variants[0])
        text = number(one["value"]) if one else ""
        small = [interval(one)] * intervals + [MARK] * bool(one.get("note"))
        return html.Cell(text, " ".join(small), "; ".join(words), kind)

    roles = {one["name"]: "" if one["role"] in ("cross", BY_METHOD) else one["role"] for one in look.rows("domains")}
    roles |= dict.fromkeys(means, MEAN)
    head = [html.Cell(v, kind="first" * (v == look.variants[0])) for v in look.variants]

    def table(shown: Sequence[str]) -> str:
        lines = [[m, *(cell(m, d, v) for d in shown for v in look.variants)] for m in methods]
        over = [
            ("", 1),
            *((f"{d} ({roles[d]})" if roles[d] else d, len(look.variants)) for d in shown),
        ]
        foot = _leaks(look, shown) if name == "auroc" else _all_fake(look, shown, name)
        note = look.notes(name, shown)
        below = f"<p class=soft>{html.text(note)}</p>" if note else ""
        return html.table(["method", *head * len(shown)], lines, over=over, foot=foot) + below

    return "".join(table(domains[i : i + ACROSS]) for i in range(0, len(domains), ACROSS))


def _leaks(look: Lookup, domains: Sequence[str]) -> list[list[Any]]:
    """Return a row for each kind of file facts: the AUROC that they alone give, without a pixel."""
    leaks = {one["name"]: one.get("leak") or {} for one in look.rows("domains")}
    kinds = dict.fromkeys(kind for d in domains for kind in leaks.get(d, {}))  # a mean over domains has none
    rows = []
    for kind in kinds:
        cells: list[Any] = [html.Cell(f"{kind} alone", title="what a forest that sees no pixel gets", kind="soft")]
        for domain in domains:
            one = leaks.get(domain, {}).get(kind, {})
            text = number(one["value"]) if one else ""
            cells.append(html.Cell(text, interval(one), kind="soft two first"))
            cells += [html.Cell("")] * (len(look.variants) - 1)
        rows.append(cells)
    return rows


def _all_fake(look: Lookup, domains: Sequence[str], name: str) -> list[list[Any]]:
    """Return the row of what a map that calls every pixel fake would get, for metrics that have one."""
    values = [look.all_fake(d, v, name) for d in domains for v in look.variants]
    known = [value == value for value in values]
    first = html.Cell(ALL_FAKE, title=about(f"{name}_all_fake").meaning, kind="soft")
    cells = [html.Cell(number(value) if value == value else "", kind="soft two") for value in values]
    return [[first, *cells]] if any(known) else []


def metrics(look: Lookup, masks: bool) -> str:
    """Return the tables of all metrics but the first, of scores or of maps, each folded."""
    names = [n for n in look.rows("metrics") if n != look.metric and n.startswith(figures.MASKS) == masks]
    found = {name: metric(look, name) for name in names}
    return "".join(
        f"<details><summary>{html.text(about(name).label)}</summary>"
        f"<p class=soft>{html.text(about(name).help)}</p>{table}</details>"
        for name, table in found.items()
        if table
    )


def shifts(look: Lookup) -> str:
    """Return by how much re-encoding moves the mean score of each class."""
    own = {(row["method"], row["domain"]): row for row in look.rows("shifts")}
    domains = [d for d in look.domains() if any(key[1] == d for key in own)]

    def cells(method: str, domain: str) -> Iterable[html.Cell]:
        for word in ("real", "fake"):
            value = own.get((method, domain), {}).get(word)
            yield html.Cell(signed(value), kind="first" * (word == "real"))

    methods = [m for m in look.methods if any(key[0] == m for key in own)]
    head = [html.Cell("real", kind="first"), html.Cell("fake")]

    def table(shown: Sequence[str]) -> str:
        lines = [[m, *(c for d in shown for c in cells(m, d))] for m in methods]
        return html.table(["method", *head * len(shown)], lines, over=[("", 1), *((d, 2) for d in shown)])

    return "".join(table(domains[i : i + ACROSS]) for i in range(0, len(domains), ACROSS)) if methods else ""


def plain(table: Table) -> str:
    """Return a table of `tables` as it is, its note below; its title is left to the page."""
    note = f"<p class=soft>{html.text(table.note)}</p>" * bool(table.note)
    return html.table(table.head, table.rows) + note if table.rows else ""


def generators(look: Lookup) -> str:
    """Return AUROC by generator; a mark where a method's backbone may have been trained on its images."""
    rows: dict[tuple[str, str], dict[str, Row]] = {}
    again: dict[tuple[str, str, str], list[str]] = {}
    for row in look.rows("generators"):
        if row["variant"] == STORED:
            rows.setdefault((row["domain"], row["generator"]), {})[row["method"]] = row
        else:
            again[row["domain"], row["generator"], row["method"]] = [f"alike {number(row['auroc'])}"]
    methods = [m for m in look.methods if any(m in own for own in rows.values())]
    lines, flagged = [], False
    for (domain, generator), own in rows.items():
        first = next(iter(own.values()))
        cells = [
            html.Cell(
                number(own[m]["auroc"]),
                " ".join([MARK] * bool(own[m]["flag"]) + again.get((domain, generator, m), [])),
                own[m]["flag"] or "",
            )
            if m in own
            else ""
            for m in methods
        ]
        flagged = flagged or any(one["flag"] for one in own.values())
        year = "" if first["year"] is None else str(first["year"])
        lines.append([generator, domain, year, f"{first['n']:,}", *cells])
    if not lines:
        return ""
    words = f"<p class=soft>{MARK} {html.text(SEEN)}</p>"
    return words * flagged + html.table(["generator", "domain", "year", "fakes", *methods], lines)


def fairness(look: Lookup) -> str:
    """Return how far groups lie apart, of each method and domain."""
    table, meanings = gaps(look), {one.label: one.meaning for one in FAIRNESS.values()}
    head = [html.Cell(name, title=meanings.get(name, "")) for name in table.head]
    return html.table(head, table.rows) if table.rows else ""


def reference(look: Lookup) -> str:
    """Return published numbers beside ours on the same domain; they are in no mean."""
    lines = []
    for one in look.rows("reference"):
        best = [_best(look, one["domain"], variant, one["metric"]) for variant in look.variants]
        name = about(one["metric"]).label
        lines.append([one["method"], one["domain"], name, number(one["value"]), *best, one["source"], one["protocol"]])
    ours = (f"our best, {TITLES[variant]}" for variant in look.variants)
    head = ["published method", "domain", "metric", "published", *ours, "source", "protocol"]
    return html.table(head, lines) if lines else ""


def _best(look: Lookup, domain: str, variant: str, metric: str) -> html.Cell:
    ours = {m: look.value(m, domain, variant, metric) for m in look.methods}
    known = {m: value for m, value in ours.items() if is_defined(value)}
    if not known:
        return html.Cell("not measured", kind="soft")
    pick = (min if look.best(metric) == "min" else max)(known, key=known.__getitem__)
    return html.Cell(number(known[pick]), pick)


def methods(look: Lookup) -> str:
    """Return what each method is, what it was trained on and how it sees an image."""
    lines = []
    for one in look.rows("methods"):
        seeds = ", ".join(map(str, one.get("seeds") or []))
        at = ", ".join(number(t) for t in one.get("threshold") or [])
        detector = "scores of a file" if one.get("external") else one.get("detector") or ""
        lines.append([one["name"], detector, ", ".join(one.get("trained_on") or []), seeds, way(one), at])
    head = ["method", "detector", "trained on", "seeds", "resize and crop", "thresholds"]
    return html.table(head, lines) if lines else ""


def domains(look: Lookup) -> str:
    """Return what each test domain holds, and what is odd about it."""
    lines = []
    for one in look.rows("domains"):
        leak = (one.get("leak") or {}).get("metadata", {})
        cells = [f"{one[name]:,}" for name in ("real", "fake", "units")]
        generators = f"{len(one['generators'])}" if one.get("generators") else ""
        flags = "; ".join(one.get("flags") or [])
        cells += [generators, f"{one.get('unreadable') or 0:,}", number(leak["value"]) if leak else "", flags]
        lines.append([one["name"], one["role"], *cells])
    head = ["domain", "role", "real", "fake", "units", "generators", "unreadable", "metadata alone", "note"]
    return html.table(head, lines) if lines else ""


def cost(look: Lookup) -> str:
    """Return what each method takes; speed and memory are of the machine that ran it."""
    units: dict[str, tuple[str, Callable[[float], str]]] = {
        "parameters": ("parameters, millions", lambda v: f"{v / 1e6:,.2f}"),
        "macs": ("GMACs an image", lambda v: f"{v / 1e9:,.2f}"),
        "images_per_s": ("images/s", lambda v: f"{v:,.1f}"),
        "memory_mb": ("memory, MB", lambda v: f"{v:,.0f}"),
    }
    rows = [one for one in look.rows("methods") if any(is_defined(one.get(n)) for n in units)]

    def shown(one: Row, name: str) -> str:
        return units[name][1](one[name]) if is_defined(one.get(name)) else ""

    lines = [[one["name"], *(shown(one, name) for name in units)] for one in rows]
    return html.table(["method", *(label for label, _ in units.values())], lines) if lines else ""


def hashes(look: Lookup) -> str:
    """Return the hashes of weights, of what they learned from, of data and spec, whole."""
    lines = [
        [what, f"{one['name']}, seed {seed}", digest]
        for what, key in (("weights", "weights"), ("config, options and training data", "learned"))
        for one in look.rows("methods")
        for seed, digest in zip(one.get("seeds") or [], one.get(key) or [], strict=False)
        if digest
    ]
    lines += [["data", one["name"], one["sha256"]] for one in look.rows("domains") if one.get("sha256")]
    if look.content.get("spec_sha256"):
        lines.append(["spec", str(look.content.get("name", "")), str(look.content["spec_sha256"])])
    return html.table(["what", "of", "SHA-256"], lines) if lines else ""
