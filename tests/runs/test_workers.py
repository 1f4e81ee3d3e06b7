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


def test_where_no_terminal_shows_the_bar_a_line_tells_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workers, "EVERY", -1.0)
    with Workers(1_200, "pictures", 1) as pool:
        assert [*pool.map(abs, range(1_200))][-1] == 1_199
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pictures: ")]
    assert lines[0] == "pictures: 1 of 1,200"
    assert lines[-1] == "pictures: 1,200 of 1,200"
    with Workers(2, "pictures", 1, progress=False) as pool:
        assert [*pool.map(abs, range(2))] == [0, 1]
    assert "pictures: " not in capsys.readouterr().out
