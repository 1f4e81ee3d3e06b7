"""What a benchmark asks for: SPEC.yaml as plain values, checked, and the runs and test sets that follow from it.

    runs:                                   methods by the name that all tables use
      vit_scl: {config: vit_scl.yaml, seeds: [0, 1, 2]}              trained first, once for each seed
      mine: {checkpoint: mine}                                       a run (its best), RUN/last, or a file
      theirs: {predictions: theirs.csv}                              scores of somebody else's detector
    train: {class_path: Toy, init_args: {domain: same}}              by default each config's own data
    domains: {same: {...}, unseen_family: {...}}                     tested on
    within: [same]                                                   those of the training distribution

All keys are in docs/benchmark.md. A domain is tested in several variants: ``stored`` as it lies on disk, ``alike``
with all images resized and compressed in one way, and degradations such as ``jpeg_50`` (`dfl.data.chains`); a view
other than the centre crop adds ``@five`` or ``@tiles``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfl.benchmark import values
from dfl.benchmark.values import safe
from dfl.cli import configs
from dfl.data.chains import FAMILIES, variants
from dfl.errors import UserError, near

#: Keys of the whole and of one run, and the types of their values.
KEYS: dict[str, tuple[type, ...]] = {
    **{"name": (str, int), "runs": (dict,), "seeds": (list,), "options": (dict,), "store": (str,), "means": (dict,)},
    **{"train": (dict, list), "val": (dict,), "transform": (dict,), "within": (list,), "domains": (dict,)},
    **{"reals": (dict,), "alike": (bool, int), "robustness": (list, str), "robustness_domains": (list,)},
    **{"views": (str, list), "groups": (list,), "unit": (str,), "metrics": (list, str), "years": (dict,)},
    **{"reference": (list,), "resamples": (int,), "pictures": (bool,), "before": (dict,), "surrogate": (str,)},
}
RUN_KEYS: dict[str, tuple[type, ...]] = {
    **{"config": (str, list), "checkpoint": (str, list), "predictions": (str, list), "seeds": (list,)},
    **{"options": (dict,), "init_from": (str,), "train": (dict, list), "val": (dict,), "within": (list,)},
    **{"cross": (list,), "trained_on": (list, str), "data_until": (int,), "transform": (dict,)},
}
TYPES = {str: "word", list: "list", dict: "mapping", bool: "true or false", int: "number"}
#: Where a run comes from.
WAYS = ("config", "checkpoint", "predictions")
VIEWS = ("centre", "five", "tiles")
UNITS = ("image", "video")
STORED, ALIKE = "stored", "alike"
#: The two that every table shows beside each other.
TWICE = (STORED, ALIKE)

#: A source as a config writes it.
Source = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One detector to test: a method, and one of its seeds."""

    method: str
    seed: int
    #: The run of ``checkpoints/`` that is trained; the checkpoint that is there already; or the file of scores.
    name: str = ""
    checkpoint: str = ""
    predictions: str = ""
    configs: tuple[str, ...] = ()
    #: Typed flags of fit and test.
    options: tuple[str, ...] = ()
    #: Data that are trained on; None where the config or the checkpoint's run says.
    train: Any = None
    val: Any = None
    transform: Any = None
    within: tuple[str, ...] = ()
    #: Domains of the mean across domains; none for all that are not of the training distribution.
    cross: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    #: Last year of the data that the backbone was trained on; 0 if unknown.
    data_until: int = 0


@dataclass(frozen=True)
class Variant:
    """One way to look at a domain."""

    #: A chain of `dfl.data.chains`, or '' for the images as they are stored.
    chain: str
    view: str = "centre"

    @property
    def name(self) -> str:
        """What tables call it."""
        return (self.chain or STORED) + ("" if self.view == "centre" else f"@{self.view}")


@dataclass
class Spec:
    """What a spec file asks for."""

    name: str
    file: Path
    content: dict[str, Any]
    runs: list[Run]
    domains: dict[str, Source]
    reals: dict[str, Source]
    within: tuple[str, ...]
    #: Shorter side in pixels of all images re-encoded alike; 0 for no such variant.
    alike: int
    robustness: list[str]
    robustness_domains: list[str]
    views: list[str]
    groups: list[str]
    unit: str
    #: Those of the headline; none for what chose the best checkpoints.
    metrics: list[str]
    years: dict[str, int]
    reference: list[dict[str, Any]]
    root: Path
    output: Path
    store: Path
    resamples: int = 1000
    #: Whether the page shows the most wrong images; not where the images may not be passed on.
    pictures: bool = True

    def variants(self, domain: str) -> list[Variant]:
        """Return the ways in which a domain is tested."""
        if domain in self.reals:
            return [Variant(one) for one in ("", *([ALIKE] * (self.alike > 0)))]
        chains = ["", *([ALIKE] * (self.alike > 0)), *(self.robustness if domain in self.robustness_domains else [])]
        return [Variant(one) for one in chains] + [Variant("", view) for view in self.views if view != "centre"]

    def role(self, domain: str, run: Run) -> str:
        """Return what a domain is to a run: ``reals``, ``within``, ``cross``, or ``other``, which is in no mean."""
        if domain in self.reals or domain in run.within:
            return "reals" if domain in self.reals else "within"
        return "cross" if domain in run.cross or not run.cross else "other"


def read(
    spec: str, output: str | None = None, root: str = ".", name: str | None = None, views: str | None = None
) -> Spec:
    """Read a spec file.

    Args:
        spec: The file, or the name of a packaged one such as ``benchmark/toy.yaml``.
        output: Folder of tables, page and predictions; by default ``lightning_logs/NAME`` under the root.
        root: Folder that holds ``checkpoints/`` and ``lightning_logs/``.
        name: Beginning of the names of the runs; by default that of the spec.
        views: In place of those of the spec, with commas between them.

    Raises:
        UserError: For a spec that makes no sense.
    """
    file = Path(_found(spec))
    content = configs.read(str(file))
    check(content, KEYS, str(file), ("runs", "domains"), "benchmark")
    if views:
        content = content | {"views": views.split(",")}
    return of_content(content, file, output, root, str(name or content.get("name") or safe(file.stem)))


def of_content(content: dict[str, Any], file: Path, output: str | None, root: str, called: str) -> Spec:
    """Return what the content of a spec file asks for; keys and types are checked.

    Args:
        content: Of the file.
        file: Where it was written; configs are looked up beside it.
        output: See `read`.
        root: See `read`.
        called: Beginning of the names of the runs.

    Raises:
        UserError: For a spec that makes no sense.
    """
    folder = Path(root).expanduser()
    if safe(called) != called:
        raise UserError(f"--name {called} must be the name of one folder; where it lies is set with --root")
    place = Path(output).expanduser() if output else folder / "lightning_logs" / called
    domains, reals = (_named(content.get(key) or {}, file) for key in ("domains", "reals"))
    if both := sorted(domains.keys() & reals.keys()):
        raise UserError(f"{file}: {both[0]!r} is one of domains and one of reals; give it one place")
    views = _words(content, "views") or ["centre"]
    return Spec(
        name=called,
        file=file,
        content=content,
        runs=list(_runs(content, called, file, [*domains])),
        domains=domains,
        reals=reals,
        within=tuple(_among(content, "within", [*domains], file)),
        alike=values.side(content.get("alike", True), file),
        robustness=_robustness(content),
        robustness_domains=_among(content, "robustness_domains", [*domains], file) or [*domains],
        views=[_one_of(view, VIEWS, f"{file}: views") for view in views],
        groups=[str(one) for one in content.get("groups") or []],
        unit=_one_of(str(content.get("unit", "image")), UNITS, f"{file}: unit"),
        metrics=_words({"metrics": "auroc"} | content, "metrics"),
        years=values.years(content.get("years") or {}, file),
        reference=values.reference(content, file, [*domains, *reals]),
        root=folder,
        output=place,
        store=Path(content["store"]).expanduser() if content.get("store") else place / "predictions",
        resamples=values.resamples(content.get("resamples", 1000), file),
        pictures=bool(content.get("pictures", True)),
    )


def _found(name: str) -> str:
    """Return the path of a spec: a file, or a packaged one, with or without its folder."""
    if Path(name).is_file() or "/" in name:
        return configs.find(name)
    packaged = {one.removeprefix("benchmark/"): one for one in configs.listing() if one.startswith("benchmark/")}
    word = name if name.endswith(".yaml") else f"{name}.yaml"
    if word not in packaged:
        raise UserError(f"no benchmark {name!r} in {Path.cwd()} or among the packaged ones{near(word, [*packaged])}")
    return configs.find(packaged[word])


def check(
    content: Any, keys: dict[str, tuple[type, ...]], where: str, needed: tuple[str, ...] = (), verb: str = "benchmark"
) -> None:
    """Raise for a mapping that lacks keys, or has others or values of other types."""
    if not isinstance(content, dict) and not needed:
        raise UserError(f"{where} is written as keys with values, not {content!r}")
    if not isinstance(content, dict) or any(not content.get(key) for key in needed):
        raise UserError(f"{where} is no {verb}: it needs {' and '.join(needed)}; dfl {verb} --help")
    for key, value in content.items():
        if key not in keys:
            raise UserError(f"{where} has an unknown key {str(key)!r}" + near(str(key), list(keys)))
        if value is not None and not isinstance(value, keys[key]):
            raise UserError(f"{where}: {key} takes a {' or a '.join(TYPES[one] for one in keys[key])}, not {value!r}")


def _runs(content: dict[str, Any], called: str, file: Path, domains: list[str]) -> Iterator[Run]:
    """Yield the runs of all methods and seeds."""
    names: dict[str, str] = {}
    for key, one in content["runs"].items():
        method, where, one = str(key), f"{file}: run {key}", one or {}
        check(one, RUN_KEYS, where)
        ways = [way for way in WAYS if one.get(way)]
        if len(ways) != 1:
            raise UserError(f"{where} needs one of {', '.join(WAYS)}; it has {' and '.join(ways) or 'none'}")
        name = safe(method)
        if (same := names.setdefault(name.replace(" ", "_").casefold(), method)) != method or not name:
            raise UserError(f"{file}: the runs {same!r} and {method!r} would have files of one name; rename one")
        within = _among(one, "within", domains, where) or _among(content, "within", domains, file)
        trained, options = one.get("trained_on") or within, (content.get("options") or {}) | (one.get("options") or {})
        start = {"init_from": one["init_from"]} if one.get("init_from") else {}
        common: dict[str, Any] = {
            "method": method,
            "within": tuple(within),
            "cross": tuple(_among(one, "cross", domains, where)),
            "trained_on": (trained,) if isinstance(trained, str) else tuple(map(str, trained)),
            "data_until": one.get("data_until") or 0,
            "transform": one.get("transform", content.get("transform")),
            "options": tuple(_flags(options | start)),
        }
        given = one[ways[0]] if isinstance(one[ways[0]], list) else [one[ways[0]]]
        if ways == ["config"]:
            common |= {side: one.get(side, content.get(side)) for side in ("train", "val")}
            common["configs"] = tuple(_beside(file, str(value)) for value in given)
            for seed in _seeds(one.get("seeds") or content.get("seeds") or [0], where):
                yield Run(**common, seed=seed, name=f"{called}-{name}-s{seed}")
        else:
            if one.get("seeds"):
                raise UserError(f"{where}: seeds are of a config; a list of {ways[0]} has one for each seed")
            if again := [value for i, value in enumerate(given) if value in given[:i]]:
                raise UserError(f"{where}: {ways[0]} names {again[0]} twice; of a list each is a seed of its own")
            for seed, value in enumerate(given):
                yield Run(**common | {"seed": seed, ways[0]: str(value)})


def _seeds(seeds: list[Any], where: str) -> list[int]:
    for seed in seeds:
        if type(seed) is not int or seed < 0:
            raise UserError(f"{where}: seeds are whole numbers from 0 on, not {seed!r}")
    return list(dict.fromkeys(seeds))


def _flags(options: dict[str, Any]) -> Iterator[str]:
    """Yield options as flags that are typed."""
    for key, value in options.items():
        told = "null" if value is None else configs.text(value) if isinstance(value, (dict, list)) else value
        yield f"--{str(key).removeprefix('--')}={told}"


def _beside(file: Path, name: str) -> str:
    path = file.parent / name
    if path.is_file() and not path.samefile(file):
        return str(path)
    packaged = [root / name for root in configs.ROOTS if (root / name).is_file()]
    # a spec may have the name of the config of its method, and is no config itself
    return str(packaged[0]) if path.is_file() and packaged else configs.find(name)


def _named(sources: dict[str, Any], file: Path) -> dict[str, Source]:
    """Return sources by the names of domains, which hold nothing that separates names."""
    named: dict[str, Source] = {}
    for key, source in sources.items():
        if not isinstance(source, dict) or "class_path" not in source:
            raise UserError(f"{file}: domain {key}: a source is written as class_path and init_args, not {source!r}")
        name = safe(key)
        if not name or name == "val" or name.startswith("val_"):
            raise UserError(f"{file}: no domain can be called {str(key)!r}: val is what a threshold is chosen on")
        if name in named:
            raise UserError(f"{file}: two domains are called {name!r}; '.', '/' and '@' become '_'")
        named[name] = source
    return named


def _among(content: dict[str, Any], key: str, names: list[str], where: Any) -> list[str]:
    """Return a list of domains, each of which is there."""
    return [_one_of(safe(one), names, f"{where}: {key}") for one in content.get(key) or []]


def _one_of(word: Any, words: Any, where: str) -> str:
    if word not in words:
        raise UserError(f"{where} names {word!r}" + near(str(word), [*words]))
    return str(word)


def _words(content: dict[str, Any], key: str) -> list[str]:
    value = content.get(key) or []
    return [value] if isinstance(value, str) else list(dict.fromkeys(map(str, value)))


def _robustness(content: dict[str, Any]) -> list[str]:
    """Return the chains of the families that are asked for."""
    names = _words(content, "robustness")
    return list(variants([*FAMILIES] if names == ["all"] else names)) if names else []
