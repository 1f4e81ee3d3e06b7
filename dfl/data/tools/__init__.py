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
    run = getattr(import_module(f"dfl.data.tools.{verb}"), verb)
    return call(run, f"dfl data {verb}", VERBS[verb], words)


def call(run: Callable[..., Any], prog: str, what: str, words: list[str]) -> Any:
    """Call a function with the words of a command line: its signature and docstring are the options and their help.

    Args:
        run: The function; its first argument, ``sources``, takes the words that are no options.
        prog: How the command is called.
        what: What it does, for the help.
        words: The words after it.

    Raises:
        UserError: For a word that is no option, or a value of another kind.
    """
    parser = _Parser(prog=prog, description=what, allow_abbrev=False)
    parser.add_argument("sources", nargs="+", help="Data configs, folders, tables.")
    added = parser.add_function_arguments(run, skip={"sources"})
    try:
        given = parser.parse_args(["--output" if word == "-o" else word for word in words])
    except (_Mistake, ArgumentError) as error:
        raise UserError(_worded(str(error), prog, added)) from error
    return run(**parser.instantiate_classes(given).as_dict())


def _worded(message: str, prog: str, known: list[str]) -> str:
    """Return a complaint of the parser as one line."""
    words = " ".join(message.split())
    if "nrecognized arguments: " in words:
        flag = words.partition("nrecognized arguments: ")[2].split()[0].split("=")[0]
        return f"no option {flag} of `{prog}`" + near(flag.lstrip("-"), known)
    return f"{prog}: {words}"
