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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from dfl.benchmark.sweep_config import Run, Sweep, check_sources, data_of, read, runs_of
from dfl.cli import arguments
from dfl.cli.verbs import call
from dfl.errors import UserError, near
from dfl.runs import files

#: Options of the matrix itself; all others are those of ``fit`` and ``test``.
OWN = ("output", "metric", "leave_one_out", "name", "root")
WHAT = "Train on each domain, test on all, and write the table and its heat map; see the top of this help."
#: Settings that say how a run is computed and not what it learns; a change of them does not make it another run.
MACHINE = ("num_workers", "eval_batch_size")


def main(words: list[str]) -> Any:
    """Run the verb, from the words after ``dfl matrix``; return the content of ``matrix.json``.

    Raises:
        UserError: For whatever the user can mend.
    """
    if not words or words[0] in ("-h", "--help"):
        print((__doc__ or "").strip() + "\n")
    own: list[str] = []
    others: list[str] = []
    for flag, value in arguments.pairs(["--output" if word == "-o" else word for word in words]):
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
    from dfl.benchmark import matrix  # here and below: the help needs no torch

    check_sources(sweep)
    runs = list(runs_of(sweep))
    for one in runs:  # before any starts: other ranks, which it starts, read them at once
        file, content = _data_file(sweep, one), yaml.safe_dump(data_of(sweep, one), sort_keys=False)
        (sweep.root / "checkpoints" / one.name).mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_text(encoding="utf-8") != content:
            files.write(file, content)
    rows, monitor = [], ""
    for place, one in enumerate(runs):
        state = _complete(sweep, one, list(words), f"run {place + 1} of {len(runs)}: {one.name}")
        monitor = state["monitor"]
        rows.append(matrix.Row(one.label, tuple(one.domains), state["results"]))
    measured = sorted({name for row in rows for values in row.results.values() for name in values})
    default = monitor.rpartition("/")[2] or "auroc"
    if default == "loss":  # of validation alone
        default = "mask_iou" if "mask_iou" in measured else "auroc"
    metrics = sweep.metrics or [default]
    for name in metrics:
        if name not in measured:
            raise UserError(f"no metric {name!r} was measured{near(name, measured)}; the runs are kept")
    columns = [*sweep.domains, *sweep.only_tested]
    facts = {"name": sweep.name, "configs": sweep.configs, "options": list(words), "runs": [r.name for r in runs]}
    return matrix.write(sweep.output, facts, metrics, columns, rows)


def _complete(sweep: Sweep, one: Run, words: list[str], title: str) -> dict[str, Any]:
    """Train and test a run unless that is done; return its state, which is stored beside its checkpoints."""
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    from dfl.cli import app
    from dfl.evaluation import results

    say, write = rank_zero_only(print), rank_zero_only(files.write)
    folder, data = sweep.root / "checkpoints" / one.name, data_of(sweep, one)["init_args"]
    file = folder / "matrix.json"
    typed = [*(f"--config={name}" for name in sweep.configs), f"--data={_data_file(sweep, one)}", f"--name={one.name}"]
    typed += [f"--root={sweep.root}", *words]
    trained, tested = _digest(_learned(typed), {key: data[key] for key in ("train", "val")}), _digest(data["test"])
    state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if state.get("trained", trained) != trained or (not state and any(folder.glob("*.ckpt"))):
        raise UserError(
            f"{folder} holds a run with other settings than this sweep has; remove it, or give the sweep another --name"
        )
    if state.get("tested") == tested and state.get("complete"):
        say(f"{title}: complete")
        return state
    if not state.get("complete"):
        say(f"{title}: training on {', '.join(one.domains)}")
        state = {"trained": trained, "complete": False}
        write(file, results.to_json(state))
        trainer = app.main(["fit", *typed, "--ckpt_path=last"]).trainer
        state |= {"complete": True, "monitor": str(getattr(trainer.checkpoint_callback, "monitor", ""))}
        write(file, results.to_json(state))
        del trainer
    word = "best" if (folder / "best.ckpt").is_file() else "last"
    say(f"{title}: testing its {word} checkpoint on {', '.join(data['test'])}")
    measured = app.main(["test", *typed, f"--ckpt_path={word}"]).model.results["test"]
    state |= {"tested": tested, "checkpoint": word, "results": {d: v for d, v in measured.items() if d != "mean"}}
    write(file, results.to_json(state))
    return state


def _data_file(sweep: Sweep, one: Run) -> Path:
    """Return the data config of a run."""
    return sweep.output / "runs" / f"{one.name}.yaml"


def _learned(words: list[str]) -> list[Any]:
    """Return what a run learns from, of its options: settings of the machine alone are left out."""
    from dfl.cli.checkpoints import RUN_SETTINGS

    plan = arguments.plan(["fit", *words])
    settings: list[Any] = []
    for layer in plan.layers:
        inner = {key: value for key, value in layer.items() if key in ("model", "trainer", "checkpoint")}
        inner["trainer"] = {k: v for k, v in (layer.get("trainer") or {}).items() if k in RUN_SETTINGS}
        data = layer.get("data")
        if isinstance(data, dict):
            data = {key: value for key, value in (data.get("init_args") or {}).items() if key not in MACHINE}
        settings.append([inner, data, layer.get("seed_everything")])
    for flag, value in plan.typed:
        names = flag.removeprefix("--").split(".")
        of_machine = names[-1] in MACHINE or (names[0] == "trainer" and names[1] not in RUN_SETTINGS)
        if names not in (["data"], ["name"], ["root"]) and not of_machine:
            settings.append([flag, value])
    return settings


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()
