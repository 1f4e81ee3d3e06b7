"""How fast augmented images reach a uint8 batch, one process, one thread: flip, Gaussian blur and JPEG (policy `cnnf`).

Against (a) Pillow and torchvision v2, (b) OpenCV and albumentations, as in the loader of DeepfakeBench; the same sizes,
probabilities and ranges of sigma and quality, written here. From JPEG and PNG files of 256 and 1024 pixels, the larger
ones shrunk to 256. Beside them the limit: the bare decoder, which hands out pixels and does nothing else. At last, what
memory a loader process holds over an epoch.
"""

import tempfile
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

from dfl.data.batch import Samples
from dfl.data.decoding import read_image
from dfl.data.transforms import Transform
from tests.bench.timing import in_turns

BATCH, ROUNDS, SIZE, GOALS = 32, 5, 256, {"PIL+torchvision": 2.0, "OpenCV+albumentations": 1.5}
Load = Callable[[str, int], torch.Tensor]


class Ours(Dataset):
    """Files as `ImageDataset` reads them: into the batch at once."""

    def __init__(self, paths: list[str], policy: str = "cnnf") -> None:
        self.paths, self.view = paths, Transform(augment=policy).train(SIZE)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitems__(self, indices: list[int]) -> torch.Tensor:
        batch = Samples(len(indices), SIZE).image
        for index, place in zip(indices, batch.unbind(), strict=True):
            self.view(read_image(self.paths[index]), None, (0, 0, index), place)
        return batch


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


def albumentations() -> Load:
    chain = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.GaussianBlur(blur_limit=0, sigma_limit=(0.0, 3.0), p=0.5),
            A.ImageCompression(quality_range=(30, 100), p=0.5),
        ]
    )

    def load(path: str, index: int) -> torch.Tensor:
        pixels = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        if pixels.shape[0] != SIZE:
            pixels = cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        return torch.from_numpy(chain(image=pixels)["image"].transpose(2, 0, 1).copy())

    return load


def decoder() -> Load:
    return lambda path, index: torch.from_numpy(read_image(path))


def compare(paths: list[str]) -> dict[str, float]:
    """Return images per second of each way, the median of rounds in turns."""
    ways = {"PIL+torchvision": torchvision(), "OpenCV+albumentations": albumentations()}
    loaders = {name: DataLoader(Files(paths, load), batch_size=BATCH) for name, load in ways.items()}
    loaders["ours"] = DataLoader(Ours(paths), batch_size=BATCH, collate_fn=_same)
    loaders["decoder"] = DataLoader(Files(paths, decoder()), batch_size=BATCH, collate_fn=len)
    seconds = in_turns({name: partial(read, loader) for name, loader in loaders.items()}, ROUNDS)
    return {name: len(paths) / taken for name, taken in seconds.items()}


def _same(batch: torch.Tensor) -> torch.Tensor:
    return batch


def read(loader: DataLoader) -> None:
    for _ in loader:
        pass


def memory(paths: list[str]) -> list[float]:
    """Return the MiB that belong to a loader process alone after each tenth of 40 passes over the files."""
    loader = DataLoader(Ours(paths * 40), batch_size=BATCH, collate_fn=_same, num_workers=1)
    batches = iter(loader)
    worker = batches._workers[0].pid  # type: ignore[attr-defined]
    held = []
    for i, _ in enumerate(batches):
        if i % max(1, len(loader) // 10) == 0:
            lines = Path(f"/proc/{worker}/smaps_rollup").read_text().splitlines()
            own = sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Clean", "Private_Dirty")))
            held.append(own / 1024)
    return held


def main() -> dict[str, Any]:
    """Print a line for each kind of file, and the memory of a loader process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    found: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for side, kind, count in ((256, "jpg", 128), (256, "png", 128), (1024, "jpg", 32), (1024, "png", 32)):
                paths = make_files(Path(folder), side, kind, count)
                rate = compare(paths)
                found[f"{side} {kind}"] = rate
                against = ", ".join(
                    f"{name} {rate[name]:.0f} (ratio {rate['ours'] / rate[name]:.2f}"
                    + (f", goal {goal})" if (side, kind) == (256, "jpg") else ")")
                    for name, goal in GOALS.items()
                )
                limit = f"decoder alone {rate['decoder']:.0f}, we reach {rate['ours'] / rate['decoder']:.0%} of it"
                print(f"loader, cnnf, {side} px {kind}: ours {rate['ours']:.0f} img/s, {against}; {limit}")
            if Path("/proc/self/smaps_rollup").exists():
                found["memory"] = memory(make_files(Path(folder), 256, "jpg", 128))
                held = found["memory"]
                print(f"loader process: {held[1]:.0f} MiB of its own early, {held[-1]:.0f} MiB at the end of the epoch")
    finally:
        torch.set_num_threads(threads)
    return found


if __name__ == "__main__":
    main()
