"""One function over many items, in processes, answers in order, with a progress bar."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dfl.errors import UserError
from dfl.runs.files import claimed

#: Items that one process is handed at once.
TASK = 32


class Workers:
    """Apply functions to items, in order.

    Args:
        n: Items in all, for the bar and for how many processes are worth their start.
        what: Word before the bar.
        count: Processes; by default one for each core. One works in this process.
        progress: Show the bar.
    """

    def __init__(self, n: int, what: str, count: int | None = None, progress: bool = True) -> None:
        self.count = min(count or os.cpu_count() or 1, max(1, -(-n // TASK)))
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            disable=not progress,
        )
        self._task = self._bar.add_task(what, total=n)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self.count > 1:  # spawn: this process may hold torch, whose threads do not survive a fork
            self._pool = ProcessPoolExecutor(self.count, get_context("spawn"))
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def skip(self, n: int) -> None:
        """Move the bar over items that were done before."""
        self._bar.advance(self._task, n)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield ``function(item)`` of each item, in their order; a few tasks ahead of who asks."""
        for answers in self._in_order(function, _pieces(items)):
            for answer in answers:
                self._bar.advance(self._task)
                yield answer

    def _in_order(self, function: Callable[[Any], Any], tasks: Iterable[list[Any]]) -> Iterator[list[Any]]:
        if self._pool is None:
            for task in tasks:
                yield [function(item) for item in task]
            return
        waiting: deque[Future[list[Any]]] = deque()
        for task in tasks:
            with deaf():  # submitting starts the processes
                waiting.append(self._pool.submit(_apply, function, task))
            if len(waiting) > 4 * self.count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextmanager
def deaf() -> Iterator[None]:
    """Let processes that are started here not hear Ctrl-C, which goes to all: the first process ends them in order."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def making(what: str, place: Path, inside: bool = False) -> Iterator[None]:
    """Hold what a verb makes, as `claimed` does; a full disk, a forbidden folder or a killed process is one line.

    Raises:
        UserError: For those, and if another process is making the same.
    """
    try:
        with claimed(place, inside):
            yield
    except BrokenProcessPool as error:
        raise UserError(
            f"a process of {what} was killed (out of memory?): run the same command again, it goes on"
        ) from error


def _apply(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [function(item) for item in items]


def _pieces(items: Iterable[Any]) -> Iterator[list[Any]]:
    piece: list[Any] = []
    for item in items:
        piece.append(item)
        if len(piece) == TASK:
            yield piece
            piece = []
    if piece:
        yield piece
