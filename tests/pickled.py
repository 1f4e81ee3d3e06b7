"""A pool that does in this process what another process would do, with what it would be sent."""

import pickle
import signal
from concurrent.futures import Future
from typing import Any, ClassVar


class Pool:
    """Stands in for a ``ProcessPoolExecutor``; ``blocked`` are the signals that its processes would be started with."""

    blocked: ClassVar[list[Any]] = []

    def __init__(self, *args: Any) -> None:
        pass

    def submit(self, *call: Any) -> Future[Any]:
        self.blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        function, *args = pickle.loads(pickle.dumps(call))
        done: Future[Any] = Future()
        done.set_result(function(*args))
        return done

    def shutdown(self, **words: Any) -> None:
        pass
