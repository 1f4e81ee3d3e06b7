"""What a batch is: the one meeting place of data and detectors.

Every key but ``extent`` is always there, so that batches collate and detectors need no checks. Absent is -1 or ''.
(``bad`` is taken out on the way to the detector.)
"""

from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from dfl.errors import UserError


class Batch(TypedDict, total=False):
    """N images and their labels, groups and texts."""

    image: Tensor  # (N, 3, H, W) uint8 from the loader; on the device it becomes float32 in [0, 1]
    label: Tensor  # (N,) long, 0 real, 1 fake, -1 unknown
    index: Tensor  # (N,) long, row in its data set; -1 marks padding, which metrics leave out
    path: list[str]
    mask: Tensor  # (N, H, W) float32 in [0, 1], 1 = manipulated; zeros where there is none
    has_mask: Tensor  # (N,) bool
    class_label: Tensor  # (N,) long, 0 real, 1 synthetic, 2 tampered
    generator: Tensor  # (N,) long, ids of DataModule.vocab; 0 = real
    family: Tensor  # (N,) long
    group: Tensor  # (N,) long
    video: Tensor  # (N,) long
    identity: Tensor  # (N,) long
    caption: list[str]
    explanation: list[str]
    weight: Tensor  # (N,) float32, weight of the sample's class in the loss; 1 unless balance="weights"
    extent: Tensor  # (N, 2) long, rows and columns from the top left that are no padding; only with resize: pad
    bad: list[tuple[str, str]]  # path and reason of images that could not be read; taken out before the detector


class Unreadable(dict[str, Any]):
    """The row of an image that could not be read: black pixels, index -1, and the reason under ``bad``."""


class Samples(list[dict[str, Any]]):
    """The rows of a batch; their images lie in one tensor ``image``, uint8 (N, 3, H, W), from the start.

    A tensor for each image and a stack of them would write every pixel twice, and the first time to new memory.
    """

    def __init__(self, n: int, size: int) -> None:
        super().__init__()
        if get_worker_info() is None:
            self.image = torch.from_numpy(np.empty((n, 3, size, size), np.uint8))  # asks for huge pages
        else:  # in memory that the main process can map, as default_collate does it
            storage = torch.UntypedStorage._new_shared(n * 3 * size * size, device="cpu")
            self.image = torch.empty(0, dtype=torch.uint8).set_(storage).view(n, 3, size, size)


def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack rows to a batch; leave out unreadable ones, unless nothing else is there (evaluation pads with one).

    Raises:
        UserError: If no image of a training batch can be read.
    """
    good = [row for row in rows if not isinstance(row, Unreadable)]
    bad = [item for row in rows for item in row["bad"]]
    if not good:
        if rows[0]["training"]:
            raise UserError(f"no image of a training batch can be read, the first one {bad[0][0]}: {bad[0][1]}")
        good = rows[:1]
    apart = ("bad", "training", "image")
    batch = default_collate([{k: v for k, v in row.items() if k not in apart} for row in good])
    if isinstance(rows, Samples) and len(good) == len(rows):
        image = rows.image
    else:
        image = default_collate([row["image"] for row in good])
    return batch | {"bad": bad, "image": image}
