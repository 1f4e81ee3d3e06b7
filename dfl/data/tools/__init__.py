"""Look at data sets, and mend them, before anything is trained on them: ``dfl data VERB SOURCE...``.

A source is a data config (``data/140k.yaml``), a folder, or a table (``.csv``, ``.parquet``). Each verb is one function
in a file of its name; its signature and docstring are its help.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from dfl.errors import UserError, near

VERBS = {
    "scan": "write a table of all images: size, format, hashes, what cannot be read",
    "check": "count, find what cannot be read, copies, bad masks, labels that leak through the files",
    "faces": "write a table of the faces in images and videos, by a file of boxes or a face detector",
    "split": "share images out to train, val and test; what belongs together stays together",
    "equalize": "write real and fake anew, the same way: size, format, JPEG quality",
    "pack": "write small images into shards, for fast and remote training",
}
USAGE = "usage: dfl data VERB SOURCE... [--key value ...]\n\nverbs:\n{verbs}\n\n{doc}\n\n  dfl data VERB --help"


class _Mistake(Exception):
    """What the parser says."""


class _Parser(ArgumentParser):
    """Raises instead of printing its usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise _Mistake(message) from ex


def main(argv: list[str]) -> Any:
    """Run one verb, from the words after ``dfl data``; return what it returns.

    Raises:
        UserError: For whatever the user can mend.
    """
    if not argv or argv[0] in ("-h", "--help"):
        verbs = "\n".join(f"  {name:10}{what}" for name, what in VERBS.items())
        print(USAGE.format(verbs=verbs, doc=(__doc__ or "").strip()))
        return None
    verb, *words = argv
    if verb not in VERBS:
        raise UserError(f"no verb {verb!r} of `dfl data`" + near(verb, list(VERBS)))
    run: Callable[..., Any] = getattr(import_module(f"dfl.data.tools.{verb}"), verb)
    parser = _Parser(prog=f"dfl data {verb}", description=VERBS[verb], allow_abbrev=False)
    parser.add_argument("sources", nargs="+", help="Data configs, folders, tables.")
    added = parser.add_function_arguments(run, skip={"sources"})
    try:
        given = parser.parse_args(["--output" if word == "-o" else word for word in words])
    except (_Mistake, ArgumentError) as error:
        raise UserError(_worded(str(error), verb, added)) from error
    return run(**parser.instantiate_classes(given).as_dict())


def _worded(message: str, verb: str, known: list[str]) -> str:
    """Return a complaint of the parser as one line."""
    words = " ".join(message.split())
    if "nrecognized arguments: " in words:
        flag = words.partition("nrecognized arguments: ")[2].split()[0].split("=")[0]
        return f"no option {flag} of `dfl data {verb}`" + near(flag.lstrip("-"), known)
    return f"dfl data {verb}: {words}"
