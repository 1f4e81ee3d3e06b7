"""``dfl info``: what a checkpoint is, was trained on, and says of its scores; whoever made it, it is read as data."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dfl.cli import checkpoints
from dfl.cli.checkpoints import Trained
from dfl.cli.configs import class_of
from dfl.cli.verbs import call
from dfl.detectors.base import Detector
from dfl.errors import visible
from dfl.metrics.verdicts import Verdicts, percent
from dfl.runs.checkpoint import read_checkpoint
from dfl.runs.files import sha256
from dfl.runs.find import stage
from dfl.runs.settings import flat
from dfl.runs.weights_hash import WeightsHash

WHAT = "Show what a checkpoint is: class, method, settings, calibration, thresholds with intervals, hashes."


def main(argv: list[str]) -> None:
    """Run the verb, from the words after ``dfl info``.

    Raises:
        UserError: If there is no such checkpoint, or it holds what a checkpoint cannot bring.
    """
    first = ("checkpoint", "1", "A file, the name of a run (its best), or NAME/last.")
    call(info, argv or ["--help"], "dfl info", WHAT, first)


def info(checkpoint: str, root: str = ".") -> None:
    """Print what a checkpoint is.

    Args:
        checkpoint: A file, the name of a run (its best), or ``NAME/last``.
        root: Folder that holds ``checkpoints/``.

    Raises:
        UserError: If there is no such checkpoint, or it holds what a checkpoint cannot bring.
    """
    path = stage(checkpoint, Path(root), "info")
    trained = checkpoints.read(path, Path(root))
    found = list(facts(trained))
    width = max(len(name) for name, _ in found)
    for name, value in found:
        print(visible(f"{name:{width}}  {value}"))
    if trained.contents.verdicts is not None:
        print()
        for line in table(trained.contents.verdicts):
            print(line)
    for note in trained.notes:
        print(visible(note))


def facts(trained: Trained) -> Iterator[tuple[str, str]]:
    """Yield what there is to say of a checkpoint, each with its name."""
    content, kind = read_checkpoint(trained.path), trained.contents.kind
    state = content["state_dict"]
    yield "file", f"{trained.path}, {trained.path.stat().st_size:,} bytes"
    yield "class", f"{trained.class_path}{_method(kind)}"
    yield "written by", f"dfl {content['dfl'].get('version', 'of an unknown version')}"
    yield "trained", f"epoch {trained.epoch}, step {trained.step}"
    yield "trained on", _data(trained)
    if trained.usual is not None:
        ranges = (f"{name} {trained.usual.range_of(name)}" for name in trained.usual.ranges)
        yield "usual images", ", ".join(ranges) + " (1st to 99th percentile)"
    yield "images", ", ".join(f"{key} {value}" for key, value in (trained.transform or {}).items()) or "not known"
    for key, value in sorted(flat(trained.init_args).items()):
        yield f"  {key}", str(value)
    count = sum(weight.numel() for weight in state.values())
    left_out = trained.contents.left_out
    rest = f", on top of {left_out['name']} (sha256 {left_out['sha256'][:12]})" if left_out else ""
    yield "weights", f"{len(state):,} tensors, {count:,} numbers{rest}"
    yield "sha256", f"{WeightsHash()(state)} of the weights"
    yield "", f"{sha256(trained.path)} of the file"
    yield "threshold", _threshold(state, trained.contents.verdicts)


def table(verdicts: Verdicts) -> Iterator[str]:
    """Yield the lines of a table: each threshold, what it does on validation, and what may be expected of others."""
    yield (
        f"validation: {verdicts.reals:,} real and {verdicts.fakes:,} fake images; "
        f"probability = sigmoid({verdicts.scaled(3)})"
    )
    shown = [c for c in verdicts.coverages if c in (0.8, 0.9, 0.95, 1.0)]
    yield (
        f"{'--fpr':>8}  {'threshold':>9}  {'log-odds':>8}  {'reals called fake':>17}  {'on others (95 %)':>18}"
        + "".join(f"  {f'wrong at {percent(c)}':>14}" for c in shown)
    )
    for i, rate in enumerate(verdicts.rates):
        interval = f"{percent(verdicts.lows[i])} to {percent(verdicts.highs[i])}"
        risks = "".join(f"  {percent(verdicts.risks[i][verdicts.coverages.index(c)]):>14}" for c in shown)
        name = f"{rate:g}" if rate else "none"
        at = f"{verdicts.thresholds[i]:>9.4g}  {verdicts.odds[i]:>8.3g}"  # several thresholds may round to 1
        yield f"{name:>8}  {at}  {percent(verdicts.fprs[i]):>17}  {interval:>18}{risks}"
    yield "wrong at C: of the validation images with a verdict, if --coverage is C; with it others are unsure"


def _method(kind: type[Detector]) -> str:
    """Return the paper of a class, and the first line of what it says of itself."""
    paper = f" ({kind.about.paper} {kind.about.year})" if kind.about is not None and kind.about.paper else ""
    return paper + (f": {kind.__doc__.strip().splitlines()[0]}" if kind.__doc__ else "")


def _data(trained: Trained) -> str:
    """Return the sources of a run of the user's own; a stranger's file does not name any that would be believed."""
    if not trained.train:
        return "not told: the settings of its run are not here"
    return "; ".join(f"{class_of(one)} {flat(one.get('init_args') or {})}" for one in trained.train)


def _threshold(state: Any, verdicts: Verdicts | None) -> str:
    value = float(state["threshold"]) if "threshold" in state else math.nan
    if math.isnan(value):
        return "none: no validation has chosen one"
    return f"{value:.4g}" + ("" if verdicts else ", and no calibration: it was written by an earlier dfl")
