"""Processes: results come in order, a killed one is one line, Ctrl-C is for the first process."""

import pickle
import signal
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar

import pytest

from dfl.errors import UserError
from dfl.runs import workers
from dfl.runs.workers import Workers


class Pool:
    """Runs in this process what a process would run, from what it would be sent."""

    blocked: ClassVar[list[Any]] = []

    def __init__(self, *args: Any) -> None:
        pass

    def submit(self, *call: Any) -> Future[Any]:
        self.blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        function, *args = pickle.loads(pickle.dumps(call))
        done: Future[Any] = Future()
        done.set_result(function(*args))
        return done

    def shutdown(self, **words: Any) -> None:
        pass


def test_processes_do_not_hear_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    Pool.blocked.clear()
    with Workers(64, "numbers", 2, progress=False) as pool:
        assert list(pool.map(partial(max, 0), range(64))) == list(range(64))
    assert Pool.blocked == [{signal.SIGINT}] * 2
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def _results(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with Workers(200, "numbers", 2, progress=False) as pool:
        return list(pool.map(function, items))


def test_results_of_processes_are_in_order_and_a_killed_one_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "TASK", 3)
    assert _results(str, iter(range(100))) == [str(i) for i in range(100)]
    with pytest.raises(UserError, match="a process of 'numbers' was killed .*: run the same command again"):
        _results(signal.raise_signal, [signal.SIGKILL])
