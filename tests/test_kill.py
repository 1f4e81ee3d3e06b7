"""Real processes, started as a user starts them, killed, and started again with the same command.

Each pair ends with the same weights, optimizer, best checkpoint, samples and losses as a run that was never cut, bit
for bit. The four pairs cover both detectors, 0 and 2 workers, 1 and 2 ranks, SIGKILL and SIGTERM. `tests/soak.py` does
it at random, many times.

Nearly all of the time is the start-up of 18 processes, on one core each: two pairs run at a time.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from killing import STEPS, Setting, command, finish, kill, outcome, start, steps

Pair = tuple[Setting, signal.Signals, int]
PAIRS: list[Pair] = [
    (Setting("VitScl", 0, 1), signal.SIGKILL, 12),
    (Setting("VitScl", 2, 2), signal.SIGTERM, 4),
    (Setting("Baseline", 0, 2), signal.SIGKILL, 9),
    (Setting("Baseline", 2, 1), signal.SIGTERM, 14),
]


@pytest.fixture(scope="module")
def running(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Pair, Future[None]]]:
    with ThreadPoolExecutor(2) as pool:
        yield {pair: pool.submit(cut_and_compare, faces, tmp_path_factory.mktemp("pair"), *pair) for pair in PAIRS}


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}, {pair[1].name}")
def test_a_killed_run_ends_as_the_uncut_one(running: dict[Pair, Future[None]], pair: Pair) -> None:
    assert running[pair].result() is None  # raises what failed


def cut_and_compare(faces: Path, folder: Path, setting: Setting, number: signal.Signals, at: int) -> None:
    """Let one run go to its end and cut the other at a step; both must end alike."""
    whole = start(command(setting, faces, folder / "whole"))
    root = folder / "cut"
    words = command(setting, faces, root)
    part = start(words)
    said = kill(part, root, number, lambda: any(row["step"] >= at for row in steps(root)))
    assert part.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL), said
    assert "starting afresh" in said
    before = len({row["step"] for row in steps(root)})
    assert at <= before < STEPS
    assert f"resuming {root}/checkpoints/run/last.ckpt" in finish(start(words))
    finish(whole)
    assert outcome(root) == outcome(folder / "whole")
    assert len(outcome(root)["steps"]) == STEPS * setting.ranks
