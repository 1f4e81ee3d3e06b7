"""From decoded pixels to what a network sees: size, crop, augmentation.

Two things are done here by hand, because they matter to forensics and the usual tools get them wrong.

Down-scaling is antialiased. OpenCV's linear resize, which albumentations uses, skips pixels and so writes aliasing into
exactly the high frequencies a detector looks at. All resizing goes through torch's antialiased uint8 kernel.

Randomness is a pure function of a key (seed, epoch, index). The same key gives the same pixels, bit for bit, whatever
the worker, the order or the number of processes. That is what makes a resumed run equal to one without interruption.

The augmentation chain is albumentations, named in the config. It sees a window that is a little larger than the crop
where the image allows, so that its JPEG grid does not always start at the crop's corner.
"""

import random
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Literal

import cv2
import numpy as np
import torch

from dfl.data.augmentation import build
from dfl.data.draws import Draws, Key
from dfl.data.resize import Pair, interpolated
from dfl.errors import UserError, near

cv2.setNumThreads(0)  # parallelism comes from the data workers; OpenCV's own threads only fight with them

_MARGIN = 8  # one JPEG block
#: Further crops that evaluation takes beside the one of the centre: 0 is at the top or left, 1 at the bottom or right.
VIEWS: dict[str, list[tuple[float, float]]] = {
    "centre": [],
    "five": [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)],
    "tiles": [(y, x) for y in (0.0, 0.5, 1.0) for x in (0.0, 0.5, 1.0) if (y, x) != (0.5, 0.5)],
}
Views = Literal["centre", "five", "tiles"]
_LONGEST = 8  # sides longer than this many times the shorter are cut before resizing, or one file could take all memory


class View:
    """What `Transform.train` and `Transform.eval` return: it can be pickled, so data workers may own it."""

    def __init__(self, spec: dict[str, Any], size: int) -> None:
        self.spec, self.size = spec, int(size)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, key: Key
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Image uint8 (H, W, 3), mask uint8 (H, W) or None -> uint8 (3, S, S), float32 (S, S) in [0, 1] or None.

        Where an image has several views it is uint8 (V, 3, S, S), the centre first; the mask is that of the centre.
        """
        raise NotImplementedError

    def extent(self, height: int, width: int) -> tuple[int, int] | None:
        """Return rows and columns that an image takes of its square, from the top left; None if it fills all of it.

        A batch holds them with `resize: pad`, so that losses, metrics and maps leave the padding out.
        """
        return _fitted(height, width, self.size) if self.spec["resize"] == "pad" else None


class Transform:
    """How images become network inputs, in plain words that a config and a checkpoint can hold.

    Args:
        resize: `shorter` brings the shorter side to size / crop_ratio and crops; `squash` brings both sides there,
            ignoring the aspect ratio; `pad` shows the whole image in its own shape: the longer side is brought to size,
            what is left on the right or below is padding, see `View.extent`; `none` never resamples: it crops at
            native scale and pads small images by reflection. Training crops at random, evaluation at the centre.
            `whole` is `none` in training, and leaves images as they are in evaluation, which takes one at a time.
        crop_ratio: share of the resized side that the crop keeps, in (0, 1]. 0.875 turns 256 into 224.
        interpolation: `bilinear`, `bicubic` or `lanczos` (that of PIL, for published recipes), all antialiased; or
            `nearest`, which aliases, as Keras resizes unless told otherwise.
        augment: a policy of `POLICIES`, or a list of albumentations classes: `{name: GaussianBlur, p: 0.5}` or
            `{class_path: GaussianBlur, init_args: {p: 0.5}}`; `transforms` of a `OneOf` is again such a list.
            `RandomResizedCrop`, allowed in the first place only, replaces the resize in training and is antialiased.
        on_device: gone, and so false: the loader augments. It stands here for configs that older versions wrote.
        soft_masks: resize masks bilinearly, antialiased, so that borders stay soft, as SIDA trains; by default the
            nearest pixel decides, which keeps masks of 0 and 1 as they are.

    Raises:
        UserError: an unknown policy, class or argument; arguments that contradict each other.
    """

    #: Arguments that matter in training alone; evaluation depends on the others.
    TRAINING = ("augment", "on_device")

    def __init__(
        self,
        resize: Literal["shorter", "squash", "pad", "none", "whole"] = "shorter",
        crop_ratio: float = 1.0,
        interpolation: Literal["bilinear", "bicubic", "lanczos", "nearest"] = "bilinear",
        augment: str | list[dict[str, Any]] = "flip",
        on_device: bool = False,
        soft_masks: bool = False,
    ) -> None:
        for name, value, choices in (
            ("resize", resize, ["shorter", "squash", "pad", "none", "whole"]),
            ("interpolation", interpolation, ["bilinear", "bicubic", "lanczos", "nearest"]),
        ):
            if value not in choices:
                raise UserError(f"transform: {name} is {value!r}{near(value, choices)}")
        if not 0 < crop_ratio <= 1:
            raise UserError(f"transform: crop_ratio is {crop_ratio}, it must be above 0 and at most 1")
        if resize in ("none", "pad", "whole") and crop_ratio != 1:
            raise UserError(f"transform: crop_ratio has no meaning with resize: {resize}; leave it at 1.0")
        if on_device:
            raise UserError("transform: on_device is gone, take it out: the loader augments, with the same draws")
        self.resize, self.crop_ratio, self.interpolation = resize, float(crop_ratio), interpolation
        self.augment = augment if isinstance(augment, str) else deepcopy(list(augment))
        self.soft_masks = bool(soft_masks)
        chain = build(self.augment)  # here, so that a wrong step is not first met in a data worker
        if resize in ("none", "pad", "whole") and chain.crop is not None:
            why = "shows a part of the image" if resize == "pad" else "resamples"
            raise UserError(f"transform: RandomResizedCrop {why}, which resize: {resize} forbids; take one of the two")

    def train(self, size: int) -> View:
        """Return the random view of `size` x `size`; its randomness is a function of the key alone."""
        return _Train(self.spec(), size)

    def eval(self, size: int, views: Views = "centre") -> View:
        """Return the fixed view of `size` x `size`, or several of them (`VIEWS`); it ignores the key."""
        return _Eval(self.spec(), size, self.checked(views))

    def checked(self, views: Views) -> Views:
        """Return which views evaluation takes.

        Raises:
            UserError: If there is no such word, or no image has anything beside its centre crop.
        """
        if views not in VIEWS:
            raise UserError(f"data.views is {views!r}{near(views, list(VIEWS))}")
        shows_all = self.resize in ("pad", "whole") or (self.resize == "squash" and self.crop_ratio == 1)
        if views != "centre" and shows_all:
            raise UserError(
                f"data.views is {views}, but transform.resize: {self.resize} shows all of an image, so there are no "
                "other views: take views: centre, or resize: shorter or none"
            )
        return views

    def spec(self) -> dict[str, Any]:
        """Return the plain arguments that rebuild this: `Transform(**spec)`."""
        return {
            "resize": self.resize,
            "crop_ratio": self.crop_ratio,
            "interpolation": self.interpolation,
            "augment": deepcopy(self.augment),
            "soft_masks": self.soft_masks,
        }


class _Eval(View):
    """Resize, pad, centre crop; further crops of the same image where they are wanted."""

    def __init__(self, spec: dict[str, Any], size: int, views: Views = "centre") -> None:
        super().__init__(spec, size)
        self.others = VIEWS[views]

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, key: Key = ()
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.spec["resize"] == "whole":
            return _tensors(_check(image, mask))
        pair = _padded(_resized(_check(image, mask), self.spec, self.size, 0.5), self.spec, self.size)
        centre, area = _tensors(_cropped(pair, self.size, 0.5, 0.5))
        if not self.others:
            return centre, area
        others = [_tensors(_cropped((pair[0], None), self.size, *place))[0] for place in self.others]
        return torch.stack([centre, *others]), area


class _Train(View):
    """Resize, window at random, chain, crop inside the window; all draws come from generators keyed by the sample.

    The key holds integers from 0 on. One object is not for several threads at once: the generators are its own.
    """

    def __init__(self, spec: dict[str, Any], size: int) -> None:
        super().__init__(spec, size)
        chain = build(self.spec["augment"])
        self._crop, self._chain = chain.crop, chain.compose
        self._window = self.size + (_MARGIN if chain.needs_margin else 0)
        self._draws = Draws()
        if self._chain is not None:
            self._chain.set_random_state(self._draws.numpy, self._draws.python)

    def __reduce__(self) -> tuple[Any, ...]:  # a copy would separate the generators from those of the chain
        return type(self), (self.spec, self.size)

    def __call__(
        self, image: np.ndarray, mask: np.ndarray | None, key: Key
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        self._draws.seed(key)
        draw = self._draws.python.random
        pair = _check(image, mask)
        if self.spec["resize"] == "pad":  # steps see the image alone: a flip leaves the padding where it is
            pair = _resized(pair, self.spec, self.size, draw())
            return _tensors(_padded(self._augmented(pair), self.spec, self.size))
        if self._crop is None:
            pair = _padded(_resized(pair, self.spec, self.size, draw()), self.spec, self.size)
        else:
            pair = _scaled(pair, self._crop, self._window, self.spec, self._draws.python)
        if self._chain is not None:
            pair = self._augmented(_cropped(pair, self._window, draw(), draw()))
        return _tensors(_cropped(pair, self.size, draw(), draw()))

    def _augmented(self, pair: Pair) -> Pair:
        if self._chain is None:
            return pair
        image, mask = pair
        out = self._chain(image=image) if mask is None else self._chain(image=image, mask=mask)
        new: np.ndarray = out["image"]
        if new.shape != image.shape or new.dtype != np.uint8:
            raise UserError(
                f"transform: augment turned a uint8 image {image.shape} into {new.dtype} {new.shape}; it must keep both"
            )
        return new, out.get("mask")


def _check(image: np.ndarray, mask: np.ndarray | None) -> Pair:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"image is {image.dtype} {image.shape}, not uint8 (H, W, 3)")
    if mask is not None and (mask.dtype != np.uint8 or mask.shape != image.shape[:2]):
        raise ValueError(f"mask is {mask.dtype} {mask.shape}, not uint8 {image.shape[:2]}")
    return image, mask


def _resized(pair: Pair, spec: dict[str, Any], size: int, place: float) -> Pair:
    """Bring the image to the size that the crop is taken from; `place` in [0, 1] says where a very long one is cut."""
    if spec["resize"] in ("none", "whole"):
        return pair
    if spec["resize"] == "pad":
        height, width = pair[0].shape[:2]
        return interpolated(pair, *_fitted(height, width, size), spec["interpolation"], spec["soft_masks"])
    target = max(size, round(size / spec["crop_ratio"]))
    if pair[0].shape[:2] == (target, target):
        return pair
    if spec["resize"] == "squash":
        return interpolated(pair, target, target, spec["interpolation"], spec["soft_masks"])
    height, width = pair[0].shape[:2]
    shorter = min(height, width)
    if max(height, width) > _LONGEST * shorter:
        pair = _box(pair, min(height, _LONGEST * shorter), min(width, _LONGEST * shorter), place, place)
        height, width = pair[0].shape[:2]
    longer = max(target, round(max(height, width) * target / min(height, width)))
    rows, columns = (target, longer) if height <= width else (longer, target)
    return interpolated(pair, rows, columns, spec["interpolation"], spec["soft_masks"])


def _fitted(height: int, width: int, size: int) -> tuple[int, int]:
    """Return the size of an image whose longer side is brought to `size`, rounded half up, as SAM's code does."""
    longer = max(height, width)
    return max(1, int(height * size / longer + 0.5)), max(1, int(width * size / longer + 0.5))


def _scaled(pair: Pair, arguments: Mapping[str, Any], size: int, spec: Mapping[str, Any], draw: random.Random) -> Pair:
    """Take a box of random area and aspect ratio, resized to `size`: torchvision's RandomResizedCrop."""
    height, width = pair[0].shape[:2]
    low, high = arguments.get("scale", (0.08, 1.0))
    thin, wide = np.log(arguments.get("ratio", (3 / 4, 4 / 3)))
    for _ in range(10):
        area, ratio = draw.uniform(low, high) * height * width, np.exp(draw.uniform(thin, wide))
        rows, columns = round((area / ratio) ** 0.5), round((area * ratio) ** 0.5)
        if 0 < rows <= height and 0 < columns <= width:
            break
    else:  # no box of such a shape fits, as in a very long image: the largest square does
        rows = columns = min(height, width)
    box = _box(pair, rows, columns, draw.random(), draw.random())
    return interpolated(box, size, size, spec["interpolation"], spec["soft_masks"])


def _padded(pair: Pair, spec: Mapping[str, Any], size: int) -> Pair:
    """Fill up what is smaller than `size`: by reflection on all sides, with `pad` by zeros on the right and below."""
    height, width = pair[0].shape[:2]
    rows, columns = max(0, size - height), max(0, size - width)
    if not rows and not columns:
        return pair
    border = (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2, cv2.BORDER_REFLECT_101)
    if spec["resize"] == "pad":
        border = (0, rows, 0, columns, cv2.BORDER_CONSTANT)
    image, mask = pair
    return cv2.copyMakeBorder(image, *border), None if mask is None else cv2.copyMakeBorder(mask, *border)


def _cropped(pair: Pair, size: int, down: float, right: float) -> Pair:
    height, width = pair[0].shape[:2]
    return _box(pair, min(size, height), min(size, width), down, right)


def _box(pair: Pair, rows: int, columns: int, down: float, right: float) -> Pair:
    """Cut rows x columns; `down` and `right` in [0, 1] say where: 0.5 is the centre, uniform draws are uniform."""
    image, mask = pair
    height, width = image.shape[:2]
    if (rows, columns) == (height, width):
        return pair
    top = min(int(down * (height - rows + 1)), height - rows)
    left = min(int(right * (width - columns + 1)), width - columns)
    box = np.s_[top : top + rows, left : left + columns]
    return image[box], None if mask is None else mask[box]


def _tensors(pair: Pair) -> tuple[torch.Tensor, torch.Tensor | None]:
    image, mask = pair
    pixels = torch.empty((3, *image.shape[:2]), dtype=torch.uint8)
    cv2.split(image, list(pixels.numpy()))  # three times as fast as numpy's copy
    if mask is None:
        return pixels, None
    return pixels, torch.from_numpy(np.ascontiguousarray(mask)).float().div_(255)
