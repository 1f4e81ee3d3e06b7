"""How fast augmented images reach a uint8 batch, one process, one thread: flip, Gaussian blur and JPEG (policy `cnnf`).

Against Pillow and torchvision v2; OpenCV and albumentations; and OpenCV and albumentations as DeepfakeBench's loader
has them, with its resize of what has the size already and its round trip through Pillow. The sizes, probabilities and
ranges of sigma and quality are the same, written here. From JPEG files of 256 pixels. Beside them the bare decoder.
Timed in turns by the processor time of one thread.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

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


def ours() -> Load:
    view = Transform(augment="cnnf").train(SIZE)
    return lambda path, index: view(read_image(path), None, (0, 0, index))[0]


def decoder() -> Load:
    return lambda path, index: torch.from_numpy(read_image(path))


def compare(paths: list[str]) -> dict[str, float]:
    """Return images per second of each way, the median of rounds in turns."""
    ways = {
        "ours": ours(),
        "PIL+torchvision": torchvision(),
        "OpenCV+albumentations": albumentations(),
        "as DeepfakeBench": albumentations(detours=True),
    }
    loaders = {name: DataLoader(Files(paths, load), batch_size=BATCH) for name, load in ways.items()}
    loaders["decoder"] = DataLoader(Files(paths, decoder()), batch_size=BATCH, collate_fn=len)
    whole = {name: partial(read, loader) for name, loader in loaders.items()}
    seconds = in_turns(whole, ROUNDS, clock=time.process_time)
    return {name: len(paths) / taken for name, taken in seconds.items()}


def read(loader: DataLoader) -> None:
    for _ in loader:
        pass


def main() -> dict[str, float]:
    """Print images per second and ratios; return the rates."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rate = compare(make_files(Path(folder), SIZE, "jpg", 128))
    finally:
        torch.set_num_threads(threads)
    print(f"loader, cnnf, {SIZE} px JPEG: ours {rate['ours']:.0f} img/s; the decoder alone {rate['decoder']:.0f}")
    for other, goal in GOALS.items():
        print(f"  {other} {rate[other]:.0f} img/s, ratio {rate['ours'] / rate[other]:.2f} (goal {goal})")
    return rate


if __name__ == "__main__":
    main()
