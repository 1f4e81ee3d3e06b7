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
    from dfl.benchmark import training
    from dfl.cli import app
    from dfl.evaluation import results

    folder, data = sweep.root / "checkpoints" / one.name, data_of(sweep, one)["init_args"]
    file = folder / "matrix.json"
    typed = [*(f"--config={name}" for name in sweep.configs), f"--data={_data_file(sweep, one)}", f"--name={one.name}"]
    typed += [f"--root={sweep.root}", *words]
    sides = {key: data[key] for key in ("train", "val")}
    trained, tested = training.digest(training.learned(typed), sides), training.digest(data["test"])
    state = training.state_of(file, folder, trained)
    if state.get("tested") == tested and state.get("complete"):
        training.say(f"{title}: complete")
        return state
    if not state.get("complete"):
        training.say(f"{title}: training on {', '.join(one.domains)}")
        state = training.train(typed, file, trained)
    word = training.best_or_last(folder)
    training.say(f"{title}: testing its {word} checkpoint on {', '.join(data['test'])}")
    measured = app.main(["test", *typed, f"--ckpt_path={word}"]).model.results["test"]
    state |= {"tested": tested, "checkpoint": word, "results": {d: v for d, v in measured.items() if d != "mean"}}
    training.write(file, results.to_json(state))
    return state


def _data_file(sweep: Sweep, one: Run) -> Path:
    """Return the data config of a run."""
    return sweep.output / "runs" / f"{one.name}.yaml"
