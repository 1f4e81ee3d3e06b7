"""Checkpoints, as ``--ckpt_path`` and ``--init_from`` take them: by the name of a run, or as somebody shared them."""

from pathlib import Path

from dfl import hub
from dfl.errors import UserError, near
from dfl.runs import shared
from dfl.runs.checkpoint import newest_whole

WHICH = ("best", "last")
#: How a graph is opened, by its suffix.
GRAPHS = {
    ".onnx": "dfl predict PATHS --onnx {}",
    ".pt2": 'torch.export.load("{}").module() in Python; dfl scores with graphs of --to onnx alone',
}


def resolve(word: str, root: Path, name: str | None) -> Path:
    """Return the file that ``--ckpt_path`` means.

    Args:
        word: ``best``, ``last``, a file, a shared folder, or a repository of the hub, ``hf://user/repo``.
        root: Folder that holds ``checkpoints``.
        name: Name of the run; None takes the newest run that has such a checkpoint.

    Raises:
        UserError: If it is any other URL, or no such file exists.
    """
    if "://" in word and not word.startswith(hub.BEGINS):
        raise UserError(
            f"--ckpt_path takes a local file or {hub.BEGINS}user/repo, not the URL {word}; download it first if you "
            "trust it"
        )
    runs = root / "checkpoints"
    if word not in WHICH:
        path = weights_of(word)
        if path.is_dir():
            raise UserError(f"--ckpt_path {word} is a folder; name the file in it, such as {path / 'best.ckpt'}")
        if not path.is_file():
            raise UserError(f"no checkpoint {word!r} in {Path.cwd()}" + _hint(word, runs))
        return path
    if name is None:
        files = [file for end in ("", "-previous") for file in runs.glob(f"*/{word}{end}.ckpt")]
        if not files:
            raise UserError(
                f"no run in {runs.absolute()} has a {word}.ckpt; train one, or set --root to where runs are"
            )
        whole = [file for file in files if file.stem == word] or files
        name = max(whole, key=lambda path: path.stat().st_mtime).parent.name
    path = newest_whole(runs / name / f"{word}.ckpt")
    if not path.is_file():
        raise UserError(f"no {word}.ckpt of the run {name!r} in {path.parent.absolute()}" + _hint(name, runs))
    return path


def stage(word: str, root: Path, flag: str = "--init_from") -> Path:
    """Return the file that ``--init_from`` means.

    Args:
        word: A file, a shared folder, ``hf://user/repo``, the name of a run (its best checkpoint), or ``NAME/best``,
            ``NAME/last``.
        root: Folder that holds ``checkpoints``.
        flag: What the user wrote it after, for errors.

    Raises:
        UserError: If it is any other URL, or there is neither such a file nor such a run.
    """
    if "://" in word and not word.startswith(hub.BEGINS):
        raise UserError(f"{flag} takes a run, a local file or {hub.BEGINS}user/repo, not the URL {word}")
    path = weights_of(word)
    if path.is_file():
        return path
    name, _, which = word.rpartition("/")
    name, which = (name, which) if which in WHICH else (word, "best")
    runs = root / "checkpoints"
    if name in ("", ".", "..") or not (runs / name).is_dir():
        raise UserError(f"{flag} {word}: no such file in {Path.cwd()}, and no such run" + _hint(name, runs))
    return resolve(which, root, name)


def weights_of(place: str | Path) -> Path:
    """Return the file of a shared folder or of a repository of the hub, which is fetched; any other path as it is.

    Raises:
        UserError: For a graph, or a folder that holds one and no weights: it is opened in another way.
    """
    if str(place).startswith(hub.BEGINS):
        return hub.fetch(str(place), (shared.CONFIG, shared.WEIGHTS)) / shared.WEIGHTS
    path = Path(place).expanduser()
    if shared.is_shared(path):
        return path / shared.WEIGHTS
    for end, opens in GRAPHS.items():
        graph = path if path.suffix == end else path / f"model{end}"
        if graph.is_file():
            raise UserError(f"{path} is a graph of dfl export --to {end[1:]}, no checkpoint: {opens.format(graph)}")
    return path


def _hint(word: str, runs: Path) -> str:
    """Return what comes near among the names of runs."""
    names = sorted({path.parent.name for path in runs.glob("*/*.ckpt")})
    return near(word, names).replace("; there are", "; runs there:") if names else ""
