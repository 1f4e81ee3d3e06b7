"""Processes: results come in order, a killed one is one line, Ctrl-C is for the first process."""

import signal
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
from pickled import Pool

from dfl.errors import UserError
from dfl.runs import workers
from dfl.runs.workers import Workers


def _results(n: int, function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    with Workers(n, "numbers", 2, progress=False) as pool:
        return list(pool.map(function, items))


def test_processes_do_not_hear_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    Pool.blocked.clear()
    assert _results(64, partial(max, 0), range(64)) == list(range(64))
    assert Pool.blocked == [{signal.SIGINT}] * 2
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_results_of_processes_are_in_order_and_a_killed_one_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "TASK", 3)
    assert _results(100, str, iter(range(100))) == [str(i) for i in range(100)]
    with pytest.raises(UserError, match="a process of 'numbers' was killed .*: run the same command again"):
        _results(100, signal.raise_signal, [signal.SIGKILL])
