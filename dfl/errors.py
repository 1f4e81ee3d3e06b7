"""The one error that speaks to users: the command line prints it as a single line and exits with its code."""

from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where it looked, what to change."""

    #: What the command line exits with.
    code = 2


class NothingDone(UserError):
    """The command made sense, and there was nothing that it could be done to: no image was scored."""

    code = 1


def visible(text: str) -> str:
    """Return text with its control characters written out: a name must not move the cursor or end the line."""
    return "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in text)


def near(word: str, known: list[str]) -> str:
    """Return `; did you mean 'x'?`, or the whole list where nothing comes near."""
    close = get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(known))}" if known else ""


def subclasses(cls: type[T]) -> list[type[T]]:
    """Return all that is derived from a class and imported, what names can mean; parents before children."""
    direct: list[type[T]] = type.__subclasses__(cls)
    return [found for sub in direct for found in (sub, *subclasses(sub))]
