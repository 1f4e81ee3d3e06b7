"""Real processes, started as a user starts them, killed, and started again with the same command.

Each pair ends with the same weights, optimizer, best checkpoint, samples and losses as a run that was never cut, bit
for bit. The four pairs cover both detectors, 0 and 2 workers, 1 and 2 ranks, SIGKILL and SIGTERM. `tests/soak.py` does
it at random, many times.
"""

import signal
from pathlib import Path

import pytest
from killing import STEPS, Setting, command, finish, kill, outcome, start, steps

PAIRS = [
    (Setting("VitScl", 0, 1), signal.SIGKILL, 12),
    (Setting("VitScl", 2, 2), signal.SIGTERM, 4),
    (Setting("Baseline", 0, 2), signal.SIGKILL, 9),
    (Setting("Baseline", 2, 1), signal.SIGTERM, 14),
]


@pytest.mark.parametrize(("setting", "number", "at"), PAIRS, ids=str)
def test_a_killed_run_ends_as_the_uncut_one(
    faces: Path, tmp_path: Path, setting: Setting, number: signal.Signals, at: int
) -> None:
    whole = start(command(setting, faces, tmp_path / "whole"))
    root = tmp_path / "cut"
    words = command(setting, faces, root)
    part = start(words)
    said = kill(part, root, number, lambda: any(row["step"] >= at for row in steps(root)))
    assert part.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL), said
    assert "starting afresh" in said
    before = len({row["step"] for row in steps(root)})
    assert at <= before < STEPS
    assert f"resuming {root}/checkpoints/run/last.ckpt" in finish(start(words))
    finish(whole)
    assert outcome(root) == outcome(tmp_path / "whole")
    assert len(outcome(root)["steps"]) == STEPS * setting.ranks
