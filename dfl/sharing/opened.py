"""A checkpoint by the word that names it, opened as a detector together with what is known of its run."""

from pathlib import Path

from dfl.cli import checkpoints
from dfl.cli.checkpoints import Trained
from dfl.detectors import Detector, load
from dfl.runs.find import WHICH, resolve, stage


def opened(word: str, root: str = ".", weights: str | None = None) -> tuple[Trained, Detector]:
    """Return what a checkpoint knows of itself, and its detector in evaluation mode on the CPU.

    Args:
        word: A file, a shared folder, ``hf://user/repo``, a run (its best), ``RUN/last``, ``best`` or ``last``.
        root: Folder that holds ``checkpoints``.
        weights: File of frozen weights that the checkpoint leaves out; those that a run of one's own names are known.

    Raises:
        UserError: As `dfl.detectors.load`.
    """
    runs = Path(root).expanduser()
    path = resolve(word, runs, None) if word in WHICH else stage(word, runs, "the checkpoint")
    trained = checkpoints.read(path, runs)
    places = {name: trained.init_args[name] for name in trained.contents.kind.places if trained.init_args.get(name)}
    if weights is not None:
        places["weights"] = weights
    if trained.all_weights:  # what frozen weights came from is not read again
        places = {name: value for name, value in places.items() if name in trained.contents.kind.shaping}
    return trained, load(path, **places)
