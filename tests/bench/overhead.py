"""What our hooks, sampler and callbacks cost of a training step, saving apart: goal under 2 %.

The same detector is trained on the same images; time inside each function of ours is summed with a wrapper around it.
The wrapper's own cost counts as ours. The smaller the step, the larger the share, so a small network on a CPU is the
hard case: one step here takes tens of milliseconds, as a ViT-B/16 takes on a GPU.
"""

import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image

from dfl.data import DataModule, Folder
from dfl.data.sampler import TrainSampler
from dfl.detectors import VitScl
from dfl.training import AtomicCheckpointIO, FiniteLoss, KeepLast, KeyedRandomness, Preemption, SameRun

GOAL, IMAGES, BATCH, SIZE = 0.02, 320, 16, 160
#: Hooks that run at each step, by class.
HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_before_batch_transfer")


class Clock(pl.Callback):
    """Time from the end of the first steps, which warm up, to the end of the epoch."""

    def __init__(self) -> None:
        self.began = self.seconds = 0.0
        self.steps = 0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        if batch_idx == 3:
            self.began = now
            spent.clear()
        self.seconds, self.steps = now - self.began, batch_idx - 3


spent: dict[str, float] = defaultdict(float)


def timed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    def call(*args: Any, **words: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **words)
        finally:
            spent[name] += time.perf_counter() - began

    return call


def wrap(thing: Any) -> Any:
    for hook in HOOKS:
        if hook in type(thing).__dict__:
            setattr(thing, hook, timed(getattr(thing, hook), type(thing).__name__))
    return thing


class TimedSampler(TrainSampler):
    """Its iterator, timed."""

    def __iter__(self) -> Any:
        rows = super().__iter__()
        step = timed(lambda: next(rows, None), "TrainSampler")
        while (row := step()) is not None:
            yield row


def main() -> dict[str, Any]:
    """Train for an epoch; return and print the share of step time that is ours."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(IMAGES):
            path = Path(folder) / ("real", "fake")[i % 2] / f"{i}.jpg"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(path)
        spent.clear()
        clock, last = Clock(), KeepLast(str(Path(folder) / "run"))
        ours = [SameRun(), KeyedRandomness(), FiniteLoss(), Preemption(last), last]
        data: Any = wrap(
            DataModule(Folder(folder, fractions={"train": 0.9, "val": 0.1}), batch_size=BATCH, num_workers=0)
        )
        make = data._loader
        data._loader = lambda d, sampler, *a, **k: make(d, timed_copy(sampler), *a, **k)
        trainer = pl.Trainer(
            max_epochs=1,
            limit_val_batches=0,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            callbacks=[*map(wrap, ours), clock],
            plugins=[AtomicCheckpointIO()],
        )
        trainer.fit(VitScl("test_vit", pretrained=False, input_size=SIZE, rank=2), datamodule=data)
        began = time.perf_counter()
        last._save(trainer)
        saving = time.perf_counter() - began
    share = {name: seconds / clock.seconds for name, seconds in sorted(spent.items())}
    total, step = sum(share.values()), clock.seconds / clock.steps
    parts = ", ".join(f"{name} {part:.2%}" for name, part in share.items())
    print(f"overhead: {total:.2%} of a step of {1000 * step:.0f} ms (goal {GOAL:.0%}): {parts}")
    print(f"overhead: one save {1000 * saving:.0f} ms, written and forced to the disk")
    return {"share": total, "step": step, "saving": saving, "parts": share}


def timed_copy(sampler: Any) -> TimedSampler:
    """Return a sampler that does the same and is timed."""
    return TimedSampler(sampler.order, sampler.n, sampler.batch_size, sampler.trainer)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    main()
