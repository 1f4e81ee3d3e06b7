"""One process writes to a run's folder at a time, and no run is written over another one without a word.

While it trains, rank zero holds a lock on ``.lock`` in the folder; the file says who that is. The kernel frees the lock
when the process ends, SIGKILL included, so a killed run goes on at once. Loader processes do not inherit it. Where a
file system has no locks (some mounted drives), what the file says decides: a process that lives on this machine
refuses, one on another machine cannot be seen and is named.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dfl.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


@contextmanager
def claim(folder: Path, goes_on: bool, overwrite: bool) -> Iterator[str | None]:
    """Hold a run's folder, made if it is not there; give a line to say, if there is one.

    Args:
        folder: Where the run writes its checkpoints.
        goes_on: Whether it resumes the run that lies there.
        overwrite: Whether it may take the place of one that does.

    Raises:
        UserError: If another process holds it, or it holds another run.
    """
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _locked(folder / LOCK)
    except OSError:  # nothing can be written there, as the first checkpoint will say
        handle = None
    try:
        if not goes_on and not overwrite:
            _refuse_another(folder)
        yield None if handle is None else _before(handle, folder)
    finally:
        if handle is not None:
            with suppress(OSError):
                (folder / LOCK).unlink()
            os.close(handle)
        for place in missing:  # a run that wrote nothing leaves nothing
            with suppress(OSError):
                place.rmdir()


def clear(*folders: Path) -> None:
    """Remove the best and the last checkpoints of a run that is begun anew."""
    for folder in folders:
        for file in _checkpoints(folder, "best*.ckpt", "last*.ckpt"):
            file.unlink(missing_ok=True)


def _checkpoints(folder: Path, *patterns: str) -> list[Path]:
    return sorted({file for pattern in patterns for file in folder.glob(pattern)})


def _refuse_another(folder: Path) -> None:
    if not (there := _checkpoints(folder, "*.ckpt")):
        return
    newest = datetime.fromtimestamp(max(file.stat().st_mtime for file in there))
    number = 2
    while folder.with_name(f"{folder.name}-{number}").exists():
        number += 1
    raise UserError(
        f"{folder} holds a run already ({', '.join(file.name for file in there[:4])}, written "
        f"{newest:%Y-%m-%d %H:%M}): go on with it by --ckpt_path last, replace it by --overwrite, or give this one "
        f"another name, such as --name {folder.name}-{number}"
    )


def _locked(file: Path) -> int:
    """Return the descriptor of a file that this process has locked.

    Raises:
        UserError: If another process has.
        OSError: If the file cannot be made.
    """
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        try:
            # of the process, not of the descriptor as flock's: orphaned loader processes would keep that
            if fcntl is not None:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            _raise_held(handle, file)
        except OSError:  # no locks on this file system
            if _lives_here(_owner(handle)):
                _raise_held(handle, file)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), os.stat(file)):  # not the one that its owner has just removed
                return handle
        os.close(handle)


def _raise_held(handle: int, file: Path) -> None:
    owner = _owner(handle)
    os.close(handle)
    who = f"process {owner['pid']} on {owner['host']}, since {owner['since']}" if owner else "another process"
    raise UserError(
        f"{file.parent} is being written by {who}: wait for it or stop it, or give this run another --name; if there "
        f"is no such process, remove {file}"
    )


def _owner(handle: int) -> dict[str, Any]:
    """Return what the file says of who holds it; nothing if it does not say."""
    with suppress(OSError, ValueError):
        found = json.loads(os.pread(handle, 1000, 0))
        if isinstance(found, dict) and {"pid", "host", "since"} <= found.keys():
            return found
    return {}


def _lives_here(owner: dict[str, Any]) -> bool:
    if not owner or owner["host"] != socket.gethostname() or owner["pid"] == os.getpid():
        return False
    try:
        os.kill(int(owner["pid"]), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        pass
    return True


def _before(handle: int, folder: Path) -> str | None:
    """Write who holds the folder; return a line on who held it before, if that was on another machine."""
    owner, host = _owner(handle), socket.gethostname()
    me = {"pid": os.getpid(), "host": host, "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with suppress(OSError):  # a full disk
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(me).encode(), 0)
    if not owner or owner["host"] == host:
        return None
    return (
        f"note: process {owner['pid']} on {owner['host']} began to write to {folder} at {owner['since']} and did not "
        "end in order; stop it if it still runs"
    )
