"""Real processes, killed, and started again with the same command.

Each pair ends with the same weights, optimizer, best checkpoint, samples and losses as a run that was never cut, bit
for bit. The four pairs cover both detectors, 0 and 2 workers, 1 and 2 ranks, SIGKILL and SIGTERM; runs with and without
workers are compared with one uncut run, since the number of workers must not matter either. `tests/soak.py` does it at
random, many times, in every combination.

Importing is most of the time of a small run. So all runs go at a time, forked from a process that has imported
everything, and an uncut run of one rank goes in this process. The soak starts every run as a user does.
"""

import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forking import importing
from killing import STEPS, Forked, Setting, command, finish, kill, outcome, steps

from dfl.__main__ import main

Pair = tuple[Setting, signal.Signals, int]
PAIRS: list[Pair] = [
    (Setting("VitScl", 2, 2), signal.SIGKILL, 9),
    (Setting("VitScl", 0, 1), signal.SIGTERM, 4),
    (Setting("Classifier", 0, 1), signal.SIGTERM, 14),
    (Setting("Classifier", 2, 1), signal.SIGKILL, 12),
]
Outcome = dict[str, Any]
Outcomes = tuple[dict[Pair, Future[Outcome]], dict[Setting, Future[Outcome]]]


@pytest.fixture(scope="module")
def outcomes(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """Return what each run that was cut ends with, and each uncut run by its setting without workers."""
    importing()
    settings = {replace(setting, workers=0) for setting, _, _ in PAIRS}
    with ThreadPoolExecutor(len(PAIRS) + len(settings)) as pool:
        cut = {pair: pool.submit(cut_and_resume, faces, tmp_path_factory.mktemp("cut"), *pair) for pair in PAIRS}
        many = [one for one in settings if one.ranks > 1]
        uncut = {one: pool.submit(let_run, faces, tmp_path_factory.mktemp("whole"), one) for one in many}
        for one in settings - set(many):  # in this thread, where signals can be caught
            uncut[one] = Future()
            uncut[one].set_result(run_here(faces, tmp_path_factory.mktemp("whole"), one))
        yield cut, uncut


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}, {pair[1].name}")
def test_a_killed_run_ends_as_the_uncut_one(outcomes: Outcomes, pair: Pair) -> None:
    cut, uncut = outcomes
    ended, whole = cut[pair].result(), uncut[replace(pair[0], workers=0)].result()
    assert ended == whole
    assert len(ended["steps"]) == STEPS * pair[0].ranks


def let_run(faces: Path, root: Path, setting: Setting) -> Outcome:
    finish(Forked(command(setting, faces, root, pause=0), root / "said"))
    return outcome(root)


def run_here(faces: Path, root: Path, setting: Setting) -> Outcome:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "")
        patch.delenv("PL_GLOBAL_SEED")  # what a run sets is taken back
        main(command(setting, faces, root, pause=0)[3:])
    return outcome(root)


def cut_and_resume(faces: Path, root: Path, setting: Setting, number: signal.Signals, at: int) -> Outcome:
    """Cut a run at a step, and let the same command end it."""
    words = command(setting, faces, root, pause=0, hold=at)
    part = Forked(words, root / "said")
    said = kill(part, root, number, lambda: any(row["step"] >= at for row in steps(root)))
    assert part.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL), said
    assert "starting afresh" in said
    assert at <= len({row["step"] for row in steps(root)}) < STEPS
    assert f"resuming {root}/checkpoints/run/last.ckpt" in finish(Forked(words, root / "said again"))
    return outcome(root)
