"""How fast a packed set is: images/s from 256 px shards to a uint8 batch, against its 1024 px JPEG files.

One process, one thread, the same rows, the same view (crop 224 of 256 at random, flip), and through the lossless
encodings the same pixels. Both sides are read as training reads them: `ImageDataset` and a `DataLoader`, rows in a
random order. Beside each stands what its decoder alone gives from bytes in memory: no loader can be faster.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dfl.data.batch import collate
from dfl.data.dataset import ImageDataset
from dfl.data.decoding import read_image
from dfl.data.locators import read_bytes
from dfl.data.sources import Folder, Packed
from dfl.data.sources.base import Source
from dfl.data.transforms import Transform
from dfl.tools.pack import pack
from tests.bench.timing import in_turns

FILES, SIDE, SIZE, BATCH, GOAL = 96, 1024, 224, 32, 3.0
ENCODINGS = ("png", "jpeg", "raw")


def make_files(folder: Path) -> None:
    """Noise with a 1/f spectrum, as in `loader`, smooth at the pixel as camera photos are: 4:2:0, quality 90."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None]).clip(1 / SIDE)
    falloff = np.exp(-((frequency / 0.25) ** 2)) / frequency
    for i in range(FILES):
        if i % 8 == 0:  # the transforms are slow; turned pictures cost as much to decode
            waves = np.fft.ifft2(np.fft.fft2(rng.standard_normal((3, SIDE, SIDE))) * falloff).real
            pixels = (128 + 50 * waves / waves.std()).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
        file = folder / ("fake" if i % 2 else "real") / f"{i}.jpg"
        file.parent.mkdir(exist_ok=True)
        turned = np.rot90(pixels, i % 4)[:, :: 1 if i % 8 < 4 else -1]
        Image.fromarray(np.ascontiguousarray(turned)).save(file, quality=90, subsampling="4:2:0")


def epoch(source: Source) -> Callable[[], None]:
    """Return one pass over a source, as training makes it."""
    view = Transform(crop_ratio=SIZE / 256).train(SIZE)
    data = ImageDataset(source.load("train"), view, SIZE, {}, training=True)
    order = [(int(row), 0) for row in np.random.default_rng(0).permutation(len(data))]

    def run() -> None:
        for _ in DataLoader(data, batch_size=BATCH, sampler=order, collate_fn=collate):
            pass

    return run


def decoder(source: Source) -> Callable[[], None]:
    """Return the decoding of all images of a source, from memory."""
    contents = [read_bytes(path) for path in source.load("train")["path"].to_pylist()]

    def run() -> None:
        for content in contents:
            read_image(content)

    return run


def main() -> dict[str, float]:
    """Print a line for each encoding; return how many times the speed of the files each has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "files").mkdir()
            make_files(root / "files")
            sources: dict[str, Source] = {"files": Folder(str(root / "files"))}
            sizes = {"files": sum(f.stat().st_size for f in (root / "files").rglob("*.jpg"))}
            for encoding in ENCODINGS:
                with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
                    made = pack([str(root / "files")], str(root / encoding), encoding=encoding, progress=False)
                sources[encoding] = Packed(str(made))
                sizes[encoding] = sum(f.stat().st_size for f in made.glob("*.arrow"))
            ways = {name: epoch(source) for name, source in sources.items()}
            ways |= {f"{name} decoder": decoder(source) for name, source in sources.items()}
            rate = {name: FILES / seconds for name, seconds in in_turns(ways, clock=time.process_time).items()}
    finally:
        torch.set_num_threads(threads)
    for name in sources:
        what = f"files, {SIDE} px JPEG" if name == "files" else f"256 px {name}"
        ratio = "" if name == "files" else f", ratio {rate[name] / rate['files']:.1f} (goal {GOAL:g})"
        print(
            f"packed: {what}: {rate[name]:.0f} img/s{ratio}; the decoder alone {rate[f'{name} decoder']:.0f} img/s; "
            f"{sizes[name] / FILES / 1e3:.0f} kB an image"
        )
    return {name: rate[name] / rate["files"] for name in ENCODINGS}


if __name__ == "__main__":
    main()
