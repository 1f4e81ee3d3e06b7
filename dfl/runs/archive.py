"""A torch file before it is opened: a ZIP archive of a pickle and of tensors, and what it may make of its size.

What torch writes is stored as it is. So a file that is packed, or that asks for more than it holds, is a stranger's; it
would take memory or time before anything in it could be looked at.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from dfl.errors import UserError, first_line
from dfl.runs.plain import untrusted

#: How deep tuples may lie in each other: Python hashes them without looking at how much of the stack is left.
DEEPEST = 100
#: What to do with a program or an object that holds weights.
AGAIN = "save its weights alone where you trust it: torch.save(model.state_dict(), 'weights.pth')"


@contextmanager
def distrusted(file: str | Path) -> Iterator[None]:
    """Turn whatever the contents of a file raise inside the block into one line.

    Raises:
        UserError: For it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise untrusted(file, f"{type(error).__name__}: {ascii(first_line(error))[1:-1][:160]}") from error


def damaged(file: Path) -> str | None:
    """Return the part of an archive whose checksum is wrong, or why it cannot be read; None if all are right."""
    try:
        seen = file.stat()
        return _damaged(file, seen.st_mtime_ns, seen.st_size)
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError) as error:
        return str(error)


@lru_cache(maxsize=64)
def _damaged(file: Path, changed: int, size: int) -> str | None:
    """The same of a file as it was at one time: it is read once a process."""
    with zipfile.ZipFile(file) as archive:
        return archive.testzip()


def wrong(file: Path) -> str | None:
    """Return what is wrong with a file, as the end of a sentence; None for nothing, and for what is no archive."""
    seen = file.stat()
    return _wrong(file, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=64)
def _wrong(file: Path, changed: int, size: int) -> str | None:
    """The same of a file as it was at one time."""
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            if any(part.filename.split("/")[1:] == ["constants.pkl"] for part in parts):
                return f"is a TorchScript program, which is not run here; {AGAIN}"
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                return "is packed, as torch never writes it"
            if sum(part.file_size for part in parts) > size:
                return "claims more bytes than it has"
            if (part := _damaged(file, changed, size)) is not None:
                return f"is damaged: {ascii(part)[1:-1]} in it does not have its checksum; copy the file again"
            pickles = [archive.read(one) for one in parts if one.filename.endswith("data.pkl")]
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError):  # torch says what it is
        return None
    return next(filter(None, map(_of_pickle, pickles)), None)


def _of_pickle(content: bytes) -> str | None:
    """Return what is wrong with the pickle, whose operations are followed and not carried out."""
    depths: list[int] = []  # of tuples in what lies on the stack
    marks: list[int] = []  # where on it there are marks, which have a place too
    memo: dict[int, int] = {}
    try:
        for operation, argument, _ in pickletools.genops(content):
            name, before = operation.name, operation.stack_before
            if name == "GLOBAL" and argument == "builtins bytearray":  # of a length that the file need not hold
                return "asks for a bytearray, as no checkpoint does"
            if name.endswith("GET"):
                depths.append(memo[int(argument or 0)])
                continue
            if name.endswith("PUT"):
                memo[int(argument or 0)] = depths[-1]
                continue
            taken = len(before)
            if pickletools.markobject in before:
                taken = len(depths) - marks.pop() + before.index(pickletools.markobject)
            inside = depths[len(depths) - taken :]
            del depths[len(depths) - taken :]
            deepest = max(inside, default=0) + name.startswith("TUPLE")
            if deepest > DEEPEST:
                return f"holds tuples more than {DEEPEST} deep"
            if name == "MARK":
                marks.append(len(depths))
            depths += [deepest] * len(operation.stack_after)
    except (ValueError, IndexError, KeyError):  # torch says that it is torn
        pass
    return None
