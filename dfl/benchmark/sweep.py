"""``dfl matrix``: train on each generator, test on all of them: the domain matrix of a sweep config, in one command.

    dfl matrix --config sweep.yaml                          runs that are complete are not repeated
    dfl matrix --config sweep.yaml --trainer.max_epochs 3   other options are those of fit and test

A sweep names a run's config and the domains, either the generators of one source or a source for each:

    config: patches_c.yaml          # or a list, each beats those before it
    source: {class_path: Dolos, init_args: {root: data/dolos}}
    generators: [repaint-p2-9k, ldm, lama, pluralistic]       # by default all that the source trains on
    # domains: {splice: {class_path: Table, ...}, inpaint: {class_path: Table, ...}}      instead of these two
    # test: {elsewhere: {class_path: CocoGlide, ...}}         domains that are only tested on
    reals: false                    # whether real images are trained on; validation and test keep them
    leave_one_out: true             # and train on all domains but one, for each
    metric: mask_iou                # or a list; by default what chooses the best checkpoint

See docs/domain_matrix.md.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import yaml

from dfl.cli import arguments as argv
from dfl.cli import configs as config
from dfl.cli.verbs import call
from dfl.data.sources.written import built
from dfl.errors import UserError, near
from dfl.runs import files

#: Options of the matrix itself; all others are those of ``fit`` and ``test``.
OWN = ("output", "metric", "leave_one_out", "name", "root")
#: Keys of a sweep config, and what they hold.
KEYS: dict[str, tuple[type, ...]] = {
    **{"config": (str, list), "source": (dict,), "generators": (list,), "domains": (dict,), "test": (dict,)},
    **{"reals": (bool,), "leave_one_out": (bool,), "metric": (str, list), "name": (str, int)},
}
KINDS = {str: "word", list: "list", dict: "mapping", bool: "true or false", int: "number"}
WHAT = "Train on each domain, test on all, and write the table and its heat map; see the top of this help."
#: Settings that say how a run is computed and not what it learns; a change of them does not make it another run.
MACHINE = ("num_workers", "eval_batch_size")
#: Arguments of `Only` that can be put together with those of another one.
PART = frozenset({"source", "generators", "reals"})

Spec = dict[str, Any]


@dataclass
class Sweep:
    """What a sweep config asks for; a source is a mapping with ``class_path``."""

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


def main(words: list[str]) -> Any:
    """Run the verb, from the words after ``dfl matrix``; return the content of ``matrix.json``.

    Raises:
        UserError: For whatever the user can mend.
    """
    if not words or words[0] in ("-h", "--help"):
        print((__doc__ or "").strip() + "\n")
    own: list[str] = []
    others: list[str] = []
    for flag, value in argv.pairs(["--output" if word == "-o" else word for word in words]):
        typed = flag if value is None else f"{flag}={value}"
        if flag in ("-c", "--config", ""):
            own.insert(0, str(value))
        elif flag.removeprefix("--") in (*OWN, "help") or flag == "-h":
            own.append(typed)
        elif flag in ("--data", "--ckpt_path"):
            raise UserError(f"{flag} is not for a matrix: the sweep config says which images and checkpoints there are")
        else:
            others.append(typed)
    first = ("sweep", "1", "The sweep config, with or without --config before it.")
    return run(call(read, own or ["--help"], "dfl matrix", WHAT, first), others)


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
    file = Path(config.find(sweep))
    told = _content(file)
    configs: list[Any] = told["config"] if isinstance(told["config"], list) else [told["config"]]
    if not all(isinstance(one, str) for one in configs):
        raise UserError(f"{file} names no config of a run: config: patches_c.yaml, or a list of such")
    beside = [file.parent / one for one in configs]
    wanted = metric.split(",") if metric else told.get("metric") or []
    folder, called = Path(root).expanduser(), str(name or told.get("name") or file.stem)
    found = Sweep(
        configs=[str(path) if path.is_file() else config.find(one) for path, one in zip(beside, configs, strict=True)],
        domains=_domains(told, file),
        only_tested={_plain(key): spec for key, spec in (told.get("test") or {}).items()},
        reals=bool(told.get("reals", True)),
        leave_one_out=bool(told.get("leave_one_out", False)) if leave_one_out is None else leave_one_out,
        metrics=[wanted] if isinstance(wanted, str) else [str(one).strip() for one in wanted],
        name=called,
        root=folder,
        output=Path(output).expanduser() if output else folder / "lightning_logs" / called,
    )
    if Path(called).name != called:
        raise UserError(f"--name {called} must be the name of one folder; where it lies is set with --root")
    if both := sorted(found.domains.keys() & found.only_tested.keys()):
        raise UserError(f"{file}: {both[0]!r} is a domain that is trained on, and one of test; give it one place")
    if len(found.domains) < 2:
        raise UserError(f"{file} has {len(found.domains)} domain to train on; a matrix needs two")
    if found.leave_one_out and len(found.domains) < 3:
        raise UserError("leave_one_out needs three domains: of two, all but one is the other one")
    return found


def run(sweep: Sweep, words: Sequence[str]) -> dict[str, Any]:
    """Train and test what is not yet done, then write and print the matrix.

    Args:
        sweep: What to train and test.
        words: Options of ``fit`` and ``test``, as typed.

    Returns:
        The content of ``matrix.json``.

    Raises:
        UserError: If a run of this name was trained with other settings, a metric is none of those measured, or the
            output cannot be written.
    """
    from dfl.benchmark import matrix

    _check(sweep)
    runs = list(_runs(sweep))
    _write_data(sweep, runs)
    rows, monitor = [], ""
    for place, one in enumerate(runs):
        state = _done(sweep, one, list(words), f"run {place + 1} of {len(runs)}: {one.name}")
        monitor = state["monitor"]
        rows.append(matrix.Row(one.label, tuple(one.domains), state["results"]))
    measured = sorted({name for row in rows for values in row.results.values() for name in values})
    chosen_by = monitor.rpartition("/")[2] or "auroc"
    if chosen_by == "loss":  # of validation alone
        chosen_by = "mask_iou" if "mask_iou" in measured else "auroc"
    metrics = sweep.metrics or [chosen_by]
    for name in metrics:
        if name not in measured:
            raise UserError(f"no metric {name!r} was measured{near(name, measured)}; the runs are kept")
    columns = [*sweep.domains, *sweep.only_tested]
    facts = {"name": sweep.name, "configs": sweep.configs, "options": list(words), "runs": [r.name for r in runs]}
    return matrix.write(sweep.output, facts, metrics, columns, rows)


def _done(sweep: Sweep, one: Run, words: list[str], said: str) -> dict[str, Any]:
    """Return the state of a run, trained and tested; it is kept beside its checkpoints."""
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    from dfl.cli import app
    from dfl.evaluation import results

    folder = sweep.root / "checkpoints" / one.name
    data = _data(sweep, one)
    file = _data_file(sweep, one)
    state_file = folder / "matrix.json"
    write = rank_zero_only(files.write)
    say = rank_zero_only(print)

    def keep(state: dict[str, Any]) -> None:
        write(state_file, results.to_json(state))

    begin = [*(f"--config={name}" for name in sweep.configs), f"--data={file}", f"--name={one.name}"]
    begin += [f"--root={sweep.root}", *words]
    trained = _digest(_learned(begin), {key: data["init_args"][key] for key in ("train", "val")})
    tested = _digest(data["init_args"]["test"])
    state = json.loads(state_file.read_text(encoding="utf-8")) if state_file.is_file() else {}
    if state.get("trained", trained) != trained or (not state and any(folder.glob("*.ckpt"))):
        raise UserError(
            f"{folder} holds a run with other settings than this sweep has; remove it, or give the sweep another --name"
        )
    if state.get("tested") == tested and state.get("complete"):
        say(f"{said}: complete")
        return dict(state)
    if not state.get("complete"):
        say(f"{said}: training on {', '.join(one.domains)}")
        state = {"trained": trained, "complete": False}
        keep(state)
        fitted = app.main(["fit", *begin, "--ckpt_path=last"])
        state |= {"complete": True, "monitor": str(getattr(fitted.trainer.checkpoint_callback, "monitor", ""))}
        keep(state)
        del fitted
    word = "best" if (folder / "best.ckpt").is_file() else "last"
    say(f"{said}: testing its {word} checkpoint on {', '.join(data['init_args']['test'])}")
    found = app.main(["test", *begin, f"--ckpt_path={word}"]).model.results["test"]
    # what is not finite is kept as JSON keeps it
    state |= {"tested": tested, "checkpoint": word, "results": {d: v for d, v in found.items() if d != "mean"}}
    keep(state)
    return state


def _write_data(sweep: Sweep, runs: Sequence[Run]) -> None:
    """Write the data configs of all runs, before any starts: other ranks, which it starts, read them at once."""
    for one in runs:
        file, content = _data_file(sweep, one), yaml.safe_dump(_data(sweep, one), sort_keys=False)
        (sweep.root / "checkpoints" / one.name).mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_text(encoding="utf-8") != content:
            files.write(file, content)


def _data_file(sweep: Sweep, one: Run) -> Path:
    """Return the data config of a run."""
    return sweep.output / "runs" / f"{one.name}.yaml"


def _runs(sweep: Sweep) -> Iterator[Run]:
    """Yield the trainings: on each domain, then on all but each."""
    names = list(sweep.domains)
    for name in names:
        yield Run(name, f"{sweep.name}-{name}", [name])
    for name in names if sweep.leave_one_out else ():
        yield Run(f"all but {name}", f"{sweep.name}-without-{name}", [other for other in names if other != name])


def _data(sweep: Sweep, one: Run) -> Spec:
    """Return the data of a run as a config."""
    trained = [sweep.domains[name]["train"] for name in one.domains]
    merged = _merged(trained)
    if not sweep.reals:
        merged = [_only(spec, reals=False) for spec in merged]
    return {
        "class_path": "DataModule",
        "init_args": {
            "train": merged if len(merged) > 1 else merged[0],
            "val": {name: sweep.domains[name]["val"] for name in one.domains},
            "test": {name: by["test"] for name, by in sweep.domains.items()} | sweep.only_tested,
        },
    }


def _only(spec: Spec, generators: list[str] | None = None, reals: bool = True) -> Spec:
    """Return part of a source as a config, without a shell inside a shell."""
    inner = spec.get("init_args") or {}
    if spec.get("class_path") == "Only" and inner.keys() <= PART:
        chosen = generators if generators is not None else inner.get("generators")
        return _only(inner["source"], chosen, reals and inner.get("reals", True))
    return {"class_path": "Only", "init_args": {"source": spec, "generators": generators, "reals": reals}}


def _merged(specs: list[Spec]) -> list[Spec]:
    """Return parts of one source as one part, so that its real images are there once."""
    inner = [spec.get("init_args") or {} for spec in specs if spec.get("class_path") == "Only"]
    known = [one for one in inner if one.keys() <= PART and one.get("generators")]
    parts: list[tuple[Spec, bool]] = [(one["source"], one.get("reals", True)) for one in known]
    if len(parts) < len(specs) or len(specs) < 2 or any(part != parts[0] for part in parts):
        return specs
    names = list(dict.fromkeys(name for one in inner for name in one["generators"]))
    return [_only(parts[0][0], names, parts[0][1])]


def _domains(told: Spec, file: Path) -> dict[str, dict[str, Spec]]:
    """Return the sources of each domain by split."""
    if ("source" in told) == ("domains" in told):
        raise UserError(f"{file} needs either source, whose generators are the domains, or domains")
    if "domains" in told:
        if "generators" in told:
            raise UserError(f"{file}: generators belong to source; of domains, use Only as a source")
        found = {}
        for name, given in (told["domains"] or {}).items():
            if isinstance(given, dict) and "class_path" not in given:
                if missing := {"train", "val", "test"} - given.keys():
                    raise UserError(f"{file}: domain {name} has no {', '.join(sorted(missing))}, and is no source")
                found[_plain(name)] = {split: given[split] for split in ("train", "val", "test")}
            else:
                found[_plain(name)] = dict.fromkeys(("train", "val", "test"), given)
        return found
    source = told["source"]
    names = told.get("generators")
    if names is None:
        made = built(source, "source")
        made.prepare()
        table = made.load("train")
        names = sorted(set(pc.unique(table["generator"].cast(pa.string())).to_pylist()) - {""})
        if not names:
            raise UserError(f"{made!r} names no generators; give domains, a source for each")
    return {_plain(name): dict.fromkeys(("train", "val", "test"), _only(source, [str(name)])) for name in names}


def _check(sweep: Sweep) -> None:
    """Raise for sources that cannot be read, before the first run and not after it."""
    seen: dict[str, Any] = {}
    wanted = [(name, split, spec) for name, by in sweep.domains.items() for split, spec in by.items()]
    wanted += [(name, "test", spec) for name, spec in sweep.only_tested.items()]
    for name, split, spec in wanted:
        key = json.dumps(spec, sort_keys=True)
        if key not in seen:
            seen[key] = built(spec, f"domain {name!r}")
            seen[key].prepare()
        seen[key].load(split)
    for source in seen.values():
        source.release()


def _learned(words: list[str]) -> Any:
    """Return what a run learns from, of its options: settings of the machine alone are left out."""
    from dfl.cli.checkpoints import RUN_SETTINGS

    made = argv.plan(["fit", *words])
    kept: list[Any] = []
    for layer in made.layers:
        inner = {key: value for key, value in layer.items() if key in ("model", "trainer", "checkpoint")}
        inner["trainer"] = {k: v for k, v in (layer.get("trainer") or {}).items() if k in RUN_SETTINGS}
        data = layer.get("data")
        if isinstance(data, dict):
            arguments = (data.get("init_args") or {}).items()
            data = {key: value for key, value in arguments if key not in MACHINE}
        kept.append([inner, data, layer.get("seed_everything")])
    for flag, value in made.typed:
        words = flag.removeprefix("--").split(".")
        of_machine = words[-1] in MACHINE or (words[0] == "trainer" and words[1] not in RUN_SETTINGS)
        if words not in (["data"], ["name"], ["root"]) and not of_machine:
            kept.append([flag, value])
    return kept


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _plain(name: Any) -> str:
    """Return a domain's name without what separates names in logs and flags."""
    return str(name).replace(".", "_").replace("/", "_")


def _content(file: Path) -> Spec:
    """Return what a sweep config holds."""
    told = config.read(str(file))
    if not isinstance(told, dict) or "config" not in told:
        raise UserError(f"{file} is no sweep: it needs config (of a run), and source or domains; dfl matrix --help")
    for key, value in told.items():
        if key not in KEYS:
            raise UserError(f"{file} has an unknown key {str(key)!r}" + near(str(key), list(KEYS)))
        if value is not None and not isinstance(value, KEYS[key]):
            kinds = " or a ".join(KINDS[kind] for kind in KEYS[key])
            raise UserError(f"{file}: {key} takes a {kinds}, not {value!r}")
    return told
