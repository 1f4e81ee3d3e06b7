"""A loader process: begun for certain, and alive as long as its parent, whoever else signals the group.

CPython 3.11 can hang in a forked child before any line of Python runs there: it takes the lock of its list of
threads, which another thread of the parent may have held at the fork (python/cpython issue 112275). The loader
would then wait for ever for that process. So each process says that it has begun, and one that does not is killed
and forked again.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing import connection, context, popen_fork, process
from typing import Any

from dfl.errors import UserError

#: Seconds that a forked process has to begin, and how many of them are tried.
BEGIN, TRIES = 30.0, 4


def outlive_signals(worker: int) -> None:
    """Let a loader process live on when Ctrl-C or a scheduler signals the whole group; its parent still ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # macOS cannot tell who sent a signal
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def loader_context(workers: int) -> context.BaseContext | None:
    """How a loader of ``workers`` processes starts them: torch's ``multiprocessing_context``; None is its default."""
    return _Context() if workers and multiprocessing.get_start_method() == "fork" else None


class _Popen(popen_fork.Popen):
    def _launch(self, process_obj: Any) -> None:
        for _ in range(TRIES):
            reads, writes = os.pipe()
            process_obj.began = writes
            try:
                super()._launch(process_obj)  # type: ignore[misc]  # its stub leaves it out
                os.close(writes)
                # the end of a process closes the pipe as well: the loader sees that for itself
                if connection.wait([reads], BEGIN):
                    return
            finally:
                os.close(reads)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        raise UserError(f"none of {TRIES} loader processes began within {BEGIN:g} s each: set data.num_workers to 0")


class _Process(context.ForkProcess):
    began: int

    @staticmethod
    def _Popen(process_obj: process.BaseProcess) -> popen_fork.Popen:  # multiprocessing's name
        return _Popen(process_obj)

    def run(self) -> None:
        os.write(self.began, b".")
        os.close(self.began)
        super().run()


class _Context(context.ForkContext):
    Process = _Process
