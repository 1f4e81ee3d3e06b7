"""``dfl push``: a trained detector as a repository of the Hugging Face hub, with its model card.

    dfl push vit_scl user/repo                                     a new repository, or a new commit of one
    dfl test --ckpt_path hf://user/repo --data data/toy.yaml       opened again, by the rules for a stranger's file

What is sent is what ``dfl export --to safetensors`` writes: model.safetensors, config.json, README.md; of Sida, parts
that transformers opens. The token is the one of ``hf auth login``, or HF_TOKEN.
"""

import tempfile
from pathlib import Path
from typing import Any, Unpack

from dfl.cli.verbs import call
from dfl.detectors import Sida
from dfl.errors import UserError
from dfl.hub import BEGINS, send
from dfl.runs.files import sha256
from dfl.sharing.card import write_card
from dfl.sharing.export import write
from dfl.sharing.measured import Told
from dfl.sharing.opened import opened

WHAT = "Share a trained detector on the Hugging Face hub."


def main(argv: list[str]) -> Any:
    """Run the verb, from the words after ``dfl push``; return what `push` returns.

    Raises:
        UserError: For whatever the user can mend.
    """
    words = argv or ["--help"]
    if len(words) > 1 and not words[1].startswith("-"):
        words = [words[0], f"--repo={words[1]}", *words[2:]]
    first = ("checkpoint", "1", "A run (its best), RUN/last, best, last, or a file; then user/repo.")
    return call(push, words, "dfl push", WHAT, first, __doc__)


def push(
    checkpoint: str,
    repo: str,
    private: bool = True,
    images: list[str] | None = None,
    root: str = ".",
    weights: str | None = None,
    **told: Unpack[Told],
) -> str:
    """Send a detector to the hub, and return its address, by which every verb opens it; but a Sida transformers opens.

    Args:
        checkpoint: What is shared.
        repo: ``user/repo``.
        private: Whether a new repository is seen by its owner alone; one that is there stays as it is.
        images: Images, folders or lists that checkpoint and export are compared on.
        root: Folder that holds checkpoints/ and lightning_logs/.
        weights: File of frozen weights that the checkpoint leaves out.
        **told: See `dfl.sharing.measured.Told`.

    Raises:
        UserError: As `dfl.sharing.export.export`, and for what the hub refuses.
    """
    if repo.count("/") != 1:
        raise UserError(f"{repo!r} is no repository: user/repo")
    trained, detector = opened(checkpoint, root, weights=weights)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        settings = {"checkpoint": sha256(trained.path), "to": "safetensors", "images": images, "values": "uint8"}
        content = write(folder, trained, detector, settings | {"int8": False})
        write_card(folder, trained, content, Path(root).expanduser(), told, repo)
        commit = send(folder, repo, private)
    opens = "; transformers opens its parts, as the card says" if isinstance(detector, Sida) else ""
    print(f"{BEGINS}{repo}, commit {commit}{opens}")
    return f"{BEGINS}{repo}@{commit}"
