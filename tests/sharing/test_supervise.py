"""A worker that is killed has a successor behind the same socket; one that ends by itself has none."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Answers each connection with its process number; what a worker does instead is the word.
SCRIPT = """
import os, signal, socket, sys
from dfl.errors import UserError
from dfl.sharing.serve.supervise import supervise

signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored where the tests run in the background

def work(listener, ready):
    if sys.argv[1] == "refuse":
        raise UserError("no such detector")
    if sys.argv[1] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    ready()
    while sys.argv[1] == "answer":
        with listener.accept()[0] as client:
            client.sendall(str(os.getpid()).encode())

with socket.create_server(("127.0.0.1", 0)) as listener:
    try:
        code = supervise(work, (listener,), lambda: print(listener.getsockname()[1], flush=True), "fork")
    except UserError as error:
        print(error, flush=True)
        code = 2
sys.exit(code)
"""


@contextmanager
def started(word: str) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", SCRIPT, word]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process
        process.kill()


def number(port: int) -> int:
    """Return the process number of the worker that answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        return int(client.recv(99))


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_killed_worker_is_replaced_and_goes_with_its_parent(stop: signal.Signals) -> None:
    with started("answer") as process:
        assert process.stdout
        assert process.stderr
        port = int(process.stdout.readline())
        first = number(port)
        os.kill(first, signal.SIGKILL)
        assert "SIGKILL; another one takes its place" in process.stderr.readline()
        second = number(port)  # waits in the queue of the socket, and is not refused
        assert second not in (first, process.pid)
        assert "serving again" in process.stderr.readline()
        process.send_signal(stop)
        assert process.stdout.read() == ""  # comes once no process holds it any more
        process.wait(60)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=60)


@pytest.mark.parametrize(
    ("word", "said", "code"),
    [("refuse", "no such detector\n", 2), ("die", "the worker was ended by SIGKILL before it could answer", 2)],
)
def test_a_worker_that_cannot_begin_is_not_tried_again(word: str, said: str, code: int) -> None:
    with started(word) as process:
        out, _ = process.communicate(timeout=60)
    assert out.startswith(said)
    assert process.returncode == code


def test_a_worker_that_is_done_ends_all() -> None:
    with started("done") as process:
        assert process.wait(60) == 0
