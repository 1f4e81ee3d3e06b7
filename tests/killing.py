"""Kill real training processes and compare what their resumed runs end with. Shared by test_kill and soak."""

import hashlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from forking import ENVIRONMENT, forked
from torch import Tensor

SMALL = {
    "VitScl": {"backbone": "test_vit", "pretrained": False, "input_size": 32, "rank": 2, "dropout": 0.3},
    "Classifier": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
}
#: Images of all ranks in a step; 36 images make 9 steps of an epoch.
STEP, EPOCHS, STEPS = 4, 2, 18


class Witness(pl.Callback):
    """Write what each rank saw in each step, at once, so that a kill leaves it on disk.

    Args:
        folder: Where to write.
        pause: Seconds that a step is made longer, so that there is time to kill.
        hold: Step at which to wait for a file ``go`` in the folder; it comes after the signal, on a busy machine too.
    """

    def __init__(self, folder: str, pause: float = 0.1, hold: int | None = None) -> None:
        self.folder, self.pause, self.hold = folder, pause, hold

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        row = {
            "rank": trainer.global_rank,
            "step": trainer.global_step,
            "index": batch["index"].tolist(),
            "loss": {name: float(value) for name, value in sorted(module.losses.items())},
        }
        with open(f"{self.folder}/{trainer.global_rank}.jsonl", "a") as file:
            file.write(json.dumps(row) + "\n")
        time.sleep(self.pause)
        while trainer.global_step == self.hold and not Path(self.folder, "go").exists():
            time.sleep(0.002)


@dataclass(frozen=True)
class Setting:
    detector: str
    workers: int
    ranks: int

    def __str__(self) -> str:
        return f"{self.detector}, {self.workers} workers, {self.ranks} rank{'s' if self.ranks > 1 else ''}"


def command(setting: Setting, faces: Path, root: Path, **witness: Any) -> list[str]:
    """The one command of the first part and of each resume."""
    source = {
        "class_path": "Folder",
        "init_args": {"root": str(faces), "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}},
    }
    data = {"train": source, "batch_size": STEP // setting.ranks, "num_workers": setting.workers}
    data["transform"] = {"augment": "light"}
    run = {
        "model": {"class_path": setting.detector, "init_args": SMALL[setting.detector]},
        "data": {"class_path": "DataModule", "init_args": data},
        "trainer": {
            "max_epochs": EPOCHS,
            "accelerator": "cpu",
            "devices": setting.ranks,
            "strategy": "ddp" if setting.ranks > 1 else "auto",
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [{"class_path": "killing.Witness", "init_args": {"folder": str(root), **witness}}],
        },
        "last": {"every_n_steps": 2},
    }
    root.mkdir(parents=True, exist_ok=True)
    (root / "run.yaml").write_text(json.dumps(run))
    return [sys.executable, "-m", "dfl", "fit", f"--config={root / 'run.yaml'}", "--ckpt_path=last", f"--root={root}"]


class Forked:
    """A command in a `forked` process.

    The same program otherwise: own session, own randomness, killed and waited for like a ``Popen``. A second rank is
    started as ever, as a command of its own.
    """

    def __init__(self, words: list[str], said: Path) -> None:
        self._said = said
        self._process = forked(_run, words, str(said))

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def communicate(self) -> tuple[str, None]:
        self._process.join()
        return self._said.read_text(), None


def _run(words: list[str], said: str) -> None:
    os.setsid()
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    multiprocessing.set_start_method("fork", force=True)  # of its loader workers, as ever on Linux
    import dfl.__main__
    from dfl.training.tensorboard import TensorBoardInspect

    TensorBoardInspect._draw = lambda *_: None  # type: ignore[method-assign]  # nobody looks at the figures
    sys.argv = words[2:]  # Lightning starts a second rank with the words of the first
    sys.modules["__main__"] = dfl.__main__
    dfl.__main__.main(words[3:])


def start(words: list[str]) -> subprocess.Popen[str]:
    """Start a command in a session of its own, so that all its processes can be killed together."""
    environment = {**os.environ, **ENVIRONMENT}
    return subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


Process = subprocess.Popen[str] | Forked


def finish(process: Process) -> str:
    """Wait for the end of a process that must succeed, and return what it printed."""
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return said


def steps(root: Path) -> list[dict[str, Any]]:
    """Return what was written so far; a line that a kill cut is left out."""
    lines = [line for path in sorted(root.glob("*.jsonl")) for line in path.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def kill(process: Process, root: Path, number: signal.Signals, when: Callable[[], bool]) -> str:
    """Kill a run: all of it with SIGKILL, as when a machine is lost, or rank zero alone with another signal."""
    while not when():
        if process.poll() is not None:
            raise AssertionError(f"ended before it was killed: {process.communicate()[0]}")
        time.sleep(0.002)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    (root / "go").touch()
    said, _ = process.communicate()
    return said


def outcome(root: Path) -> dict[str, Any]:
    """Return all that must be equal: hashes of what was learned, and each rank's samples and losses by step."""
    seen: dict[str, Any] = {}
    for row in steps(root):
        key = f"rank {row['rank']} step {row['step']}"
        assert seen.setdefault(key, row) == row, f"{key} came again and was another one"
    files = {path.name: torch.load(path, weights_only=True) for path in root.glob("checkpoints/*/[bl]*t.ckpt")}
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "global_step")
    return {"steps": seen} | {f"{n} {p}": sha256(c[p]) for n, c in files.items() for p in parts if p in c}


def sha256(value: Any) -> str:
    digest = hashlib.sha256()
    _feed(digest, value)
    return digest.hexdigest()


def _feed(digest: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        digest.update(value.numpy().tobytes())
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        for inner in value:
            _feed(digest, inner)
    else:
        digest.update(repr(value).encode())
