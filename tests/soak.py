"""Kill training at random, many times, and print what each resumed run ended with: ``python tests/soak.py --kills 50``.

Settings (detector, workers, ranks) are drawn at random; so are the signal, the moment, and how often one run is cut.
Each setting has one uncut run, with which all that were cut are compared: weights, optimizer, best checkpoint, each
rank's samples and losses at each step. Worker counts change between the parts of a run, since that must not matter.
"""

import argparse
import math
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from conftest import save_image
from killing import Setting, command, finish, outcome, start

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def main() -> dict[str, int]:
    """Run until enough kills were made; return how many, and how many runs ended otherwise than they should."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    rng = random.Random(asked.seed)
    table: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    wrong = kills = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for i in range(30):
            save_image(place / "faces" / "real" / f"{i:02d}.png", i, dark=False)
            save_image(place / "faces" / "fake" / f"{i:02d}.png", 100 + i, dark=True)
        whole: dict[tuple[str, int], tuple[object, float]] = {}
        while kills < asked.kills:
            detector, ranks = rng.choice(("VitScl", "Classifier")), rng.choice((1, 1, 2))
            if (detector, ranks) not in whole:
                root, began = place / f"{detector}{ranks}", time.monotonic()
                finish(start(command(Setting(detector, 0, ranks), place / "faces", root)))
                whole[detector, ranks] = outcome(root), time.monotonic() - began
            expected, seconds = whole[detector, ranks]
            cuts = rng.randint(1, 3)
            made, took = cut_run(rng, place, detector, ranks, cuts, seconds)
            whole[detector, ranks] = expected, min(seconds, took)  # a machine that was busy then may not be now
            kills += len(made)
            found = outcome(place / "cut")
            good = found == expected
            wrong += not good
            for name in made:
                table[f"{detector}, {ranks} rank{'s' * (ranks > 1)}", name][0] += 1
                table[f"{detector}, {ranks} rank{'s' * (ranks > 1)}", name][1] += good
            print(f"{kills:4} {detector:9} {ranks} {' '.join(made):28} {'equal' if good else 'DIFFERENT'}", flush=True)
            if not good:
                kept = Path(tempfile.mkdtemp(prefix="dfl-soak-"))
                shutil.copytree(place / "cut", kept / "cut")
                shutil.copytree(place / f"{detector}{ranks}", kept / "whole")
                print(
                    f"     {', '.join(k for k in expected if found.get(k) != expected[k])}: kept in {kept}", flush=True
                )
            shutil.rmtree(place / "cut")
    print("\n| setting | signal | kills | equal |\n|---|---|---|---|")
    for (setting, name), (count, good) in sorted(table.items()):
        print(f"| {setting} | {name} | {count} | {good} |")
    print(f"\n{kills} kills, {wrong} runs that ended otherwise")
    return {"kills": kills, "wrong": wrong}


def cut_run(
    rng: random.Random, place: Path, detector: str, ranks: int, cuts: int, seconds: float
) -> tuple[list[str], float]:
    """Cut a run at random moments, start-up included, and let it end; return the signals, and how long a part took.

    That is the time of a part that ended before its cut, and infinite if there was none.
    """
    made, took = [], math.inf
    for _ in range(cuts):
        process = start(command(Setting(detector, rng.choice((0, 2)), ranks), place / "faces", place / "cut"))
        number, began = rng.choice(SIGNALS), time.monotonic()
        until = began + rng.uniform(0.3, 1.0) * seconds
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
        if process.poll() is not None:
            took = time.monotonic() - began
            break
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        process.communicate()
        made.append(number.name)
    finish(start(command(Setting(detector, rng.choice((0, 2)), ranks), place / "faces", place / "cut")))
    return made, took


if __name__ == "__main__":
    sys.exit(main()["wrong"] > 0)
