"""No rank outlives rank zero.

Lightning starts the ranks of a machine as children of rank zero and leaves them alone afterwards. Where rank zero is
ended before they have met (a signal during start-up is enough), they wait for it for half an hour, and hold their
memory, their GPU and the pipe of whoever waits for their output. So each child asks the kernel to be ended with its
parent. ``torchrun`` and SLURM end the ranks that they start by themselves.
"""

import ctypes
import os
import signal
import sys

#: In the environment that Lightning hands on: the process id of the rank zero that starts the others.
ZERO = "DFL_RANK_ZERO"
_PR_SET_PDEATHSIG = 1


def end_with_rank_zero() -> None:
    """In rank zero: say which process it is. In a rank that it starts: end when it ends (on Linux; elsewhere nothing).

    Called before torch is imported, so that start-up is covered too.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ[ZERO] = str(os.getpid())
        return
    end_with(int(os.environ.get(ZERO, 0)), signal.SIGKILL)


def end_with(parent: int, by: signal.Signals) -> None:
    """Let this process get a signal when the process that started it ends; it ends at once if that has ended already.

    Args:
        parent: Number of that process; 0 for none.
        by: The signal.
    """
    if parent == os.getppid() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
    if parent and not alive(parent):  # it ended before the kernel was asked
        os._exit(1)


def alive(process: int) -> bool:
    """Return whether a process of this machine lives, whoever owns it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
