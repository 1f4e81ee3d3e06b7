"""Look at data sets, and mend them, before anything is trained on them: ``dfl data VERB SOURCE...``.

A source is a data config (``data/140k.yaml``), a folder, or a table (``.csv``, ``.parquet``). Each verb is one function
in a file of its name; its signature and docstring are its help.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from dfl.cli.verbs import call
from dfl.errors import UserError, near

VERBS = {
    "scan": "write a table of all images: size, format, hashes, what cannot be read",
    "check": "count, find what cannot be read, copies, bad masks, labels that leak through the files",
    "faces": "write a table of the faces in images and videos, by a file of boxes or a face detector",
    "split": "share images out to train, val and test; what belongs together stays together",
    "equalize": "write real and fake anew, the same way: size, format, JPEG quality",
    "templates": "compute mean and principal components of masks, for the appearance model of FFD",
    "embed": "write the features of a frozen encoder, and maps of them by label, generator and domain",
    "pack": "write small images into shards, for fast training",
}
USAGE = "usage: dfl data VERB SOURCE... [--key value ...]\n\nverbs:\n{verbs}\n\n{doc}\n\n  dfl data VERB --help"


def main(argv: list[str]) -> Any:
    """Run one verb, from the words after ``dfl data``; return what it returns.

    Raises:
        UserError: For whatever the user can mend.
    """
    if not argv or argv[0] in ("-h", "--help"):
        verbs = "\n".join(f"  {name:11}{what}" for name, what in VERBS.items())
        print(USAGE.format(verbs=verbs, doc=(__doc__ or "").strip()))
        return None
    verb, *words = argv
    if verb not in VERBS:
        raise UserError(f"no verb {verb!r} of `dfl data`" + near(verb, list(VERBS)))
    run: Callable[..., Any] = getattr(import_module(f"dfl.tools.{verb}"), verb)
    first = ("sources", "+", "Data configs, folders, tables.")
    return call(run, words, f"dfl data {verb}", VERBS[verb], first)
