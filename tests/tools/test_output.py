"""Verbs that write: a full disk, a second process, an odd place, a kill, any number of processes."""

import functools
import os
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import captioners
import pytest
from forking import exit_code, killed_at
from pickled import Pool

from dfl.__main__ import main
from dfl.runs import files, workers
from dfl.runs.files import claimed

caption, equalize, pack, scan = (import_module(f"dfl.tools.{name}") for name in ("caption", "equalize", "pack", "scan"))
forge, toy = import_module("dfl.tools.forge.make"), import_module("dfl.data.toy.make")
ONE: dict[str, Any] = {"workers": 1, "progress": False}
QUIET = ("--workers=1", "--progress=false")
FAST: dict[str, Any] = {"batch": 5, "beams": 1, "shortest": 1, "longest": 3, "device": "cpu"}
WORDS = [f"--{name}={value}" for name, value in FAST.items()]
VERBS: list[tuple[str, ...]] = [
    ("data", "scan", "FACES", "--output=out.parquet", *QUIET),
    ("data", "check", "FACES", "--output=out", *QUIET),
    ("data", "caption", "FACES", "--output=out.parquet", "--model=CAPTIONER", *QUIET, *WORDS),
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


def writer(faces: str) -> str:
    return str(captioners.captioner(Path(faces).parent))


def inputs(faces: Path) -> None:
    Path("boxes.csv").write_text(f"path,x,y,w,h\n{faces}/real/00.png,1,2,20,20\n")
    Path("masks.csv").write_text("path,label,mask_rule\n" + "".join(f"{faces}/fake/0{i}.png,1,all\n" for i in range(3)))
    lines = [f"{label / 2 + i / 100},{label},{group}\n" for i in range(20) for label in (0, 1) for group in "ab"]
    Path("scores.csv").write_text("score,label,group\n" + "".join(lines))


def filled(verb: tuple[str, ...], faces: Path) -> list[str]:
    """Return the words of a verb with the names of folders."""
    inputs(faces)
    names = {"FACES": str(faces)}
    if any("CAPTIONER" in word for word in verb):
        names["CAPTIONER"] = writer(str(faces))
    return [functools.reduce(lambda text, name: text.replace(name, names[name]), names, word) for word in verb]


def content(folder: str) -> dict[str, bytes]:
    files = [Path(folder)] if Path(folder).is_file() else sorted(Path(folder).rglob("*"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


def fails(verb: tuple[str, ...], faces: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a verb, which must end with one line; return it."""
    words = filled(verb, faces)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
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
    ("words", "message"),
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
        (("toy", "--root="), "holds something else"),
        (("forge", "FACES", "--output=boxes.csv"), "boxes.csv holds something else"),
        (("data", "equalize", "FACES", "--output=boxes.csv"), "boxes.csv holds something else"),
        (("data", "check", "FACES", "--output=boxes.csv"), "boxes.csv: it is there, and is no folder"),
        (("audit", "scores.csv", "--output=boxes.csv"), "boxes.csv: it is there, and is no folder"),
        (("data", "sacn"), "did you mean 'scan'?"),
        (("data", "scan", "FACES", "--outptu=a"), "did you mean --output?"),
        (("data", "scan", "FACES", "--output=t.csv"), "ends in .parquet"),
        (("data", "equalize", "FACES", "--output=o", "--size=3"), "at least 16"),
        (("data", "equalize", "FACES", "--output=o", "--fit=corp"), "corp"),
        (("data", "equalize", "FACES"), "output"),
        (("data", "pack", "FACES", "--output=o", "--shard=0"), "shard at least 1"),
        (("data", "check", "FACES", "--output=o", "--distance=40"), "64 bits"),
        (("data", "faces", "FACES", "--output=o.parquet"), "give one"),
        (("data", "faces", "FACES", "--output=o.parquet", "--weights=none.onnx"), "no weights file"),
        (("data", "templates", "masks.csv", "--output=t.npy"), "must end in .npz"),
        (("toy", "--root=out", "--n=10"), "at least 80"),
    ],
)
def test_odd_words_are_one_line(
    words: tuple[str, ...], message: str, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(words, faces, capsys)
    assert {path.name for path in Path().iterdir()} == {"boxes.csv", "masks.csv", "scores.csv"}


@pytest.mark.parametrize("verb", VERBS[:-1], ids=lambda verb: " ".join(verb[:2]))
def test_any_number_of_processes_gives_the_same_bytes(
    verb: tuple[str, ...], faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(workers, "TASK", 7)
    words = [word for word in filled(verb, faces) if word != "--workers=1"]
    for count in (1, 2):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        Pool.blocked.clear()
        main(words)
        assert bool(Pool.blocked) == (count == 2 and verb[1] not in ("split", "templates"))
        place(verb).rename(f"{count}")
    assert content("1") == content("2")


def cut(verb: str, folder: str) -> None:
    """Run a verb whose process is killed in the middle."""
    module, name, number, make = CUT[verb]
    scan.PART, caption.PART = 10, 2
    setattr(module, name, killed_at(number, getattr(module, name)))
    make(folder)


def described(faces: str) -> Path:
    return caption.caption([faces], writer(faces), "out.parquet", **FAST | ONE)


#: Of each verb that goes on: what is killed at its call of a number, and the verb.
CUT: dict[str, tuple[Any, str, int, Callable[[str], object]]] = {
    "scan": (scan, "measure", 25, lambda faces: scan.scan([faces], "out.parquet", **ONE)),
    "caption": (
        caption,
        "load_image",
        25,
        described,
    ),
    "equalize": (equalize, "load_image", 25, lambda faces: equalize.equalize([faces], "out", size=32, **ONE)),
    "pack": (pack, "load_image", 25, lambda faces: pack.pack([faces], "out", shard=10, **ONE)),
    "forge": (import_module("dfl.tools.forge.classical"), "make", 25, lambda faces: forge.forge([faces], "out", **ONE)),
    "toy": (toy, "_make", 25, lambda faces: toy.make("out", n=80, size=32, **ONE)),
}


@pytest.mark.parametrize("verb", CUT)
def test_a_killed_run_goes_on(verb: str, faces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert exit_code(cut, verb, str(faces)) == -9
    assert not any(Path(name).exists() for name in ("out", "out.parquet"))
    module, name, _, make = CUT[verb]
    calls: list[Any] = []
    real = getattr(module, name)
    monkeypatch.setattr(scan, "PART", 10)
    monkeypatch.setattr(caption, "PART", 2)
    monkeypatch.setattr(module, name, lambda *args, **words: calls.append(args) or real(*args, **words))
    make(str(faces))
    # from the next image on (forge has 30 real ones, toy makes 80); of scan, caption, pack: the next part or shard
    assert len(calls) == {"scan": 40, "caption": 40, "equalize": 36, "pack": 40, "forge": 6, "toy": 56}[verb]
    calls.clear()
    output = "out.parquet" if verb in ("scan", "caption") else "out"
    one = content(output)
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]
    make(str(faces))  # there already
    assert calls == []
    Path(output).rename("cut")
    make(str(faces))
    assert content(output) == one
