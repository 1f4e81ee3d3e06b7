"""Who may write to a run's folder: one process at a time, and nobody over a run that is there without a word."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dfl.errors import UserError
from dfl.runs import files
from dfl.runs.claim import claim, clear

HOLD = """
import os, sys, time
from pathlib import Path
from dfl.runs.claim import claim
with claim(Path(sys.argv[1]), True, False):
    if len(sys.argv) > 2:
        begun, begins = os.pipe()
        if os.fork() == 0:  # a loader process
            os.write(begins, b".")
            sys.stdin.read()
            os._exit(0)
        os.read(begun, 1)
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a process that holds a folder until its input ends."""
    made = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "held\n"
    return made


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)


def test_nothing_is_left_of_a_run_that_wrote_nothing(tmp_path: Path) -> None:
    with claim(tmp_path / "checkpoints" / "a", False, False) as note:
        assert note is None
        assert json.loads((tmp_path / "checkpoints" / "a" / ".lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "checkpoints").exists()
    with claim(tmp_path / "a", False, False):
        (tmp_path / "a" / "last.ckpt").touch()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt", "last-previous.ckpt", "epoch=3.ckpt"])
def test_a_run_that_is_there_is_not_written_over(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / name).write_text("kept")
    (tmp_path / "one-2").mkdir()
    says = rf"one holds a run already \({name}, written 20.*--overwrite.* --name one-3$"
    with pytest.raises(UserError, match=says), claim(folder, goes_on=False, overwrite=False):
        pass
    for goes_on, overwrite in ((True, False), (False, True)):
        with claim(folder, goes_on, overwrite):
            pass
    assert (folder / name).read_text() == "kept"
    assert [p.name for p in folder.iterdir()] == [name]


def test_to_replace_a_run_removes_its_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    for name in ("best.ckpt", "best-v1.ckpt", "last.ckpt", "last-previous.ckpt", "teacher.ckpt", "matrix.json"):
        (tmp_path / name).touch()
    clear(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"teacher.ckpt", "matrix.json"}


def test_a_second_process_is_told_who_is_there_and_goes_on_after_its_end(tmp_path: Path) -> None:
    first = hold(tmp_path)
    says = rf"written by process {first.pid} on {socket.gethostname()}, since 20.*--name"
    with pytest.raises(UserError, match=says), claim(tmp_path, True, False):
        pass
    with pytest.raises(UserError, match="is being written by"), claim(tmp_path, False, True):
        pass
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == first.pid
    end(first)
    with claim(tmp_path, True, False) as note:
        assert note is None


def test_a_killed_process_holds_nothing_though_its_loader_lives(tmp_path: Path) -> None:
    first = hold(tmp_path, "with a child")
    os.kill(first.pid, signal.SIGKILL)
    first.wait(timeout=60)
    assert (tmp_path / ".lock").exists()
    with claim(tmp_path, True, False) as note:
        assert note is None
    end(first)  # the child's input ends


def test_another_machine_that_did_not_end_in_order_is_named(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text(json.dumps({"pid": 7, "host": "node12", "since": "2026-01-01 10:00:00"}))
    with claim(tmp_path, True, False) as note:
        assert note is not None
        assert "process 7 on node12 began to write" in note


def test_where_there_are_no_locks_the_file_says_who_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*words: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(files.fcntl, "flock", none)
    first = hold(tmp_path)
    with pytest.raises(UserError, match=f"process {first.pid} on"), claim(tmp_path, True, False):
        pass
    os.kill(first.pid, signal.SIGKILL)
    first.wait(timeout=60)
    with claim(tmp_path, True, False) as note:
        assert note is None
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "x"}', "\0" * 50])
def test_a_lock_file_that_says_nothing_stops_nobody(tmp_path: Path, content: str) -> None:
    (tmp_path / ".lock").write_text(content)
    with claim(tmp_path, True, False) as note:
        assert note is None


def test_a_folder_that_takes_no_file_is_left_to_the_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", fail)
    with claim(tmp_path / "a", False, False) as note:
        assert note is None
