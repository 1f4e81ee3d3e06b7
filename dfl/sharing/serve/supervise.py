"""A worker that is killed has a successor: its parent holds what must last, such as the socket, and starts another."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from dfl.errors import UserError
from dfl.orphans import end_with


def supervise(
    work: Callable[..., None], args: tuple[Any, ...], begun: Callable[[], None], method: str = "spawn"
) -> int:
    """Run ``work(*args, ready)`` in a process of its own, and again whenever a signal has ended it.

    Ctrl-C and SIGTERM end both processes; a parent that is killed takes its child with it (on Linux).

    Args:
        work: Calls ``ready()`` once it does what it is for.
        args: Its arguments, which both processes hold.
        begun: Called when it does so for the first time.
        method: How processes start, see `multiprocessing`.

    Returns:
        The exit code of work that ended by itself.

    Raises:
        UserError: What work raised, or that it was killed before it was ready, which would happen again.
    """
    context: Any = multiprocessing.get_context(method)
    signal.signal(signal.SIGTERM, _end)
    while True:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_worker, args=(os.getpid(), work, args, sender))
        process.start()
        try:
            sender.close()
            try:
                said = receiver.recv()
            except EOFError:
                said = "ended"
            if said == "ready":
                begun()
                begun = _again
            process.join()
        finally:  # this process is asked to end, and the worker gets its time to answer what it has begun
            process.terminate()
            process.join()
        if isinstance(said, UserError):
            raise said
        if process.exitcode >= 0:
            return process.exitcode
        how = signal.Signals(-process.exitcode).name
        if said != "ready":
            raise UserError(f"the worker was ended by {how} before it could answer: is there enough memory?")
        print(f"the worker was ended by {how}; another one takes its place", file=sys.stderr, flush=True)


def _worker(parent: int, work: Callable[..., None], args: tuple[Any, ...], sender: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with(parent, signal.SIGTERM)
    try:
        work(*args, lambda: sender.send("ready"))
    except UserError as error:
        sender.send(error)
    except KeyboardInterrupt:  # the parent says it
        sys.exit(1)


def _again() -> None:
    print("serving again", file=sys.stderr, flush=True)


def _end(*_: Any) -> NoReturn:
    raise SystemExit(0)
