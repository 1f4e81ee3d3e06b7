"""Images that an export is tried on: of the run's validation, named by the user, or drawn from a seed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfl.cli.checkpoints import Trained, data_module
from dfl.data import DataModule
from dfl.data.batch import collate
from dfl.data.sources.paths import Paths
from dfl.data.toy import faces, generators
from dfl.data.transforms import Transform
from dfl.errors import UserError

#: Images that a parity test takes, those that are drawn for it, their side in pixels, and images of a batch.
FEW, DRAWN, SIDE, BATCH = 32, 8, 160, 5


class Images(NamedTuple):
    """Images as a network gets them.

    Attributes:
        pixels: (n, 3, S, S) uint8.
        label: (n,) long, 0 real, 1 fake, -1 unknown.
        what: Where they are from, in words.
    """

    pixels: Tensor
    label: Tensor
    what: str


def few(trained: Trained, size: int, paths: Sequence[str] | None = None) -> Images:
    """Return a few images: those of paths, else of the run's validation, else drawn ones.

    Args:
        trained: Of the checkpoint, whose transform is taken.
        size: Side of the images in pixels.
        paths: Images, folders, lists.

    Raises:
        UserError: If paths name no image, or none that can be read.
    """
    if paths:
        module = DataModule(predict={"images": Paths(list(paths))}, transform=transform_of(trained))
        return _first(module, "predict", size, FEW, f"images of {', '.join(paths)}")
    if trained.run.get("data"):
        return validation(trained, size, FEW)
    view = transform_of(trained).eval(size)
    pixels = torch.stack([view(_drawn(i), None, (0,))[0] for i in range(DRAWN)])
    return Images(pixels, torch.full((DRAWN,), -1), f"{DRAWN} drawn faces")


def validation(trained: Trained, size: int, n: int | None = None) -> Images:
    """Return images of the run's validation, all of them or n, evenly spread.

    Raises:
        UserError: If the run's settings are not known here, or the images not there.
    """
    if not trained.run.get("data"):
        raise UserError(
            f"{trained.path} is of no run of yours under --root, so its validation images are not known: there is "
            "nothing to measure int8 on; leave --int8 out"
        )
    settings = trained.run["data"]
    settings = settings | {"init_args": {**settings.get("init_args", {}), "views": "centre", "on_bad": "skip"}}
    module = data_module(settings)
    module.prepare_data()
    return _first(module, "val", size, n, "images of the run's validation")


def transform_of(trained: Trained) -> Transform:
    """Return how images are brought to the detector's size, as the checkpoint says, or as usual."""
    return Transform(**{**(trained.transform or {}), "augment": "none"})


def batches(images: Tensor) -> Iterator[Tensor]:
    """Yield images (n, ...) in batches of another size each time: 1, `BATCH`, and what is left."""
    yield from images[:1].split(1)
    yield from images[1:].split(BATCH)


def _first(module: DataModule, split: str, size: int, n: int | None, what: str) -> Images:
    """Return n images of a split, evenly spread over its sets, or all; unreadable ones are left out."""
    module.size = size
    sets = module.datasets(split).values()
    every = [(data, row) for data in sets for row in range(len(data))]
    chosen = every if n is None else [every[i] for i in np.linspace(0, len(every) - 1, min(n, len(every))).astype(int)]
    batch = collate([data[row] for data, row in chosen])
    kept = batch["index"] >= 0
    if not kept.any():
        raise UserError(f"none of the {what} can be read: {batch['bad'][0][0]}: {batch['bad'][0][1]}")
    return Images(batch["image"][kept], batch["label"][kept], f"{int(kept.sum())} {what}")


def _drawn(number: int) -> np.ndarray:
    """Return a drawn photo of a face, uint8 (SIDE, SIDE, 3), a function of its number."""
    rng = np.random.default_rng([0, number])
    person, pose = faces.make_person(rng, *faces.GROUPS[number % len(faces.GROUPS)]), faces.make_pose(rng)
    photo = generators.photograph(faces.draw(person, pose, rng, SIDE), generators.CAMERAS["first"], rng)
    return np.clip(photo * 255 + 0.5, 0, 255).astype(np.uint8)
