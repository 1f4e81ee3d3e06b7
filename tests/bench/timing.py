"""Time two or more ways of doing one thing in turns, so that a machine whose speed drifts treats them alike."""

import time
from collections.abc import Callable
from statistics import median


def in_turns(
    ways: dict[str, Callable[[], None]],
    rounds: int = 5,
    warmup: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of each way over the rounds; A B A B ..., after a warm-up.

    With ``clock=time.process_time`` and one thread, what else runs on the machine hardly counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(warmup + rounds):
        for name, way in ways.items():
            start = clock()
            way()
            if i >= warmup:
                seconds[name].append(clock() - start)
    return {name: median(s) for name, s in seconds.items()}
