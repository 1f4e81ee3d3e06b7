"""Cheap questions are answered without torch, and every way to end has its exit code."""

import errno
import importlib
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import keep_configs
import pytest
import timm

import dfl
from dfl import __main__ as entry
from dfl import detectors
from dfl.cli import configs
from dfl.errors import UserError


def test_help_version_and_list_need_no_torch() -> None:
    code = (
        "import sys, dfl.__main__ as m\n"
        "for word in ('--help', '--version', 'list'): m.main([word])\n"
        "heavy = {'torch', 'numpy', 'yaml', 'pytorch_lightning'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    root = Path(dfl.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    assert f"dfl {dfl.__version__}" in done.stdout
    assert "usage: dfl VERB" in done.stdout
    assert "vit_scl.yaml" in done.stdout


def test_the_script_ends_with_status_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = Path(dfl.__file__).parents[1] / "pyproject.toml"
    if not project.is_file():
        pytest.skip("only a checkout has its pyproject.toml")
    module, name = tomllib.loads(project.read_text())["project"]["scripts"]["dfl"].split(":")
    (tmp_path / "t.csv").write_text("path,label\na.png,0\nb.png,1\n")
    monkeypatch.setattr("sys.argv", ["dfl", "data", "split", "t.csv", "-o", "s.parquet"])
    assert getattr(importlib.import_module(module), name)() is None  # anything else would be an exit status of 1
    assert (tmp_path / "s.parquet").is_file()


def test_list_knows_every_public_detector() -> None:
    public = {name for name in detectors.__all__ if isinstance(getattr(detectors, name), type)} - {"Detector"}
    listed = {one.name: one for one in configs.methods() if not one.is_backbone}
    assert set(listed) == public
    assert all(getattr(detectors, name).__doc__.startswith(one.what) for name, one in listed.items())


def test_list_groups_by_what_the_classes_say_of_themselves() -> None:
    for one in configs.methods():
        said = () if one.is_backbone else vars(getattr(detectors, one.name)).get("about") or ()
        assert one.idea in configs.IDEAS, one.name
        assert (one.idea, one.paper, one.year) == (*said, *("others", "", None)[len(said) :]) or one.is_backbone
    networks = {one.name: one for one in configs.methods() if one.is_backbone}
    assert all(timm.is_model(name) for name in networks)
    assert networks["meso4"][2:5] == ("image classifiers", "Afchar et al.", 2018)


def test_list_counts_the_parameters_of_configs(capsys: pytest.CaptureFixture[str]) -> None:
    """``python tests/keep_configs.py`` writes them."""
    assert configs.parameters() == keep_configs.parameters()
    entry.main(["list"])
    assert re.search(r"^  gramnet.yaml +11.7 M  Gram-Net", capsys.readouterr().out, re.M)


def test_every_config_has_a_line_for_the_list() -> None:
    assert [name for name in configs.listing() if not configs.describe(name)] == []


def test_a_config_is_found_from_any_folder_with_and_without_suffix(tmp_path: Path) -> None:
    packaged = Path(configs.find("vit_scl.yaml"))
    assert packaged.is_file()
    assert Path(configs.find("vit_scl")) == packaged
    (tmp_path / "vit_scl.yaml").write_text("model: VitScl\n")
    assert configs.find("vit_scl.yaml") == "vit_scl.yaml"  # the user's own file comes first


def test_an_unknown_config_says_where_it_looked_and_what_comes_near(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        configs.find("vit_slc.yaml")
    assert str(tmp_path) in str(error.value)
    assert "did you mean 'vit_scl.yaml'" in str(error.value)


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (UserError("no such thing"), 2, "no such thing"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (SystemExit(75), 75, ""),
        (OSError(errno.ENOSPC, ""), 2, "cannot read or write: No space left on device"),
        (PermissionError(errno.EACCES, "", "a/é.csv"), 2, "cannot read or write a/é.csv: Permission denied"),
        (NotADirectoryError(errno.ENOTDIR, "", b"a/b"), 2, "cannot read or write a/b: Not a directory"),
        (OSError(errno.ENAMETOOLONG, "", "a"), 2, "cannot read or write a: File name too long"),
        (UnicodeEncodeError("utf-8", "a/\udcff", 2, 3, ""), 2, r"'a/\udcff' cannot be written as utf-8: rename it"),
        (FileNotFoundError(2, "No usable temporary directory found in ['/tmp']"), 2, "No usable temporary directory"),
        (RecursionError(), 2, "nested too deeply"),
        (UserError("x" * 99_999 + " (line 3 of a.yaml)"), 2, "x (line 3 of a.yaml)"),
    ],
)
def test_exit_codes(
    raised: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(words: list[str]) -> None:
        raise raised

    monkeypatch.setattr(entry, "dispatch", fail)
    with pytest.raises(SystemExit) as stop:
        entry.main(["fit"])
    assert stop.value.code == code
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), all(said in line and len(line) < 2000 for line in lines)) == (bool(said), True)
    with pytest.raises(type(raised)):
        entry.main(["fit", "--debug"])


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError(), OSError("a network"), ValueError()])
def test_what_is_no_matter_of_files_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(words: list[str]) -> None:
        raise error

    monkeypatch.setattr(entry, "dispatch", fail)
    with pytest.raises(type(error)):
        entry.main(["fit"])


def run(words: list[str | bytes], **streams: Any) -> Any:
    """Run a command in a process of its own, in an ASCII terminal."""
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(dfl.__file__).parents[1])}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
    return subprocess.run([sys.executable, "-m", "dfl", *words], env=ascii_only, check=False, **streams)


@pytest.mark.parametrize("words", [["list"], ["no-such-verb"]])
def test_a_reader_that_leaves_ends_the_command_without_a_word(words: list[str | bytes]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(words, stdout=writer, **({} if words == ["list"] else {"stderr": writer}))
    os.close(writer)
    assert (done.returncode, done.stderr or b"") == (141, b"")


@pytest.mark.parametrize(
    ("word", "shown"), [("naïve-🙂", rb"'na\xefve-\U0001f642'"), (b"\xff\xfe", rb"'\udcff\udcfe'")]
)
def test_what_a_terminal_cannot_show_is_no_traceback(word: str | bytes, shown: bytes) -> None:
    done = run([word])
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"dfl: no verb " + shown + b"; there are ")
    assert done.stderr.count(b"\n") == 1


def test_a_full_standard_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = run(["--version"], stdout=full)
    assert done.returncode == 2
    assert re.fullmatch(rb"dfl: cannot [a-z ]+: No space left on device\n", done.stderr)


def test_a_full_disk_in_a_thread_is_left_to_the_main_one(capsys: pytest.CaptureFixture[str]) -> None:
    for error, said in ((OSError(errno.ENOSPC, ""), False), (ValueError("odd"), True)):
        entry._in_thread(threading.ExceptHookArgs((type(error), error, None, None)))
        assert bool(capsys.readouterr().err) == said


def test_ctrl_c_inside_lightning_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(words: list[str]) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)  # what Lightning does after its clean-up

    monkeypatch.setattr(entry, "dispatch", interrupted)
    with pytest.raises(SystemExit) as stop:
        entry.main(["fit"])
    assert stop.value.code == 130


def test_an_error_is_one_line_unless_debug(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        entry.main(["fti"])
    assert capsys.readouterr().err == "dfl: no verb 'fti'; did you mean 'fit'?\n"
    with pytest.raises(UserError):
        entry.main(["--debug", "fti"])


def test_an_error_from_a_loader_process_keeps_only_what_it_says() -> None:
    crossed = (
        "Caught UserError in DataLoader worker process 0.\nOriginal Traceback ...\ndfl.errors.UserError: no file\n"
    )
    assert entry.one_line(crossed) == "no file"
