"""Tables and lines in the terminal, where a name is text: no part of it is a colour, an emoji or a command."""

import sys

from rich.console import Console


def console(width: int | None = None) -> Console:
    """Return a console that prints text as it is.

    Args:
        width: In columns, where nothing says how wide it is, as in a log file: numbers must not be cut.
    """
    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False, emoji=False)
