"""Loader processes begin for certain."""

import subprocess
import sys
from pathlib import Path

HANGS = '''
import os, sys, time
from torch.utils.data import DataLoader
from dfl.data import loader_process

loader_process.BEGIN, loader_process.TRIES = 0.5, 3
flags, forks = sys.argv[1], int(sys.argv[2])


def hang():
    """As CPython 3.11 may in a forked process, before it runs a line of it."""
    for number in range(forks):
        try:
            os.open(f"{flags}/{number}", os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            continue
        time.sleep(3600)


os.register_at_fork(after_in_child=hang)
loader = DataLoader(range(8), 2, num_workers=2, multiprocessing_context=loader_process.loader_context(2))
print([batch.tolist() for batch in loader])
'''


def run(folder: Path, hanging: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", HANGS, str(folder), str(hanging)], capture_output=True, text=True, timeout=300
    )


def test_a_process_that_does_not_begin_is_killed_and_forked_again(tmp_path: Path) -> None:
    ended = run(tmp_path, 2)
    assert ended.stdout == "[[0, 1], [2, 3], [4, 5], [6, 7]]\n", ended.stderr
    assert len(list(tmp_path.iterdir())) == 2


def test_processes_that_never_begin_are_one_line(tmp_path: Path) -> None:
    ended = run(tmp_path, 3)
    assert ended.returncode == 1
    assert "none of 3 loader processes began within 0.5 s each: set data.num_workers to 0" in ended.stderr
