"""What a batch is: the one meeting place of data and detectors.

Every key but those of evaluation alone is always there, so that batches collate and detectors need no
checks. Absent is -1 or ''. (``bad`` is taken out on the way to the detector.)
"""

from typing import Any, TypedDict

from torch import Tensor
from torch.utils.data import default_collate

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
    views: Tensor  # (N, V - 1, 3, H, W) uint8, further views of the images; only in evaluation with data.views
    extent: Tensor  # (N, 2) long, rows and columns from the top left that are no padding; only with resize: pad
    appearance: Tensor  # (N, 3) float32, `dfl.data.appearance`; only in predict, of a detector that knows what is usual
    beside: dict[str, list[str]]  # what the images' files say, by column; only in predict, where it is asked for
    bad: list[tuple[str, str]]  # path and reason of images that could not be read; taken out before the detector


class Unreadable(dict[str, Any]):
    """The row of an image that could not be read: black pixels, index -1, and the reason under ``bad``."""


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
    batch = default_collate([{k: v for k, v in row.items() if k not in ("bad", "training")} for row in good])
    return batch | {"bad": bad}
