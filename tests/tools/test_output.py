"""Verbs that write: a full disk, a second process, an odd place, Ctrl-C."""

import re
import signal
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dfl.__main__ import main
from dfl.data import workers as work
from dfl.runs import files
from dfl.runs.files import claimed

QUIET = ("--workers=1", "--progress=false")
VERBS: list[tuple[str, ...]] = [
    ("data", "scan", "FACES", "--output=out.parquet", *QUIET),
    ("data", "check", "FACES", "--output=out", *QUIET),
    ("data", "split", "FACES", "--output=out.parquet"),
    ("data", "equalize", "FACES", "--output=out", "--size=32", *QUIET),
    ("data", "pack", "FACES", "--output=out", *QUIET),
    ("data", "faces", "FACES", "--output=out.parquet", "--boxes=boxes.csv", "--max_missing=1", *QUIET),
    ("data", "templates", "masks.csv", "--output=out.npz", "--components=1", "--side=2", *QUIET),
    ("forge", "FACES", "--output=out", *QUIET),
    ("toy", "--root=out", "--n=80", "--size=32"),
    ("audit", "scores.csv", "--output=out", "--resamples=100"),
]
each_verb = pytest.mark.parametrize("verb", VERBS, ids=lambda verb: " ".join(verb[:2]))


def fails(verb: tuple[str, ...], faces: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a verb, which must end with one line; return it."""
    Path("boxes.csv").write_text(f"path,x,y,w,h\n{faces}/real/00.png,1,2,20,20\n")
    Path("masks.csv").write_text("path,label,mask_rule\n" + "".join(f"{faces}/fake/0{i}.png,1,all\n" for i in range(3)))
    lines = [f"{label / 2 + i / 100},{label},{group}\n" for i in range(20) for label in (0, 1) for group in "ab"]
    Path("scores.csv").write_text("score,label,group\n" + "".join(lines))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main([str(faces) if word == "FACES" else word for word in verb])
    assert stop.value.code == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl: "))
    return line


def place(verb: tuple[str, ...]) -> Path:
    return Path(next(word.partition("=")[2] for word in verb if word.startswith(("--output=", "--root="))))


@each_verb
def test_a_second_process_with_the_same_output_is_told(
    verb: tuple[str, ...], faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside = verb[:2] == ("data", "check") or verb[0] == "audit"
    with claimed(place(verb), inside):
        assert f"another process is writing {place(verb).absolute()}" in fails(verb, faces, capsys)
    assert not any("out" in path.name for path in Path().rglob("*") if path.is_file() or not inside)


@each_verb
def test_an_output_below_a_file_is_one_line(
    verb: tuple[str, ...], faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("file").touch()
    inside = tuple(word.replace("=out", "=file/out") for word in verb)
    assert re.search("file: it is there, and is no folder|file/out: Not a directory", fails(inside, faces, capsys))
    assert Path("file").read_bytes() == b""


@each_verb
def test_a_full_disk_leaves_no_output(
    verb: tuple[str, ...], faces: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(old: object, new: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    monkeypatch.setattr(files.os, "cpu_count", lambda: 1)
    assert "No space left on device" in fails(verb, faces, capsys)
    assert [path for path in Path().rglob("*") if path.is_file() and "out" in str(path)] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("data", "split", "FACES", "--output=out"), "a name that ends in .parquet"),
        (("data", "faces", "FACES", "--output=", "--boxes=boxes.csv"), "a name that ends in .parquet"),
        (("data", "faces", "FACES", "--output=out.parquet", "--boxes="), "no boxes in"),
        (("data", "pack", "FACES", "--output=/"), "it names no file or folder of its own"),
        (("data", "pack", "FACES", "--output="), "holds something else"),
        (("data", "scan", "", "--output=out.parquet"), "a source is an empty word"),
        (("data", "split", "FACES", "--output=out.parquet", "--seed=-1"), "--seed -1 must not be negative"),
        (("audit", "scores.csv", "--output=out", "--seed=-7"), "--seed -7 must not be negative"),
        (("toy", "--root=out", "--seed=-1"), "--seed -1 must not be negative"),
        (("toy", "--root="), "is not empty and is no toy set"),
        (("forge", "FACES", "--output=boxes.csv"), "boxes.csv is not empty and is no set of dfl forge"),
        (("data", "equalize", "FACES", "--output=boxes.csv"), "boxes.csv holds something else"),
        (("data", "check", "FACES", "--output=boxes.csv"), "boxes.csv: it is there, and is no folder"),
        (("audit", "scores.csv", "--output=boxes.csv"), "boxes.csv: it is there, and is no folder"),
    ],
)
def test_an_odd_output_is_one_line(
    words: tuple[str, ...], says: str, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in fails(words, faces, capsys)
    assert {path.name for path in Path().iterdir()} == {"boxes.csv", "masks.csv", "scores.csv"}


def test_processes_do_not_hear_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked: list[Any] = []

    class Pool:
        def __init__(self, *args: Any) -> None:
            pass

        def submit(self, function: Any, *args: Any) -> Future[Any]:
            blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
            done: Future[Any] = Future()
            done.set_result(function(*args))
            return done

        def shutdown(self, **words: Any) -> None:
            pass

    monkeypatch.setattr(work, "ProcessPoolExecutor", Pool)
    with work.Workers(64, "numbers", 2, progress=False) as pool:
        assert list(pool.map(partial(max, 0), range(64))) == list(range(64))
    assert blocked == [{signal.SIGINT}] * 2
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
