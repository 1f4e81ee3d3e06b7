"""The one way to write a file: whole or not at all, and never two processes at once.

A file is written beside its place, in ``.NAME.tmp``, forced to the disk and renamed. A kill at any instant leaves the
old file or the new one, and what the killed process left is overwritten by the next. What takes long to make is
`claimed` for that time, so that a second process that would make the same is told at once. Both rest on ``flock``,
which the kernel takes back from a process however it ends. Where a file system has no such locks (some network drives),
files are still whole, but a second process is not noticed.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dfl.errors import UserError, refused

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


#: Locks that this process holds; a process that is forked from it, such as a loader's, lets go of them.
_HELD: set[int] = set()


def _forked() -> None:
    while _HELD:
        os.close(_HELD.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@contextmanager
def errors_in_one_line(place: Path) -> Iterator[None]:
    """Turn an error of the file system inside the block into one line; it names the place where the error names none.

    Raises:
        UserError: For it.
    """
    try:
        yield
    except OSError as error:
        name = os.path.basename(str(error.filename or ""))
        if name.startswith(".") and name.endswith((".tmp", ".lock")):  # is not what the user knows
            error.filename = None
        raise refused(error, place, "write") from error


@contextmanager
def whole(path: Path, sync: bool = True, before: Path | None = None) -> Iterator[Path]:
    """Yield where to write a file; it takes its name at the end of the block, and is gone after an error in it.

    A second process waits. Folders above the file are made.

    Args:
        path: The file.
        sync: Force the content to the disk first, so that a power cut cannot leave an empty file under the name.
        before: Name that the file which is there now takes; for an instant it is the only one.

    Raises:
        UserError: If the file system does not take it, or something that is no file has the name.
    """
    path = path.expanduser()
    partial = path.with_name(f".{_named(path)}.tmp")
    with errors_in_one_line(path):
        may_be_file(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(partial, wait=True) as (handle, _):
            try:
                yield partial
                if sync:
                    os.fsync(handle)
                if before is not None and path.exists():
                    os.replace(path, before)
                os.replace(partial, path)
            except BaseException:
                remove(partial)
                raise
        if sync:
            sync_folder(path.parent)


def may_be_file(path: Path) -> None:
    """Say so at once if something that is no file has the name of a file that is to be written.

    Raises:
        UserError: If it has.
    """
    if path.exists() and not path.is_file():
        raise UserError(f"cannot write {path}: it is there and is no file; give another name")


def write(path: Path, content: str | bytes, sync: bool = True) -> None:
    """Write bytes or a text whole or not at all; errors are those of `whole`.

    Text is UTF-8; what a file name that is none brings into it is written as ``\\udcff``, which JSON reads back.
    """
    with whole(path, sync) as partial:
        partial.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "backslashreplace"))


@contextmanager
def claimed(place: Path, inside: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold a file or folder that is being made; errors of the file system inside it are one line.

    Args:
        place: What appears under its name when it is whole; folders above it are made.
        inside: It is a folder that files are written into, such as the working directory; it is made.
        wait: Wait for another process that holds it.

    Raises:
        UserError: If another process holds it, or the file system refuses something.
    """
    place = Path(os.path.abspath(place.expanduser()))
    lock = place / ".lock" if inside else place.with_name(f".{_named(place)}.lock")
    with errors_in_one_line(place), ExitStack() as at_end:
        lock.parent.mkdir(parents=True, exist_ok=True)
        try:
            at_end.enter_context(locked(lock, wait=wait))
        except BlockingIOError as error:
            raise UserError(
                f"another process is writing {place}: wait until it is done, or give another name"
            ) from error
        at_end.callback(remove, lock)  # while it is still held
        yield


def sync_folder(folder: Path) -> None:
    """Force a rename to the disk; not every file system has folders that can be opened for it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path, wait: bool) -> Iterator[tuple[int, bool]]:
    """Hold the lock of a file, which is made; yield its handle, and whether the file system has locks.

    Raises:
        BlockingIOError: If another process has it, and is not waited for.
        OSError: If the file cannot be made.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        _HELD.add(handle)
        try:
            sure = _lock(handle, wait)
            # whoever had it before may have renamed or removed the file since it was opened here
            if _is(path, handle):
                yield handle, sure
                return
        finally:
            if handle in _HELD:  # not in a forked process
                _HELD.discard(handle)
                os.close(handle)


def _lock(handle: int, wait: bool) -> bool:
    """Lock a file; return whether the file system can."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:
        return False
    return True


def remove(path: Path) -> None:
    """Remove a file, if it is there and its folder lets it go."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Return the hash of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _named(path: Path) -> str:
    if not path.name or path.name == "..":
        raise UserError(f"cannot write {str(path) or 'to an empty name'}: it names no file or folder of its own")
    return path.name
