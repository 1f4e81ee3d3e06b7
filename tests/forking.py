"""Processes that have imported everything when they begin: forked from one process of this run that imports once."""

import functools
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch.distributed
import torch.multiprocessing

HERE = Path(__file__).parent
ENVIRONMENT = {
    "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
    "OMP_NUM_THREADS": "1",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


@functools.cache
def importing() -> None:
    """Start the process that imports, once; before there are threads, since it needs an environment of its own."""
    forkserver.set_forkserver_preload(["pytest", "dfl.cli.app", "killing"])
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)  # it keeps the environment of its start
    forkserver.ensure_running()
    os.environ.clear()
    os.environ.update(before)


def forked(function: Callable[..., Any], *args: Any) -> multiprocessing.context.ForkServerProcess:
    """Start a function in a process of its own; importing is most of the time of a small one, and it spares that."""
    importing()
    process = multiprocessing.get_context("forkserver").Process(target=function, args=args)
    process.start()  # not a daemon: it may start loader workers
    return process


def exit_code(function: Callable[..., Any], *args: Any) -> int | None:
    """Run a function in a process of its own to its end, and return its exit code: -9 if it was killed."""
    process = forked(function, *args)
    process.join()
    return process.exitcode


def killed_at(number: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function, whose call of this number kills the process instead."""
    calls = itertools.count(1)

    def call(*args: Any, **words: Any) -> Any:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **words)

    return call


def on_two_ranks(function: Callable[..., Any], *args: Any) -> None:
    """Run ``function(rank, *args)`` in two processes, as torchrun starts them, and raise what either raises."""
    importing()
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # on a free port
    torch.multiprocessing.start_processes(_rank, (store.port, function, args), nprocs=2, start_method="forkserver")


def _rank(rank: int, port: int, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": True}
    os.environ |= {name: str(value) for name, value in (here | meet | {"TORCHELASTIC_RUN_ID": "dfl"}).items()}
    function(rank, *args)
