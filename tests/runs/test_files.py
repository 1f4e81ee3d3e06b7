"""A file is whole or not there, and two processes never write one thing."""

import errno
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dfl.errors import UserError
from dfl.runs import files
from dfl.runs.files import claimed, errors_in_one_line, whole, write


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_refuses_keeps_the_old_file_and_nothing_else(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a.csv", "old")

    def refuse(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)  # where a disk that was promised turns out to be full
    with pytest.raises(UserError, match=rf"^cannot write {tmp_path}/a.csv: {os.strerror(number)}$"):
        write(tmp_path / "a.csv", "new")
    assert (tmp_path / "a.csv").read_text() == "old"
    assert names(tmp_path) == {"a.csv"}


def test_a_read_only_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object, *args: object) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(os, "open", refuse)
    for attempt in (lambda: write(tmp_path / "a.csv", ""), lambda: claimed(tmp_path / "a.csv").__enter__()):
        with pytest.raises(UserError, match=rf"^cannot write {tmp_path}/a.csv: Read-only file system$"):
            attempt()


def test_what_goes_wrong_inside_leaves_nothing(tmp_path: Path) -> None:
    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error), whole(tmp_path / "new" / "a.csv") as partial:
            raise error(partial.write_text("half"))
    assert names(tmp_path / "new") == set()
    with pytest.raises(UserError, match="cannot write /elsewhere: Permission denied"), errors_in_one_line(tmp_path):
        raise PermissionError(errno.EACCES, "", "/elsewhere")


def test_what_a_killed_process_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.csv.tmp").write_text("half of a longer one")
    write(tmp_path / "a.csv", "é\udcff")
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "é\\udcff"
    assert names(tmp_path) == {"a.csv"}


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [folder, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_file_is_not_replaced(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "a.csv")
    before = os.lstat(tmp_path / "a.csv")
    with pytest.raises(UserError, match="a.csv: it is there and is no file"):
        write(tmp_path / "a.csv", "")
    assert os.path.samestat(os.lstat(tmp_path / "a.csv"), before)
    assert names(tmp_path) == {"a.csv"}


@pytest.mark.parametrize("place", ["", "/", "..", "a/.."])
def test_a_place_without_a_name_is_one_line(place: str) -> None:
    with pytest.raises(UserError, match="it names no file or folder of its own"):
        write(Path(place), "")


def test_a_folder_below_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for attempt in (write, lambda path, text: claimed(path).__enter__()):
        with pytest.raises(UserError, match=r"^cannot write .*: (Not a directory|it is there, and is no folder)$"):
            attempt(tmp_path / "file" / "below" / "a.csv", "")


def test_the_second_is_told_and_the_first_loses_nothing(tmp_path: Path) -> None:
    with claimed(tmp_path / "deep" / "out"):
        with pytest.raises(UserError, match=rf"another process is writing {tmp_path}/deep/out: wait"):
            claimed(tmp_path / "deep" / "x" / ".." / "out").__enter__()
        with claimed(tmp_path / "deep" / "other"):
            pass
        (tmp_path / "deep" / "out").mkdir()
    assert names(tmp_path / "deep") == {"out"}


def test_a_folder_that_files_are_written_into_is_held_from_inside(tmp_path: Path) -> None:
    with claimed(tmp_path / "out", inside=True):
        assert names(tmp_path) == {"out"}  # what is above may be another's
        with pytest.raises(UserError, match=rf"another process is writing {tmp_path}/out: wait"):
            claimed(tmp_path / "out" / ".", inside=True).__enter__()
    assert names(tmp_path / "out") == set()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: it is there, and is no folder"):
        claimed(tmp_path / "file", inside=True).__enter__()


def test_a_claim_ends_with_its_process_however_it_ends(tmp_path: Path) -> None:
    read, ready = os.pipe()
    child = os.fork()
    if child == 0:
        with claimed(tmp_path / "out"):
            os.write(ready, b"x")
            signal.pause()
        os._exit(0)
    os.read(read, 1)
    with pytest.raises(UserError, match="another process"):
        claimed(tmp_path / "out").__enter__()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with claimed(tmp_path / "out"):
        assert names(tmp_path) == {".out.lock"}


def test_a_second_writer_of_a_file_waits_for_the_first(tmp_path: Path) -> None:
    second = threading.Thread(target=write, args=(tmp_path / "a", "second"))
    with whole(tmp_path / "a") as partial:
        second.start()
        partial.write_text("first")
        second.join(0.05)
        assert second.is_alive()
    second.join()
    assert (tmp_path / "a").read_text() == "second"
    assert names(tmp_path) == {"a"}


def test_a_file_system_without_locks_still_writes_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", none)
    with claimed(tmp_path / "a"):
        write(tmp_path / "a", "content")
    assert (tmp_path / "a").read_text() == "content"
    assert names(tmp_path) == {"a"}
