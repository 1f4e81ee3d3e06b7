"""How fast `dfl serve` answers 32 clients at once, against `predict` on the same files: goal 0.8 of its images/s.

Both see 256 px JPEG files and the same network, on the same device with all its threads; `predict` reads them from disk
with two loader processes, in batches of 32. The server is a process of its own, asked over loopback by threads of this
one, each of which sends its next image when it has the answer to the last: clients and HTTP take their time from the
same cores, which they would not where clients are elsewhere. After a warm-up they are timed in turns. Beside the rates
stands the processor time that an image takes of the server and of `predict` with its loaders, which other work on the
machine hardly changes.
"""

import multiprocessing
import os
import re
import signal
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from dfl.data import DataModule
from dfl.data.sources import Paths
from dfl.data.transforms import Transform
from dfl.detectors import Classifier
from dfl.orphans import end_with
from tests.bench.augmented import make_files

NETWORKS = ("resnet50", "mobilenetv2_100")
FILES, CLIENTS, ROUNDS, GOAL = 256, 32, 3, 0.8


def detector(network: str) -> Classifier:
    pl.seed_everything(0, verbose=False)
    return Classifier(backbone=network, pretrained=False)


def answer(network: str, listener: socket.socket, ready: Any) -> None:
    """Be the server, as the worker of `dfl serve` is."""
    import uvicorn

    from dfl.sharing.serve.app import create
    from dfl.sharing.serve.scorer import Scorer
    from dfl.sharing.serve.settings import Settings

    end_with(os.getppid(), signal.SIGKILL)
    app = create(Scorer(detector(network), Transform()), Settings(rate=0), ready.set)
    uvicorn.Server(uvicorn.Config(app, lifespan="on", ws="none", log_level="warning")).run(sockets=[listener])


@contextmanager
def served(network: str) -> Iterator[int]:
    """Yield the port of a server."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        process = context.Process(target=answer, args=(network, listener, ready))
        process.start()
        try:
            while not ready.wait(1):
                assert process.is_alive(), "the server ended before it was ready"
            yield listener.getsockname()[1]
        finally:
            process.terminate()
            process.join()


def ask(port: int, images: list[bytes]) -> list[float]:
    """Send all images from 32 clients; return the seconds that each took."""
    left, seconds = iter(images), []

    def client() -> None:
        connection = HTTPConnection("127.0.0.1", port)
        for image in left:  # each takes the next one: a list's iterator is safe among threads
            begun = time.perf_counter()
            connection.request("POST", "/score", image)
            reply = connection.getresponse()
            assert reply.status == 200, reply.read()
            reply.read()
            seconds.append(time.perf_counter() - begun)
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seconds


def at_work(port: int) -> float:
    """Return the seconds of processor time that a server has had, as it says itself."""
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    (line,) = re.findall(rb"^process_cpu_seconds_total (.*)$", connection.getresponse().read(), re.M)
    return float(line)


def offline(network: Classifier, paths: list[str]) -> float:
    """Score all files as `predict` does; return the seconds of processor time, those of the loader processes too."""
    before = os.times()
    off: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(devices=1, enable_model_summary=False, use_distributed_sampler=False, **off)
    trainer.predict(network, DataModule(predict={"images": Paths(paths)}, batch_size=32), return_predictions=False)
    return sum(os.times()[:4]) - sum(before[:4])


def compare(network: str, paths: list[str]) -> dict[str, float]:
    """Time both in turns; return images/s and their ratio, and in ms percentiles of the time to an answer and
    processor time of an image."""
    images, own = [Path(path).read_bytes() for path in paths], detector(network)
    rates: list[tuple[float, float]] = []
    work: list[tuple[float, float]] = []
    waits: list[float] = []
    with served(network) as port:
        ask(port, images[:64])
        offline(own, paths[:64])
        for _ in range(ROUNDS):
            before, begun = at_work(port), time.perf_counter()
            waits += ask(port, images)
            middle, after = time.perf_counter(), at_work(port)
            work.append((1000 * (after - before) / FILES, 1000 * offline(own, paths) / FILES))
            rates.append((FILES / (middle - begun), FILES / (time.perf_counter() - middle)))
    served_rate, offline_rate, served_work, offline_work = (
        statistics.median(column) for pairs in (rates, work) for column in zip(*pairs, strict=True)
    )
    p50, p99 = (1000 * float(np.percentile(waits, share)) for share in (50, 99))
    ratio = statistics.median(a / b for a, b in rates)
    found = {"served": served_rate, "offline": offline_rate, "ratio": ratio, "p50": p50, "p99": p99}
    return found | {"served_work": served_work, "offline_work": offline_work}


def main() -> dict[str, dict[str, float]]:
    """Print a line for each network, return the numbers."""
    device = "GPU" if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    with tempfile.TemporaryDirectory() as folder:
        paths = make_files(Path(folder), 256, "jpg", FILES)
        results = {network: compare(network, paths) for network in NETWORKS}
    for network, found in results.items():
        print(
            f"serve, {network}, {CLIENTS} clients, {device}: {found['served']:.1f} img/s, predict "
            f"{found['offline']:.1f}, ratio {found['ratio']:.2f} (goal {GOAL}); p50 {found['p50']:.0f} ms, p99 "
            f"{found['p99']:.0f} ms; processor time of an image {found['served_work']:.1f} against "
            f"{found['offline_work']:.1f} ms"
        )
    return results


if __name__ == "__main__":
    main()
