"""The one error that speaks to users: the command line prints it as a single line and exits with its code."""

import errno
import os
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TypeVar

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

#: Exit codes: "temporary failure, try again" of sysexits.h, and what shells give for Ctrl-C.
PREEMPTED, INTERRUPTED = 75, 130


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong, where it looked, what to change."""

    #: What the command line exits with.
    code = 2


class NothingDone(UserError):
    """The command made sense, and there was nothing to do: no image was scored."""

    code = 1


def visible(text: str) -> str:
    """Return text with its control characters written out: a name must not move the cursor or end the line."""
    return "".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it came of, and so on."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def behind(error: BaseException, kind: type[E]) -> E | None:
    """Return the error of a kind that led to an error, if one did."""
    return next((one for one in chain(error) if isinstance(one, kind)), None)


def near(word: str, names: list[str], cutoff: float = 0.6, listed: list[str] | None = None) -> str:
    """Return `; did you mean 'x'?`, or the whole list, or `listed`, where nothing comes near."""
    close = get_close_matches(word, names, n=1, cutoff=cutoff)
    if close:
        return f"; did you mean {close[0]!r}?"
    listed = sorted(names) if listed is None else listed
    return f"; there are {', '.join(listed)}" if listed else ""


def subclasses(cls: type[T]) -> list[type[T]]:
    """Return all that is derived from a class and imported, what names can mean; parents before children."""
    direct: list[type[T]] = type.__subclasses__(cls)
    return [cls for sub in direct for cls in (sub, *subclasses(sub))]


#: Errors of the system that say enough without the name of a file: no room, no right to write, too many open files.
FULL = frozenset(
    getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EMFILE", "ENFILE", "ENOMEM")
)


def refused(error: OSError, place: object = "", doing: str = "read or write") -> UserError:
    """Return the one line for what the file system refused.

    Args:
        error: The error; the message names its file, if it has one.
        place: What was read or written, where the error names no file, as those of a full disk do not.
        doing: What was done to it.
    """
    named = error.filename if isinstance(error.filename, (str, bytes)) else ""
    where = os.fsdecode(named) or str(place)
    plain = error.errno is not None and (named or error.errno in FULL)
    reason = os.strerror(error.errno or 0) if plain else error.strerror or str(error)
    if error.errno == errno.EEXIST:
        reason = "it is there, and is no folder"
    return UserError(f"cannot {doing}{where and f' {where}'}: {reason}")


def of_files(error: OSError) -> bool:
    """Whether an error is about a file or a full disk, and not about a network or another process."""
    # Python finds no folder for temporary files where all disks are full
    return error.errno in FULL or isinstance(error.filename, (str, bytes)) or "temporary directory" in str(error)
