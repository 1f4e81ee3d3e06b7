"""A rank ends when rank zero ends, whenever that is."""

import os
import signal
import subprocess
import sys

import pytest

from dfl import orphans

RANK = """
import time
from dfl.orphans import end_with_rank_zero
end_with_rank_zero()
print("up", flush=True)
time.sleep(600)
print("left over", flush=True)
"""
ZERO = f"""
import os, subprocess, sys, time
from dfl.orphans import end_with_rank_zero
end_with_rank_zero()
subprocess.Popen([sys.executable, "-c", {RANK!r}], env={{**os.environ, "LOCAL_RANK": "1"}})
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_rank_ends_when_rank_zero_is_killed():
    environment = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", orphans.ZERO)}
    with subprocess.Popen([sys.executable, "-c", ZERO], stdout=subprocess.PIPE, env=environment, text=True) as zero:
        assert zero.stdout.readline() == "up\n"
        zero.send_signal(signal.SIGKILL)
        assert zero.stdout.read() == ""  # the end of the pipe, which the rank held open


def test_a_rank_that_comes_too_late_ends_at_once():
    with subprocess.Popen(["true"]) as gone:
        pass
    environment = {**os.environ, "LOCAL_RANK": "1", orphans.ZERO: str(gone.pid)}
    assert subprocess.run([sys.executable, "-c", RANK], env=environment, capture_output=True).returncode == 1


def test_ranks_of_torchrun_are_left_to_it(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv(orphans.ZERO, raising=False)
    orphans.end_with_rank_zero()
    assert orphans.ZERO not in os.environ
