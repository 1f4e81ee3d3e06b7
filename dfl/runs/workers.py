"""One function over many items in processes: results in the order of the items, under a progress bar."""

import math
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dfl.errors import UserError

#: Items that a process takes at once.
TASK = 32
#: Seconds between lines where no terminal shows the bar, such as in the log of a cluster.
EVERY = 30.0


class Workers:
    """Apply functions to items, in order.

    Args:
        n: Items in all, for the bar and for how many processes are worth their start.
        what: Word before the bar.
        count: Processes; by default one for each core. A single one is this process.
        progress: Show the bar.
    """

    def __init__(self, n: int, what: str, count: int | None = None, progress: bool = True) -> None:
        self.what = what
        self.count = min(count or os.cpu_count() or 1, max(1, -(-n // TASK)))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, disable=not progress)
        self._task = self._bar.add_task(what, total=n)
        self._told = time.monotonic() if progress and not self._bar.console.is_terminal else math.inf
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        if self.count > 1:  # spawn: this process may have loaded torch, whose threads do not survive a fork
            self._pool = ProcessPoolExecutor(self.count, get_context("spawn"))
        self._bar.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._bar.stop()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                f"a process of {self.what!r} was killed (out of memory?): run the same command again"
            ) from error

    def completed(self, n: int) -> None:
        """Move the bar to n items: an earlier run finished some."""
        self._bar.update(self._task, completed=n)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Yield ``function(item)`` of each item, in their order; processes work a few tasks ahead."""
        for result in map(function, items) if self._pool is None else self._ahead(self._pool, function, iter(items)):
            self._bar.advance(self._task)
            if time.monotonic() - self._told > EVERY:
                self._told, task = time.monotonic(), self._bar.tasks[0]
                print(f"{self.what}: {task.completed:,.0f} of {task.total:,.0f}", flush=True)
            yield result

    def _ahead(self, pool: ProcessPoolExecutor, function: Callable[[Any], Any], items: Iterator[Any]) -> Iterator[Any]:
        pending: deque[Future[list[Any]]] = deque()
        while task := list(islice(items, TASK)):
            with _ctrl_c_blocked():  # submitting starts the processes
                pending.append(pool.submit(_apply, function, task))
            if len(pending) > 4 * self.count:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Processes started here ignore Ctrl-C, which the terminal sends to all: the first process ends them in order."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _apply(function: Callable[[Any], Any], items: list[Any]) -> list[Any]:
    return [function(item) for item in items]
