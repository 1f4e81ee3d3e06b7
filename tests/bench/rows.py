"""What ten million rows cost: the start of a training, and the memory of a loader process, against ten thousand rows.

The table is a Parquet file with a split column and relative paths; there are no images, and none is opened. A sample
stops where its file would be read: everything known of the image has then been looked up. The start is everything
between the table on disk and the loader processes' first batch: reading, splitting, the check that no image is on both
sides, the hash of the list, the order of the epoch. The memory of a loader process is what it has for itself alone
(USS: private pages), less that of one that has only the imports; pages of the mapped file are the machine's to drop.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from torch.utils.data import DataLoader

from dfl.data import DataModule, ImageDataset, Table

MILLIONS, FEW, WORKERS, BATCHES = 10_000_000, 10_000, 2, 300
GOAL_MB, GOAL_S = 300, 30


class Lookup:
    """Everything of a data set's samples but the pixels."""

    def __init__(self, data: ImageDataset | None) -> None:
        self.data = data

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        row = int(key[0])
        return {} if self.data is None else self.data._facts(row, row) | {"mask": self.data.rows.text("mask", row)}


def private(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the megabytes that this process has for itself: ``all``, and ``written``, which cannot be dropped."""
    pages = dict.fromkeys(("Private_Clean", "Private_Dirty"), 0.0)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        if name in pages:
            pages[name] += int(value.split()[0]) / 1024
    return {"all": sum(pages.values()), "written": pages["Private_Dirty"]}


def make_table(file: Path, n: int) -> None:
    """Write a table: two classes, 40 generators, 20 frames of each video; every tenth video is for validation."""
    row = np.arange(n)
    label = (row % 2).astype(np.int8)
    words = {
        "folder": (label, ["real/images", "fake/images"]),
        "split": (row // 20 % 10 == 9, ["train", "val"]),
        "generator": (np.where(label, row // 2 % 40 + 1, 0), ["", *(f"generator{i}" for i in range(40))]),
        "family": (label, ["", "diffusion"]),
        "group": (row // 20 % 8, [f"group{i}" for i in range(8)]),
    }
    text = {
        k: pa.DictionaryArray.from_arrays(c.astype(np.int32), pa.array(w)).cast("str") for k, (c, w) in words.items()
    }
    video = pc.binary_join_element_wise("clip", pa.array(row // 20).cast("str"), "")
    image = pc.binary_join_element_wise(pc.utf8_lpad(pa.array(row).cast("str"), 8, "0"), "jpg", ".")
    path = pc.binary_join_element_wise(text.pop("folder"), video, image, "/")
    pq.write_table(pa.table({"path": path, "label": label, "video": video, **text}), file, row_group_size=1 << 20)


def trainer() -> Any:
    """What a sampler asks of a trainer at the start."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=0, processed=0))
    loop = SimpleNamespace(epoch_progress=progress, epoch_loop=SimpleNamespace(batch_progress=progress))
    return SimpleNamespace(fit_loop=loop, global_rank=0, world_size=1, limit_train_batches=1.0)


def run(file: Path, spawn: bool) -> None:
    """Start on a table and look up some batches; print seconds, seconds of the processor, and megabytes."""
    context: Any = "spawn" if spawn else None  # each with its own imports: a spawned process shares none
    empty: Any = Lookup(None)
    loader: Any = DataLoader(
        empty, sampler=[(0, 0)] * 8, num_workers=1, collate_fn=private, multiprocessing_context=context
    )
    bare = max_of(list(loader))
    began, worked = time.perf_counter(), time.process_time()
    data = DataModule(Table(str(file)), size=224, num_workers=WORKERS, batch_size=32)
    data.trainer = trainer()
    data.setup("fit")
    _ = [sets.sha256 for domains in data.sets.values() for sets in domains.values()]
    plan = data.train_dataloader()
    loader = DataLoader(
        Lookup(data.sets["train"]["train"]),  # type: ignore[arg-type]
        sampler=plan.sampler,
        batch_size=32,
        num_workers=WORKERS,
        collate_fn=private,
        multiprocessing_context=context,
    )
    seconds, work, found = 0.0, 0.0, []
    for i, batch in enumerate(loader):
        if not found:
            seconds, work = time.perf_counter() - began, time.process_time() - worked
        found.append(batch)
        if i == BATCHES:
            break
    most = max_of(found)
    print(seconds, work, most["all"] - bare["all"], most["written"] - bare["written"])


def max_of(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: max(one[name] for one in found) for name in found[0]}


def main() -> dict[str, Any]:
    """Measure both tables, each in a process of its own; print a line each, return the numbers."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in (FEW, MILLIONS):
            file = Path(folder) / f"{n}.parquet"
            make_table(file, n)
            for when in ("first start", "next start"):
                command = [sys.executable, "-m", "tests.bench.rows", str(file)]
                environment = {"TMPDIR": folder}
                out = subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.PIPE)
                seconds, work, private, written = map(float, out.stdout.split())
                results[f"{n} {when}"] = {"seconds": seconds, "work": work, "private": private, "written": written}
                print(
                    f"rows: {n:,}, {when}: {seconds:.1f} s (goal {GOAL_S}; {work:.1f} s of the processor), "
                    f"a worker's own memory {private:.0f} MB beyond the imports (goal {GOAL_MB}), "
                    f"of it {written:.0f} MB written"
                )
    return results


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run(Path(sys.argv[1]), "spawn" in sys.argv)
    else:
        main()
