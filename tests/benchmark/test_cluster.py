"""Runs as jobs, by submitit on this machine: what a job does already is not submitted once more."""

import json
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from dfl.benchmark import spec as specs
from dfl.benchmark import work
from dfl.benchmark.run import DataHashes

pytest.importorskip("submitit")

#: Writes a letter for each start, and waits for the file ``go``; fails if that holds anything.
JOB = """
import pathlib, sys, time
with open("begun", "a") as file:
    file.write("x")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
sys.exit(len(pathlib.Path("go").read_text()))
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> specs.Spec:
    """A spec with one run, which has always something to do."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(work, "POLL", 0.05)
    monkeypatch.setattr(work, "_command", lambda one, typed: [sys.executable, "-c", JOB])
    content = {"runs": {"m": {"checkpoint": "m"}}, "domains": {"d": {"class_path": "Table"}}}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    made = specs.read("s.yaml")
    monkeypatch.setattr(work, "_todo", lambda *_: (list(made.runs), {}))
    return made


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(work, "say", lines.append)
    return lines


def command(spec: specs.Spec) -> dict[str, str]:
    return work._on_cluster(spec, "cluster=local", DataHashes(), [])


def wait(for_what: Any, *commands: "Future[Any]") -> None:
    while not for_what():
        assert not any(one.done() for one in commands), [one.result() for one in commands if one.done()]
        time.sleep(0.05)


def test_a_job_that_runs_is_left_alone_and_waited_for(spec: specs.Spec, said: list[str]) -> None:
    with ThreadPoolExecutor() as pool:
        try:
            first = pool.submit(command, spec)
            wait(Path("begun").exists, first)
            wait(lambda: said, first)
            second = pool.submit(command, spec)
            wait(lambda: len(said) > 1, first, second)
            number = json.loads((spec.output / "slurm/m-s0.json").read_text())["job"]
            assert said[0].startswith(f"m/0: job {number}, ")
            assert said[1].startswith(f"m/0: job {number} does it already")
        finally:
            Path("go").touch()
        assert (first.result(), second.result()) == ({}, {})
    assert Path("begun").read_text() == "x"
    assert command(spec) == {}  # it has ended, and something is left to do
    assert Path("begun").read_text() == "xx"


def test_a_job_that_ended_without_a_word_is_submitted_again(spec: specs.Spec, said: list[str]) -> None:
    file = spec.output / "slurm/m-s0.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"cluster": "local", "job": str(2**22 + 1)}))  # no process has such a number
    Path("go").write_text("fails")
    (why,) = command(spec).values()
    assert "_0_log.err" in why
    assert Path("begun").read_text() == "x"
