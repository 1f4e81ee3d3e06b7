"""How fast augmented images reach a uint8 batch, one process, one thread: flip, Gaussian blur and JPEG (policy `cnnf`).

Against Pillow and torchvision v2; OpenCV and albumentations; and OpenCV and albumentations as DeepfakeBench's loader
has them, with its resize of what has the size already and its round trip through Pillow. The sizes, probabilities and
ranges of sigma and quality are the same, written here. From JPEG and PNG files of 256 and 1024 pixels, the larger
ones shrunk to 256, or from JPEG files of the user's (`python -m tests.bench.augmented FOLDER`). Beside them the
bare decoder. Timed in turns by the processor time of one thread. At last, what memory a loader process holds over an
epoch.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from dfl.data.decoding import read_image
from dfl.data.transforms import Transform
from tests.bench.timing import in_turns

BATCH, ROUNDS, SIZE = 32, 9, 256
GOALS = {"PIL+torchvision": 2.0, "OpenCV+albumentations": 1.5, "as DeepfakeBench": 1.5}
Load = Callable[[str, int], torch.Tensor]


class Ours(Dataset):
    """Files as `ImageDataset` reads them."""

    def __init__(self, paths: list[str], policy: str = "cnnf") -> None:
        self.paths, self.view = paths, Transform(augment=policy).train(SIZE)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.view(read_image(self.paths[index]), None, (0, 0, index))[0]


class Files(Dataset):
    """Files through one function of (path, index)."""

    def __init__(self, paths: list[str], load: Load) -> None:
        self.paths, self.load = paths, load

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.load(self.paths[index], index)


def make_files(folder: Path, side: int, kind: str, count: int) -> list[str]:
    """Noise with a 1/f spectrum, which compresses about as photos do."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]).clip(1 / side)
    paths = []
    for index in range(count):
        waves = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, side, side))) / frequency).real
        pixels = (128 + 50 * waves / waves.std()).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        paths.append(str(folder / f"{side}_{index}.{kind}"))
        Image.fromarray(pixels).save(paths[-1], **({"quality": 90} if kind == "jpg" else {}))
    return paths


def torchvision() -> Load:
    view = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(SIZE, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.GaussianBlur(25, (0.01, 3.0))], 0.5),
            v2.RandomApply([v2.JPEG((30, 100))], 0.5),
        ]
    )
    return lambda path, index: view(Image.open(path).convert("RGB"))


def albumentations(detours: bool = False) -> Load:
    chain = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.0, 3.0), p=0.5),
            A.ImageCompression(quality_range=(30, 100), p=0.5),
        ]
    )

    def load(path: str, index: int) -> torch.Tensor:
        pixels = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        if detours or pixels.shape[0] != SIZE:
            pixels = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        if detours:
            pixels = np.array(Image.fromarray(np.array(pixels, dtype=np.uint8)))
        return torch.from_numpy(chain(image=pixels)["image"].transpose(2, 0, 1).copy())

    return load


def decoder() -> Load:
    return lambda path, index: torch.from_numpy(read_image(path))


def compare(paths: list[str]) -> dict[str, float]:
    """Return images per second of each way, the median of rounds in turns."""
    ways = {
        "PIL+torchvision": torchvision(),
        "OpenCV+albumentations": albumentations(),
        "as DeepfakeBench": albumentations(detours=True),
    }
    loaders = {name: DataLoader(Files(paths, load), batch_size=BATCH) for name, load in ways.items()}
    loaders["ours"] = DataLoader(Ours(paths), batch_size=BATCH)
    loaders["decoder"] = DataLoader(Files(paths, decoder()), batch_size=BATCH, collate_fn=len)
    whole = {name: partial(read, loader) for name, loader in loaders.items()}
    seconds = in_turns(whole, ROUNDS, clock=time.process_time)
    return {name: len(paths) / taken for name, taken in seconds.items()}


def read(loader: DataLoader) -> None:
    for _ in loader:
        pass


def memory(paths: list[str]) -> list[float]:
    """Return the MiB that belong to a loader process alone after each tenth of 40 passes over the files."""
    loader = DataLoader(Ours(paths * 40), batch_size=BATCH, num_workers=1)
    batches = iter(loader)
    worker = batches._workers[0].pid  # type: ignore[attr-defined]
    held = []
    for i, _ in enumerate(batches):
        if i % max(1, len(loader) // 10) == 0:
            lines = Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
            own = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
            held.append(own / 1024)
    return held


def report(name: str, rate: dict[str, float], goals: bool) -> None:
    """Print what ``compare`` found."""
    print(f"loader, cnnf, {name}: ours {rate['ours']:.0f} img/s; the decoder alone {rate['decoder']:.0f}")
    for other, goal in GOALS.items():
        aim = f" (goal {goal})" if goals else ""
        print(f"  {other} {rate[other]:.0f} img/s, ratio {rate['ours'] / rate[other]:.2f}{aim}")


def main(folder: str | None = None) -> dict[str, Any]:
    """Print lines for each kind of file, and the memory of a loader process; or for the JPEG files of a folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    found: dict[str, Any] = {}
    try:
        if folder:
            paths = sorted(str(file) for file in Path(folder).rglob("*.jpg"))
            paths = paths[:: max(1, len(paths) // 128)][:128]
            found[f"{len(paths)} jpg files of {folder}"] = rate = compare(paths)
            report(f"{len(paths)} jpg files of {folder}", rate, goals=False)
            return found
        with tempfile.TemporaryDirectory() as temporary:
            for side, kind, count in ((256, "jpg", 128), (256, "png", 128), (1024, "jpg", 32), (1024, "png", 32)):
                rate = compare(make_files(Path(temporary), side, kind, count))
                found[f"{side} {kind}"] = rate
                report(f"{side} px {kind}", rate, goals=(side, kind) == (256, "jpg"))
            if Path("/proc/self/smaps_rollup").exists():
                found["memory"] = memory(make_files(Path(temporary), 256, "jpg", 128))
                held = found["memory"]
                print(f"loader process: {held[1]:.0f} MiB of its own early, {held[-1]:.0f} MiB at the end of the epoch")
    finally:
        torch.set_num_threads(threads)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
