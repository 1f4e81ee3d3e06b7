"""What the content of a benchmark says, by name: the page, its figures and the tables ask it here."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dfl.benchmark.means import MEAN
from dfl.benchmark.spec import ALIKE, STORED
from dfl.metrics.names import direction

#: What the two are called beside each other.
TITLES = {STORED: "as stored", ALIKE: "re-encoded alike"}
#: The role of a domain that some methods were trained on and others not; each cell says what it is to its method.
BY_METHOD = "by method"
#: The row of what a map that calls every pixel fake would get.
ALL_FAKE = "all fake"
#: Beside a number that has a note below the table.
MARK = "†"
#: What the mark says of a generator and a method.
SEEN = "The generator is not newer than the data that the backbone was trained on, which so may have held images of it."


class Lookup:
    """The content of a benchmark (`dfl.benchmark.compare`), with its cells and summaries by name.

    Args:
        content: What is absent is empty; an undefined number is NaN or None.

    Attributes:
        metric: The metric that methods are ordered by, the first of the content.
        first: Metrics that were asked for, which have a summary each; `metric` is the first.
        methods: Names, the one with the best mean over the cross-domain test sets first; as in the spec if `mixed`.
        variants: Those of the first two tables that there are: as stored, re-encoded alike.
        mixed: Whether the methods' means over cross-domain test sets are of different ones, so that none is best.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self._cells = {(c["method"], c["domain"], c["variant"], c["metric"]): c for c in self.rows("cells")}
        self._within = {(c["method"], c["domain"]) for c in self.rows("cells") if c.get("role") == "within"}
        self._all_fake = {(c["domain"], c["variant"], c["metric"]): c["value"] for c in self.rows("all_fake")}
        self._summaries = {(s["method"], s["variant"], s["metric"]): s for s in self.rows("summaries")}
        self.metric: str = next(iter(self.rows("metrics")), "auroc")
        self.first: list[str] = [*self.rows("first")] or [self.metric]
        self.variants = [v for v in (STORED, ALIKE) if v in self.rows("variants")]
        sign = 1 if self.best(self.metric) == "min" else -1
        names = [one["name"] for one in self.rows("methods")]
        cross: dict[str, set[str]] = {name: set() for name in names}
        for cell in self.rows("cells"):
            if cell.get("role") == "cross":
                cross[cell["method"]].add(cell["domain"])
        self.mixed = any(own != cross[names[0]] for own in cross.values())
        if not self.mixed:
            names.sort(key=lambda m: _last(sign * self.summary(m, "cross")))
        self.methods: list[str] = names

    def rows(self, part: str) -> Sequence[Any]:
        """Return a list of the content; an empty one where it is absent."""
        return self.content.get(part) or []

    def named(self, part: str) -> Mapping[str, Any]:
        """Return a mapping of the content; an empty one where it is absent."""
        return self.content.get(part) or {}

    def cell(self, method: str, domain: str, variant: str, metric: str) -> Mapping[str, Any]:
        """Return a cell; an empty one where there is none."""
        return self._cells.get((method, domain, variant, metric), {})

    def value(self, method: str, domain: str, variant: str, metric: str) -> float:
        """Return the value of a cell; NaN where it is undefined or absent."""
        return defined(self.cell(method, domain, variant, metric).get("value"))

    def is_within(self, method: str, domain: str) -> bool:
        """Tell whether a domain is of the training distribution of a method."""
        return (method, domain) in self._within

    def all_fake(self, domain: str, variant: str, metric: str) -> float:
        """Return what a map that calls every pixel fake would get; NaN where that is no question."""
        return defined(self._all_fake.get((domain, variant, f"{metric}_all_fake")))

    def summary(self, method: str, what: str, variant: str = STORED) -> float:
        """Return a number of a summary of the metric that methods are ordered by; NaN where there is none."""
        return defined(self.summary_row(method, variant).get(what))

    def summary_row(self, method: str, variant: str, metric: str = "") -> Mapping[str, Any]:
        """Return a summary, by default of the metric that methods are ordered by; an empty one where there is none."""
        return self._summaries.get((method, variant, metric or self.metric), {})

    def beside(self, part: str, *keys: str) -> list[Mapping[str, Any]]:
        """Return the rows of a part; of those alike in all ``keys`` the one as stored, and below it the re-encoded."""
        found: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
        for row in self.rows(part):
            found.setdefault(tuple(row[key] for key in keys), []).append(row)
        return [row for own in found.values() for row in own]

    def ranks(self, variant: str = STORED) -> Mapping[str, Any]:
        """Return average ranks of methods and their tests; an empty mapping where there are none."""
        return self.named("ranks").get(variant) or {}

    def calibration(self, method: str, variant: str = STORED) -> Mapping[str, Any]:
        """Return the calibration of a method; an empty mapping where there is none."""
        return (self.named("calibration").get(variant) or {}).get(method) or {}

    def mark(self, method: str, variant: str, metric: str, domains: Sequence[str], role: str) -> str:
        """Return the ``MARK`` of a mean over the domains that have a role, where one of its cells bears it; else ''."""
        own = (self.cell(method, domain, variant, metric) for domain in domains)
        return MARK * any(cell.get("role") == role and bool(cell.get("note")) for cell in own)

    def notes(self, metric: str, domains: Sequence[str]) -> str:
        """Return what is to be said of cells of some domains that bear a ``MARK``; '' of none."""
        cells = [self.cell(m, d, v, metric) for d in domains for v in self.variants for m in self.methods]
        said = dict.fromkeys(f"{cell['domain']}: {cell['note']}" for cell in cells if cell.get("note"))
        return f"{MARK} {'; '.join(said)}" if said else ""

    @property
    def seen(self) -> str:
        """How images are resized and cropped, in a line, where all methods share it; else where it stands."""
        methods = self.rows("methods")
        ways = {one["name"]: way(one) for one in methods if way(one)}
        if not ways:
            return "How images were resized and cropped is not known." if methods else ""
        if len(set(ways.values())) > 1:
            return "Methods resize and crop images differently: see Methods in report.html, or benchmark.json."
        unknown = ", ".join(one["name"] for one in methods if one["name"] not in ways)
        return f"Images: {next(iter(ways.values()))}" + (f"; not known of {unknown}." if unknown else ".")

    def domains(self, metric: str | None = None) -> list[str]:
        """Return the test domains, those of the training distribution first; only those that a metric is defined on."""
        order = ("within", BY_METHOD, "cross", "other", "reals", "val")
        listed = sorted(self.rows("domains"), key=lambda one: order.index(one["role"]))
        known = {
            domain
            for (_, domain, variant, name), cell in self._cells.items()
            if name == metric and variant in self.variants and is_defined(cell["value"])
        }
        return [one["name"] for one in listed if metric is None or one["name"] in known]

    def means(self, metric: str) -> list[str]:
        """Return the means over domains by name (`dfl.benchmark.means`) that a metric is defined on."""
        own = (c for c in self.rows("cells") if (c.get("role"), c["metric"]) == (MEAN, metric))
        return list(dict.fromkeys(c["domain"] for c in own if c["variant"] in self.variants))

    def difference(self, a: str, b: str, variant: str = STORED) -> Mapping[str, Any]:
        """Return the difference a - b of the mean AUROC over the cross domains; an empty one where there is none."""
        for one in self.rows("differences"):
            if (one["domain"], one["variant"]) == ("", variant) and {one["a"], one["b"]} == {a, b}:
                if one["a"] == a:
                    return one
                ends = {"value": -defined(one["value"]), "low": -defined(one["high"]), "high": -defined(one["low"])}
                return {**one, "a": a, "b": b, **ends}
        return {}

    @staticmethod
    def best(metric: str) -> str | None:
        """Return whether the largest or the smallest value of a metric is best; None where neither is."""
        return direction(f"test/mean/{metric}")


def way(method: Mapping[str, Any]) -> str:
    """Return how a method resizes and crops images, in a line; '' where it is not known."""
    words = [f"{key} {value}" for key, value in (method.get("transform") or {}).items()]
    return ", ".join(words + ([f"{method['size']} pixels, centre view"] if method.get("size") else []))


def defined(value: float | None) -> float:
    """Return a number; NaN for None, which is how JSON has it."""
    return math.nan if value is None else float(value)


def number(value: float | None, digits: int = 3) -> str:
    """Return a number of fixed digits, n/a where it is undefined."""
    value = defined(value)
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def _last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def is_defined(value: float | None) -> bool:
    """Tell whether a number is defined."""
    return not math.isnan(defined(value))


def interval(one: Mapping[str, Any]) -> str:
    """Return an interval, or nothing where it is undefined."""
    low, high = defined(one.get("low")), defined(one.get("high"))
    return "" if low != low or high != high else f"{low:.3f} to {high:.3f}"


def signed(value: float | None) -> str:
    """Return a difference with its sign."""
    value = defined(value)
    return "n/a" if value != value else f"{value:+.3f}"


def percent(value: float | None) -> str:
    """Return a share in percent."""
    value = defined(value)
    return "n/a" if value != value else f"{100 * value:.1f} %"


def p_value(value: float | None) -> str:
    """Return a p; how small a very small one is says nothing."""
    value = defined(value)
    return "n/a" if value != value else "< 0.001" if value < 1e-3 else f"{value:.3f}"
