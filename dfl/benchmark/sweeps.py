"""A sweep config as a benchmark: its methods are trainings of one config, on each domain and on all but each.

What is written is what ``dfl matrix`` takes (docs/domain_matrix.md); what is returned is run as any other benchmark.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dfl.benchmark import run as runs
from dfl.benchmark import training
from dfl.benchmark.spec import Source, Spec, check, of_content, safe
from dfl.cli import configs
from dfl.data.sources.written import built
from dfl.errors import UserError

#: Keys of a sweep config, and the types of their values.
KEYS: dict[str, tuple[type, ...]] = {
    **{"config": (str, list), "source": (dict,), "generators": (list,), "domains": (dict,), "test": (dict,)},
    **{"reals": (bool,), "leave_one_out": (bool,), "metric": (str, list), "name": (str, int)},
}
SPLITS = ("train", "val", "test")
#: Arguments of `Only` that can be put together with those of another one.
MERGED = frozenset({"source", "generators", "reals"})
#: Beginning of the name of a training on all domains but one, in tables and in ``checkpoints/``.
ALL_BUT, WITHOUT = "all but ", "without-"


def read(
    sweep: str,
    output: str | None = None,
    root: str = ".",
    name: str | None = None,
    metric: str | None = None,
    leave_one_out: bool | None = None,
    seed: int | None = None,
) -> Spec:
    """Read a sweep config; what is typed beats it.

    Args:
        sweep: The sweep config.
        output: Folder of tables, page and predictions; by default ``lightning_logs/NAME`` under the root.
        root: Folder that holds ``checkpoints/`` and ``lightning_logs/``.
        name: Beginning of the names of the runs; by default that of the sweep config.
        metric: What to show first; several with commas between them.
        leave_one_out: Whether to train on all domains but one, too, for each.
        seed: Of the trainings; by default that of the config of the run.

    Raises:
        UserError: For a sweep that makes no sense, and for sources that are not there.
    """
    file = Path(configs.find(sweep))
    content = configs.read(str(file))
    check(content, KEYS, str(file), ("config",), "matrix")
    domains, tested = _domains(content, file), {safe(key): one for key, one in (content.get("test") or {}).items()}
    if both := sorted(domains.keys() & tested.keys()):
        raise UserError(f"{file}: {both[0]!r} is a domain that is trained on, and one of test; give it one place")
    if len(domains) < 2:
        raise UserError(f"{file} has {len(domains)} domain to train on; a matrix needs two")
    each = bool(content.get("leave_one_out")) if leave_one_out is None else leave_one_out
    if each and len(domains) < 3:
        raise UserError("leave_one_out needs three domains: of two, all but one is the other one")
    whole = {
        "runs": _runs(content, domains, each),
        "domains": {d: by["test"] for d, by in domains.items()} | tested,
        "metrics": metric.split(",") if metric else content.get("metric"),
    }
    spec = of_content(whole, file, output, root, str(name or content.get("name") or file.stem))
    spec.runs = [
        dataclasses.replace(
            one,
            name=f"{spec.name}-{WITHOUT + one.method.removeprefix(ALL_BUT) if len(one.within) > 1 else one.method}",
            seed=_seed(one.configs) if seed is None else seed,
        )
        for one in spec.runs
    ]
    return spec


def _runs(content: dict[str, Any], domains: dict[str, dict[str, Source]], each: bool) -> dict[str, Any]:
    """Return the runs of a spec: a training on each domain, and where ``each`` one on all but it."""
    trained = {one: [one] for one in domains}
    trained |= {ALL_BUT + one: [other for other in domains if other != one] for one in domains if each}
    reals = bool(content.get("reals", True))
    return {
        method: {
            "config": content["config"],
            "within": own,
            "train": _train([domains[d]["train"] for d in own], reals),
            "val": {d: domains[d]["val"] for d in own},
        }
        for method, own in trained.items()
    }


def _seed(names: tuple[str, ...]) -> int:
    """Return the seed that the configs of a run name; 0 by default."""
    return int(([0] + [one["seed_everything"] for one in configs.layers([*names]) if "seed_everything" in one])[-1])


def _domains(content: dict[str, Any], file: Path) -> dict[str, dict[str, Source]]:
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
    for name, source in by_name.items():
        by_split = source if isinstance(source, dict) and "class_path" not in source else dict.fromkeys(SPLITS, source)
        if missing := set(SPLITS) - by_split.keys():
            raise UserError(f"{file}: domain {name} has no {', '.join(sorted(missing))}, and is no source")
        domains[safe(name)] = {split: by_split[split] for split in SPLITS}
    return domains


def _generators(written: Source) -> list[str]:
    """Return the names of the generators that a source trains on."""
    source = built(written, "source")
    source.prepare()
    names = set(pc.unique(source.load("train")["generator"].cast(pa.string())).to_pylist()) - {""}
    if not names:
        raise UserError(f"{source!r} names no generators; give domains, a source for each")
    return sorted(names)


def _train(sources: list[Source], reals: bool) -> Any:
    """Return what is trained on: a source, or a list of several."""
    parts = merged(sources) if reals else [only(one, reals=False) for one in merged(sources)]
    return parts if len(parts) > 1 else parts[0]


def only(source: Source, generators: list[str] | None = None, reals: bool = True) -> Source:
    """Return part of a source as a config, without an `Only` inside an `Only`."""
    inner = source.get("init_args") or {}
    if source.get("class_path") == "Only" and inner.keys() <= MERGED:
        chosen = generators if generators is not None else inner.get("generators")
        return only(inner["source"], chosen, reals and inner.get("reals", True))
    return {"class_path": "Only", "init_args": {"source": source, "generators": generators, "reals": reals}}


def merged(sources: list[Source]) -> list[Source]:
    """Return parts of one source as one part, so that its real images are there once."""
    inner = [one.get("init_args") or {} for one in sources if one.get("class_path") == "Only"]
    parts = [(one["source"], one.get("reals", True)) for one in inner if one.keys() <= MERGED and one.get("generators")]
    if len(parts) < len(sources) or len(sources) < 2 or any(part != parts[0] for part in parts):
        return sources
    names = list(dict.fromkeys(name for one in inner for name in one["generators"]))
    return [only(parts[0][0], names, parts[0][1])]


def adopt(spec: Spec) -> None:
    """Let what ``dfl matrix`` trained when it kept notes of its own, ``matrix.json``, count as trained."""
    for one in spec.runs:
        note = runs.note(spec, one)
        old = note.with_name("matrix.json")
        if not old.is_file() or note.is_file():
            continue
        state, words = json.loads(old.read_text(encoding="utf-8")), runs.fit_words(spec, one)
        plain = [word for word in words if not word.startswith("--seed_everything=")]
        if state.get("trained") == training.digest(training.learned(plain), {"train": one.train, "val": one.val}):
            known = {key: state[key] for key in ("complete", "monitor") if key in state}
            training.write(note, json.dumps({"trained": runs.trained(spec, one), **known}))
