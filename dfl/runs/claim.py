"""One process writes to a run's folder at a time, and no run is written over another one without a word.

While it trains, rank zero holds a lock on ``.lock`` in the folder (`dfl.runs.files`); the file says who that is. The
lock ends with the process, SIGKILL included, so a killed run goes on at once. Where a file system has no locks (some
mounted drives), what the file says decides: a process that lives on this machine refuses, one on another machine cannot
be seen and is named.
"""

import itertools
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from dfl.errors import UserError
from dfl.orphans import alive
from dfl.runs import files

LOCK = ".lock"


class Held(UserError):
    """Another process writes to the run's folder."""


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
    missing, lock = [place for place in (folder, *folder.parents) if not place.exists()], folder / LOCK
    with ExitStack() as at_end:
        at_end.callback(_remove_empty, missing)  # a run that wrote nothing leaves nothing
        handle = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle, kernel_locks = at_end.enter_context(files.locked(lock, wait=False))
        except BlockingIOError as error:
            raise _held(lock) from error
        except OSError:  # nothing can be written there, as the first checkpoint will say
            pass
        if handle is not None:
            if not kernel_locks and _lives_here(_owner(lock)):
                raise _held(lock)
            at_end.callback(files.remove, lock)  # while it is still held
        if not goes_on and not overwrite:
            _refuse_another(folder)
        yield None if handle is None else _note_owner(handle, lock)


def clear(*folders: Path) -> None:
    """Remove the best and the last checkpoints of a run that is begun anew."""
    for folder in folders:
        for file in [*folder.glob("best*.ckpt"), *folder.glob("last*.ckpt")]:
            file.unlink(missing_ok=True)


def _refuse_another(folder: Path) -> None:
    if not (there := sorted(folder.glob("*.ckpt"))):
        return
    newest = datetime.fromtimestamp(max(file.stat().st_mtime for file in there))
    number = next(n for n in itertools.count(2) if not folder.with_name(f"{folder.name}-{n}").exists())
    raise UserError(
        f"{folder} holds a run already ({', '.join(file.name for file in there[:4])}, written "
        f"{newest:%Y-%m-%d %H:%M}): go on with it by --ckpt_path last, replace it by --overwrite, or give this one "
        f"another name, such as --name {folder.name}-{number}"
    )


def _held(lock: Path) -> Held:
    owner = _owner(lock)
    who = f"process {owner['pid']} on {owner['host']}, since {owner['since']}" if owner else "another process"
    return Held(
        f"{lock.parent} is being written by {who}: wait for it or stop it, or give this run another --name; if there "
        f"is no such process, remove {lock}"
    )


def _owner(lock: Path) -> dict[str, Any]:
    """Return what the file says of who holds it; nothing if it does not say."""
    with suppress(OSError, ValueError):
        content = json.loads(lock.read_bytes()) if lock.is_file() else None  # a pipe would be waited for
        if isinstance(content, dict) and {"pid", "host", "since"} <= content.keys():
            return content
    return {}


def _lives_here(owner: dict[str, Any]) -> bool:
    pid = owner.get("pid")
    return isinstance(pid, int) and pid != os.getpid() and owner["host"] == socket.gethostname() and alive(pid)


def _note_owner(handle: int, lock: Path) -> str | None:
    """Write who holds the folder; return a line on who held it before, if that was on another machine."""
    owner, host = _owner(lock), socket.gethostname()
    me = {"pid": os.getpid(), "host": host, "since": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
    with suppress(OSError):  # a full disk
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(me).encode(), 0)
    if not owner or owner["host"] == host:
        return None
    return (
        f"note: process {owner['pid']} on {owner['host']} began to write to {lock.parent} at {owner['since']} and did "
        "not end in order; stop it if it still runs"
    )


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
