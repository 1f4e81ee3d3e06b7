"""A sweep config: which runs there are, and the source of each of their domains and splits."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dfl.cli import configs
from dfl.data.sources.written import built
from dfl.errors import UserError, near

#: Keys of a sweep config, and the types of their values.
KEYS: dict[str, tuple[type, ...]] = {
    **{"config": (str, list), "source": (dict,), "generators": (list,), "domains": (dict,), "test": (dict,)},
    **{"reals": (bool,), "leave_one_out": (bool,), "metric": (str, list), "name": (str, int)},
}
TYPES = {str: "word", list: "list", dict: "mapping", bool: "true or false", int: "number"}
SPLITS = ("train", "val", "test")
#: Arguments of `Only` that can be put together with those of another one.
MERGED = frozenset({"source", "generators", "reals"})

#: A source as a config writes it: ``class_path`` and ``init_args``.
Spec = dict[str, Any]


@dataclass
class Sweep:
    """What a sweep config asks for."""

    configs: list[str]
    #: Source of each domain by split: train, val and test.
    domains: dict[str, dict[str, Spec]]
    #: Domains that are only tested on.
    only_tested: dict[str, Spec]
    reals: bool
    leave_one_out: bool
    metrics: list[str]
    name: str
    root: Path
    output: Path


@dataclass
class Run:
    """One training: a row of the matrix."""

    label: str
    name: str
    domains: list[str]


def read(
    sweep: str,
    output: str | None = None,
    metric: str | None = None,
    leave_one_out: bool | None = None,
    name: str | None = None,
    root: str = ".",
) -> Sweep:
    """Read a sweep config; what is typed beats it.

    Args:
        sweep: The sweep config.
        output: Folder of the table and the page; by default ``lightning_logs/NAME`` under the root.
        metric: What to show, such as ``auroc`` or ``mask_iou``; several with commas between them.
        leave_one_out: Whether to train on all domains but one, too, for each.
        name: Beginning of the names of the runs; by default that of the sweep config.
        root: Folder that holds ``checkpoints/`` and ``lightning_logs/``.

    Raises:
        UserError: For a sweep that makes no sense, and for sources that are not there.
    """
    file = Path(configs.find(sweep))
    content = _content(file)
    names = content["config"] if isinstance(content["config"], list) else [content["config"]]
    if not all(isinstance(one, str) for one in names):
        raise UserError(f"{file} names no config of a run: config: patches_c.yaml, or a list of such")
    beside = [file.parent / one for one in names]
    metrics = metric.split(",") if metric else content.get("metric") or []
    folder, called = Path(root).expanduser(), str(name or content.get("name") or file.stem)
    if Path(called).name != called:
        raise UserError(f"--name {called} must be the name of one folder; where it lies is set with --root")
    parsed = Sweep(
        configs=[str(path) if path.is_file() else configs.find(one) for path, one in zip(beside, names, strict=True)],
        domains=_domains(content, file),
        only_tested={_domain_name(key): spec for key, spec in (content.get("test") or {}).items()},
        reals=bool(content.get("reals", True)),
        leave_one_out=bool(content.get("leave_one_out", False)) if leave_one_out is None else leave_one_out,
        metrics=[metrics] if isinstance(metrics, str) else [str(one).strip() for one in metrics],
        name=called,
        root=folder,
        output=Path(output).expanduser() if output else folder / "lightning_logs" / called,
    )
    if both := sorted(parsed.domains.keys() & parsed.only_tested.keys()):
        raise UserError(f"{file}: {both[0]!r} is a domain that is trained on, and one of test; give it one place")
    if len(parsed.domains) < 2:
        raise UserError(f"{file} has {len(parsed.domains)} domain to train on; a matrix needs two")
    if parsed.leave_one_out and len(parsed.domains) < 3:
        raise UserError("leave_one_out needs three domains: of two, all but one is the other one")
    return parsed


def _content(file: Path) -> Spec:
    """Return the keys of a sweep config, checked."""
    content = configs.read(str(file))
    if not isinstance(content, dict) or "config" not in content:
        raise UserError(f"{file} is no sweep: it needs config (of a run), and source or domains; dfl matrix --help")
    for key, value in content.items():
        if key not in KEYS:
            raise UserError(f"{file} has an unknown key {str(key)!r}" + near(str(key), list(KEYS)))
        if value is not None and not isinstance(value, KEYS[key]):
            raise UserError(f"{file}: {key} takes a {' or a '.join(TYPES[one] for one in KEYS[key])}, not {value!r}")
    return content


def _domains(content: Spec, file: Path) -> dict[str, dict[str, Spec]]:
    """Return the sources of each domain by split."""
    if ("source" in content) == ("domains" in content):
        raise UserError(f"{file} needs either source, whose generators are the domains, or domains")
    if "source" in content:
        names = content.get("generators")
        names = _generators(content["source"]) if names is None else names
        by_name = {str(name): only(content["source"], [str(name)]) for name in names}
    elif "generators" in content:
        raise UserError(f"{file}: generators belong to source; of domains, use Only as a source")
    else:
        by_name = content["domains"] or {}
    domains = {}
    for name, spec in by_name.items():
        by_split = spec if isinstance(spec, dict) and "class_path" not in spec else dict.fromkeys(SPLITS, spec)
        if missing := set(SPLITS) - by_split.keys():
            raise UserError(f"{file}: domain {name} has no {', '.join(sorted(missing))}, and is no source")
        domains[_domain_name(name)] = {split: by_split[split] for split in SPLITS}
    return domains


def _generators(spec: Spec) -> list[str]:
    """Return the names of the generators that a source trains on."""
    source = built(spec, "source")
    source.prepare()
    names = set(pc.unique(source.load("train")["generator"].cast(pa.string())).to_pylist()) - {""}
    if not names:
        raise UserError(f"{source!r} names no generators; give domains, a source for each")
    return sorted(names)


def _domain_name(name: Any) -> str:
    """Return a domain's name without what separates names in logs and flags."""
    return str(name).replace(".", "_").replace("/", "_")


def check_sources(sweep: Sweep) -> None:
    """Raise for sources that cannot be read, before the first run and not after it."""
    sources: dict[str, Any] = {}
    wanted = [(name, split, spec) for name, by in sweep.domains.items() for split, spec in by.items()]
    wanted += [(name, "test", spec) for name, spec in sweep.only_tested.items()]
    for name, split, spec in wanted:
        key = json.dumps(spec, sort_keys=True)
        if key not in sources:
            sources[key] = built(spec, f"domain {name!r}")
            sources[key].prepare()
        sources[key].load(split)


def runs_of(sweep: Sweep) -> Iterator[Run]:
    """Yield the trainings: on each domain, then on all but each."""
    names = list(sweep.domains)
    for name in names:
        yield Run(name, f"{sweep.name}-{name}", [name])
    for name in names if sweep.leave_one_out else ():
        yield Run(f"all but {name}", f"{sweep.name}-without-{name}", [other for other in names if other != name])


def data_of(sweep: Sweep, run: Run) -> Spec:
    """Return the data of a run as a config."""
    train = merged([sweep.domains[name]["train"] for name in run.domains])
    if not sweep.reals:
        train = [only(spec, reals=False) for spec in train]
    return {
        "class_path": "DataModule",
        "init_args": {
            "train": train if len(train) > 1 else train[0],
            "val": {name: sweep.domains[name]["val"] for name in run.domains},
            "test": {name: by["test"] for name, by in sweep.domains.items()} | sweep.only_tested,
        },
    }


def only(spec: Spec, generators: list[str] | None = None, reals: bool = True) -> Spec:
    """Return part of a source as a config, without an `Only` inside an `Only`."""
    inner = spec.get("init_args") or {}
    if spec.get("class_path") == "Only" and inner.keys() <= MERGED:
        chosen = generators if generators is not None else inner.get("generators")
        return only(inner["source"], chosen, reals and inner.get("reals", True))
    return {"class_path": "Only", "init_args": {"source": spec, "generators": generators, "reals": reals}}


def merged(specs: list[Spec]) -> list[Spec]:
    """Return parts of one source as one part, so that its real images are there once."""
    inner = [spec.get("init_args") or {} for spec in specs if spec.get("class_path") == "Only"]
    parts = [(one["source"], one.get("reals", True)) for one in inner if one.keys() <= MERGED and one.get("generators")]
    if len(parts) < len(specs) or len(specs) < 2 or any(part != parts[0] for part in parts):
        return specs
    names = list(dict.fromkeys(name for one in inner for name in one["generators"]))
    return [only(parts[0][0], names, parts[0][1])]
