"""A checkpoint by the word that names it, opened as a detector together with what is known of its run."""

from pathlib import Path
from typing import Any

from dfl.cli import checkpoints
from dfl.cli.checkpoints import Trained
from dfl.detectors import Detector, load
from dfl.errors import UserError, near
from dfl.runs.find import WHICH, resolve, stage


def opened(
    word: str, root: str = ".", name: str | None = None, flag: str = "--", **places: str | None
) -> tuple[Trained, Detector]:
    """Return what a checkpoint knows of itself, and its detector in evaluation mode on the CPU.

    Args:
        word: A file, a shared folder, ``hf://user/repo``, a run (its best), ``RUN/last``, ``best`` or ``last``.
        root: Folder that holds ``checkpoints``.
        name: Of the run whose ``best`` or ``last`` is meant; by default the newest one.
        flag: What the options begin with that give places, for errors.
        **places: Files and models that a checkpoint cannot bring, such as ``weights`` that it leaves out; those that a
            run of one's own names are known.

    Raises:
        UserError: As `dfl.detectors.load`, and for a place that the detector does not know or would not read.
    """
    runs = Path(root).expanduser()
    path = resolve(word, runs, name) if word in WHICH else stage(word, runs, "the checkpoint")
    trained = checkpoints.read(path, runs)
    kind, typed = trained.contents.kind, {place: value for place, value in places.items() if value is not None}
    for place in typed:
        if place not in kind.places:
            raise UserError(f"{flag}{place}: a {kind.__name__} takes none" + near(place, list(kind.places)))
        if trained.all_weights and place not in kind.shaping:
            raise UserError(f"{path} holds all weights, so those of {flag}{place} would not be read: leave it out")
    given: dict[str, Any] = {p: trained.init_args[p] for p in kind.places if trained.init_args.get(p)} | typed
    if missing := trained.contents.missing(given):
        raise UserError(f"{path} {missing.replace('--model.', flag)}")
    if trained.all_weights:  # what frozen weights came from is not read again
        given = {place: value for place, value in given.items() if place in kind.shaping}
    return trained, load(path, **given)
