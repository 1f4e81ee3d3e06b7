"""What do probes cost on 100,000 features that are in the store?

Each runs in a process of its own on one thread. Seconds are those of the processor, so that other load hardly counts;
memory is the peak of the process beyond what it had when torch was imported.
"""

import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from dfl.detectors.fitted import Collected, LogisticHead
from dfl.detectors.probes.neighbour import Neighbours
from dfl.features import FeatureStore

N, D, QUERIES = 100_000, 512, 10_000


def features(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features of two overlapping classes (n, D), and labels."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(0, 2, (n,), generator=generator)
    x = torch.randn(n, D, generator=generator)
    x[:, :64] += 0.15 * label[:, None]
    return x, label


def fit_logistic() -> None:
    """As a fit collects them, batch by batch."""
    rows = Collected()
    index = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    for part in range(0, N, 500):
        x, label = features(500, part)
        rows.add(index[part : part + 500], label, x)
    LogisticHead(D).fit(*rows.compute(torch.device("cpu")))


def search(k: int, faiss: bool = False) -> None:
    """Score 10,000 images against 100,000."""
    head = Neighbours(D, k, faiss=faiss)
    head.fit(*features(N))
    head(features(QUERIES, 1)[0])


def store(read: bool, folder: str) -> None:
    """Keep, or read, the features of 10,000 small images."""
    kept = FeatureStore(folder, dict)
    for part in range(0, QUERIES, 100):
        image = torch.randint(0, 256, (100, 3, 32, 32), generator=torch.Generator().manual_seed(part)).float().div_(255)
        kept(image, lambda unseen: [torch.zeros(len(unseen), D)])
    kept.flush()


def measured(work: Callable[..., None], words: tuple[object, ...], queue: Any) -> None:
    """Put seconds and megabytes of a call into a queue."""
    torch.set_num_threads(1)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    work(*words)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    queue.put((time.process_time() - start, peak / 1024))


def main() -> None:
    """Print seconds and memory of each, with what they must stay below."""
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        works: dict[str, tuple[Callable[..., None], tuple[object, ...]]] = {
            f"LinearProbe, {N:,} x {D}, collected and fitted (goal 30 s, 2,000 MB)": (fit_logistic, ()),
            f"NearestNeighbour, {QUERIES:,} against {N:,}, k = 1 (goal 60 s of two cores)": (search, (1,)),
            "the same, k = 9": (search, (9,)),
            "the same, k = 9, FAISS": (search, (9, True)),
            f"store, {QUERIES:,} vectors kept": (store, (False, str(Path(folder, "kept")))),
            f"store, {QUERIES:,} vectors read": (store, (True, str(Path(folder, "kept")))),
        }
        for name, (work, words) in works.items():
            queue = spawn.Queue()
            process = spawn.Process(target=measured, args=(work, words, queue))
            process.start()
            seconds, megabytes = queue.get()
            process.join()
            print(f"{name}: {seconds:.1f} s, {megabytes:,.0f} MB")


if __name__ == "__main__":
    main()
