"""How fast images reach a batch: this project's path against Pillow and torchvision, one process, one thread.

Both read the same 256-pixel JPEG files from disk through a DataLoader, resize to 224 or crop 224 at random, and flip.
The other side decodes with Pillow and ends, as is usual there, in a normalised float batch. Ours ends in the uint8
batch that the detector normalises on its device; what that costs on the same core is printed too, so that no work is
only moved. The two are timed in turns, and the ratio is the median over the rounds.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from dfl.data.decoding import read_image
from dfl.data.transforms import Transform
from tests.bench.augmented import Files, Load, make_files

FILES, BATCH, ROUNDS, SIZE, GOAL = 256, 64, 7, 224, 1.5
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def ours(resize: str) -> Load:
    view = Transform(resize="none" if resize == "crop" else "squash").train(SIZE)
    return lambda path, index: view(read_image(path), None, (0, 0, index))[0]


def theirs(resize: str) -> Load:
    first = v2.RandomCrop(SIZE) if resize == "crop" else v2.Resize((SIZE, SIZE))
    last = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    view = v2.Compose([first, v2.RandomHorizontalFlip(), *last])
    return lambda path, index: view(Image.open(path).convert("RGB"))


def images_per_second(loader: DataLoader) -> float:
    start = time.perf_counter()
    for _ in loader:
        pass
    return FILES / (time.perf_counter() - start)


def compare(paths: list[str], resize: str) -> dict[str, Any]:
    """Time both in turns; return images per second and the ratio, each the median over the rounds."""
    loaders = [DataLoader(Files(paths, make(resize)), batch_size=BATCH) for make in (ours, theirs)]
    for loader in loaders:
        images_per_second(loader)
    rounds = [[images_per_second(loader) for loader in loaders] for _ in range(ROUNDS)]
    mine, other = (statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    return {"ours": mine, "theirs": other, "ratio": ratio, "normalise": normalise_per_second()}


def normalise_per_second() -> float:
    """What the detector does later, here on the CPU."""
    batch = torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.uint8)
    mean, std = (255 * torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        batch.to(torch.float32).sub_(mean).div_(std)
        seconds.append(time.perf_counter() - start)
    return BATCH / statistics.median(seconds)


def main() -> dict[str, Any]:
    """Run both comparisons, print a line each, return their numbers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            paths = make_files(Path(folder), 256, "jpg", FILES)
            results = {name: compare(paths, name) for name in ("resize", "crop")}
    finally:
        torch.set_num_threads(threads)
    for name, found in results.items():
        label = "loader" if name == "resize" else "loader, crop"
        print(
            f"{label}: ours {found['ours']:.0f} img/s, PIL+torchvision {found['theirs']:.0f} img/s, "
            f"ratio {found['ratio']:.2f} (goal {GOAL})"
        )
        both = 1 / (1 / found["ours"] + 1 / found["normalise"])
        print(f"{label}: with our normalisation also on this core {both:.0f} img/s, ratio {both / found['theirs']:.2f}")
    return results


if __name__ == "__main__":
    main()
