"""A verb from a function: its signature and docstring become the options and the help."""

from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from dfl.errors import UserError, near


class _Mistake(Exception):
    """What the parser says."""


class _Parser(ArgumentParser):
    """Raises instead of printing its usage."""

    def error(self, message: str, ex: Exception | None = None) -> Any:
        raise _Mistake(message) from ex


def call(run: Callable[..., Any], words: list[str], name: str, what: str, first: tuple[str, str, str]) -> Any:
    """Call a function with the options that were typed; ``-o`` is short for ``--output``.

    Args:
        run: Its parameters are the options.
        words: As typed, after the verb.
        name: The whole verb, such as ``dfl data scan``.
        what: What it does, for the help.
        first: The parameter that stands without a flag, how many words it takes (``+`` or ``1``), and its help.

    Returns:
        What the function returns.

    Raises:
        UserError: For words that make no sense; and the function's own.
    """
    place, number, help = first
    parser = _Parser(prog=name, description=what, allow_abbrev=False)
    many: dict[str, Any] = {"nargs": number} if number == "+" else {}
    parser.add_argument(place, help=help, **many)
    known = parser.add_function_arguments(run, skip={place})
    try:
        given = parser.parse_args(["--output" if word == "-o" else word for word in words])
    except (_Mistake, ArgumentError) as error:
        raise UserError(_worded(str(error), name, known)) from error
    words_of = parser.instantiate_classes(given).as_dict()
    if words_of.get("seed", 0) < 0:
        raise UserError(f"--seed {words_of['seed']} must not be negative")
    return run(**words_of)


def _worded(message: str, name: str, known: list[str]) -> str:
    """Return a complaint of the parser as one line."""
    words = " ".join(message.split())
    if "nrecognized arguments: " in words:
        flag = words.partition("nrecognized arguments: ")[2].split()[0].split("=")[0]
        return f"no option {flag} of `{name}`" + near(flag.lstrip("-"), known)
    return f"{name}: {words}"
