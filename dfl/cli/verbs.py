"""A verb from a function: its signature and docstring become the options and the help."""

from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from dfl.cli.messages import explain, options
from dfl.errors import UserError


class ParseError(Exception):
    """What a parser says, before `dfl.cli.messages` makes one line of it."""


class Raising(ArgumentParser):
    """A parser that takes no typo for an abbreviation and prints no usage when it fails."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "allow_abbrev": False})

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Raise; inner parsers keep their own way, since they only try which type fits."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise ParseError(message) from ex


def call(
    run: Callable[..., Any],
    words: list[str],
    name: str,
    what: str,
    first: tuple[str, str, str] | None,
    about: str | None = None,
) -> Any:
    """Call a function with the options that were typed; ``-o`` is short for ``--output``.

    Args:
        run: Its parameters are the options.
        words: As typed, after the verb.
        name: The whole verb, such as ``dfl data scan``.
        what: What it does, for the help.
        first: The parameter that stands without a flag, how many words it takes (``+`` or ``1``), and its help;
            None for none.
        about: What the help begins with, where there is more to say.

    Returns:
        What the function returns.

    Raises:
        UserError: For words that make no sense; and the function's own.
    """
    if about and words[:1] in (["-h"], ["--help"]):
        print(about.strip() + "\n")
    parser = Raising(prog=name, description=what)
    if first is not None:
        place, number, help = first
        many: dict[str, Any] = {"nargs": number} if number == "+" else {}
        parser.add_argument(place, help=help, **many)
    parser.add_function_arguments(run, skip={first[0]} if first else None)
    try:
        values = parser.parse_args(["--output" if word == "-o" else word for word in words])
    except (ParseError, ArgumentError) as error:
        raise UserError(explain(str(error), options(parser), words, verb=name)) from error
    arguments = parser.instantiate_classes(values).as_dict()
    if arguments.get("seed", 0) < 0:
        raise UserError(f"--seed {arguments['seed']} must not be negative")
    return run(**arguments)
