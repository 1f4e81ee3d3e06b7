"""One thread for the detector: what many requests ask for at the same time goes through it together."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass
class _Job(Generic[In, Out]):
    row: In
    future: "Future[Out]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)


class Batcher(Generic[In, Out]):
    """Gathers rows of many threads into batches for one function, which one thread calls.

    A batch is what has waited while the one before it was computed; the first row of a batch waits for the window in
    any case. So a lone request loses no more than that, and under load no time is lost at all.

    Args:
        run: From rows to results, in their order.
        size: Rows of a batch, at most.
        window: Seconds that the first row of a batch waits for others.
        watch: Told of each batch how many rows it had, and the seconds that it took.
    """

    def __init__(
        self,
        run: Callable[[Sequence[In]], Sequence[Out]],
        size: int,
        window: float,
        watch: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self._run, self._size, self._window, self._watch = run, size, window, watch
        self._jobs: queue.SimpleQueue[_Job[In, Out] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="detector", daemon=True)
        self._thread.start()

    def submit(self, row: In) -> "Future[Out]":
        """Return the result of a row, to come; it holds the error of a row that has none."""
        job: _Job[In, Out] = _Job(row)
        self._jobs.put(job)
        return job.future

    @property
    def waiting(self) -> int:
        """How many rows are in no batch yet."""
        return self._jobs.qsize()

    @property
    def is_alive(self) -> bool:
        """Whether rows are still answered."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Answer what waits, and end the thread."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch, until = [first], first.arrived + self._window
            goes_on = True
            while goes_on and len(batch) < self._size:
                try:
                    job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
                if job is None:
                    goes_on = False
                else:
                    batch.append(job)
            self._answer([job for job in batch if job.future.set_running_or_notify_cancel()])
            if not goes_on:
                return

    def _answer(self, batch: list[_Job[In, Out]]) -> None:
        """Give each row its result; if the batch fails, each row is tried alone, so that one cannot fail others."""
        if not batch:
            return
        begun = time.perf_counter()
        try:
            results = self._run([job.row for job in batch])
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._answer([job])
            else:
                batch[0].future.set_exception(error)
            return
        self._watch(len(batch), time.perf_counter() - begun)
        for job, result in zip(batch, results, strict=True):
            job.future.set_result(result)
