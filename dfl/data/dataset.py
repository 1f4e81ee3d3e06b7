"""Rows of a source as samples: decode, transform, and add labels, groups and texts."""

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dfl.data.appearance import FACTS, LOOKED_AT, Usual, appearance
from dfl.data.batch import Unreadable
from dfl.data.decoding import DecodeError
from dfl.data.degrading import degraded
from dfl.data.locators import load_image
from dfl.data.masks import load_mask
from dfl.data.rows import Rows
from dfl.data.transforms import Transform
from dfl.errors import UserError

#: What happens when an image cannot be read.
Policy = Literal["raise", "skip", "substitute"]
#: Columns that a batch carries as integers, with the names behind them in a vocabulary.
NAMED = ("generator", "family", "group", "video", "identity")
Vocab = dict[str, dict[str, int]]
View = Callable[[np.ndarray, np.ndarray | None, tuple[int, ...]], tuple[Tensor, Tensor | None]]


class ImageDataset(Dataset[dict[str, Any]]):
    """Samples of one domain.

    A sample is asked for by its row, or by ``(row, epoch)``: the randomness of its augmentation is a function of
    (seed, epoch, row) alone, so it does not depend on workers, ranks, or on where a run was resumed. A negative
    row ``-1 - i`` gives sample ``i`` as padding (index -1).

    Args:
        table: Rows of a source (``ROW_SCHEMA``), or these as a memory-mapped file.
        view: Makes the image and mask that a batch holds from the decoded ones (``Transform.train`` or ``.eval``); of
            several views of an image the first is ``image``, the others are ``views``.
        size: Side of the square image that ``view`` gives, in pixels.
        vocab: Ids by column and name.
        training: Whether the samples are trained on.
        on_bad: What to do with an unreadable image: raise, skip (its row is left out), or substitute another
            readable image of the same class, drawn by (seed, epoch, row).
        seed: Seed of the augmentation.
        max_pixels: Images with more pixels than this are refused before they are decoded.
        class_weight: Weight of real and fake samples in the loss.
    """

    def __init__(
        self,
        table: pa.Table | Rows,
        view: View,
        size: int,
        vocab: Vocab,
        training: bool = False,
        on_bad: Policy = "raise",
        seed: int = 0,
        max_pixels: int = 64_000_000,
        class_weight: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.rows = table if isinstance(table, Rows) else Rows.of(table)
        self.view, self.size, self.training = view, size, training
        self.on_bad, self.seed, self.max_pixels, self.class_weight = on_bad, seed, max_pixels, class_weight
        self._no_mask = torch.zeros(()).expand(size, size)  # zeros by broadcasting, so no time to make
        self.encode(vocab)
        #: Whether samples have `dfl.data.appearance.appearance`.
        self.with_appearance = False
        #: What else a sample says of the file, by column, such as `dfl.data.metadata.metadata`.
        self.beside: Callable[[str], dict[str, str]] | None = None
        #: Path and reason of each image that could not be read so far; filled by the DataModule.
        self.bad: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def table(self) -> pa.Table:
        """All columns of the rows, memory-mapped."""
        return self.rows.table

    @property
    def label(self) -> np.ndarray:
        """int8 (n,), a view of the memory-mapped file."""
        return self.rows.label

    def encode(self, vocab: Vocab) -> None:
        """Turn the names of the ``NAMED`` columns into the ids of a vocabulary, -1 for those that it does not have."""
        numbers = {name: vocab.get(name, {}).get for name in NAMED}
        self._ids = {
            name: np.array([number(n, -1) for n in self.rows.names(name)], np.int64) for name, number in numbers.items()
        }

    def id(self, name: str, row: int) -> int:
        """Return the id of a row's name in a ``NAMED`` column; that of a real image's generator is 0."""
        if name == "generator" and self.label[row] == 0:
            return 0
        return int(self._ids[name][self.rows.codes(name)[row]])

    @cached_property
    def sha256(self) -> str:
        """Hash of the list: paths below their common folder, and labels; not of what the files hold."""
        return self.rows.sha256()

    @property
    def duplicates(self) -> list[str]:
        """Paths that stand in more than one row."""
        return self.rows.repeated()

    def __getitem__(self, key: int | tuple[int, int]) -> dict[str, Any]:
        row, epoch = key if isinstance(key, tuple) else (key, 0)
        index, row = (row, row) if row >= 0 else (-1, -1 - row)
        try:
            return self._sample(row, index, epoch) | {"bad": []}
        except DecodeError as e:
            if self.on_bad == "raise":
                raise UserError(
                    f"cannot read {self.path(row)}: {e.reason}; "
                    "mend or remove it, or set data.on_bad to skip or substitute"
                ) from e
            bad = [(self.path(row), e.reason)]
        if self.on_bad == "substitute" and self.training:
            rng = np.random.default_rng([self.seed, epoch, row])
            same = np.flatnonzero(self.label == self.label[row])
            for other in rng.choice(same, min(10, len(same)), replace=False):
                try:
                    return self._sample(int(other), int(other), epoch) | {"bad": bad}
                except DecodeError as e:
                    bad.append((self.path(int(other)), e.reason))
        black = torch.zeros(3, self.size, self.size, dtype=torch.uint8)
        facts = self._facts(row, -1) | _extent(self.view, self.size, self.size)
        if self.with_appearance:
            facts["appearance"] = torch.full((len(FACTS),), torch.nan)
        if self.beside is not None:
            facts["beside"] = self.beside("")
        return Unreadable(facts | {"image": black, "mask": black[0].float(), "has_mask": False, "bad": bad})

    def path(self, row: int) -> str:
        """Return the path of a row."""
        return self.rows.text("path", row)

    def _sample(self, row: int, index: int, epoch: int) -> dict[str, Any]:
        image = load_image(self.path(row), max_pixels=self.max_pixels, bits=int(self.rows.bits[row]))
        file, rule = (self.rows.text(name, row) for name in ("mask", "mask_rule"))
        mask = load_mask(file, rule, (image.shape[1], image.shape[0]), max_pixels=self.max_pixels)
        if self.rows.degradations:
            image, mask = degraded((image, mask), self.rows.text("degradation", row), row, self.path(row))
        pixels, area = self.view(image, mask, (self.seed, epoch, row))
        empty = self._no_mask if area is None else area
        # a real image has a mask without a file: nothing in it is manipulated
        masked = {"mask": empty, "has_mask": mask is not None or bool(self.label[row] == 0)}
        sample = self._facts(row, index) | _views(pixels) | masked | _extent(self.view, *image.shape[:2])
        if self.beside is not None:
            sample["beside"] = self.beside(self.path(row))
        if self.with_appearance:
            sample["appearance"] = appearance(self.path(row), image.shape[:2], sample["image"])
        return sample

    def _facts(self, row: int, index: int) -> dict[str, Any]:
        label = int(self.label[row])
        return {
            "label": label,
            "index": index,
            "path": self.path(row),
            "class_label": int(self.rows.class_label[row]),
            **{name: self.id(name, row) for name in NAMED},
            "caption": self.rows.text("caption", row),
            "explanation": self.rows.text("explanation", row),
            "weight": np.float32(self.class_weight[label] if label >= 0 else 1.0),
            "training": self.training,
        }


def unlabelled(image: np.ndarray, view: View, caption: str = "") -> dict[str, Any]:
    """Return the sample of an image that is in no table, uint8 (H, W, 3), of which nothing else is known.

    Args:
        image: As `dfl.data.decoding.read_image` gives it.
        view: `Transform.eval`.
        caption: What it shows, for detectors that read captions.
    """
    pixels = view(image, None, ())[0]
    absent = {"label": -1, "class_label": -1, **dict.fromkeys(NAMED, -1), "explanation": "", "weight": np.float32(1)}
    nothing = {"mask": torch.zeros(()).expand(pixels.shape[-2:]), "has_mask": False, "bad": [], "training": False}
    own = {"index": 0, "path": "", "caption": caption}
    return absent | own | nothing | _views(pixels) | _extent(view, *image.shape[:2])


def _views(pixels: Tensor) -> dict[str, Tensor]:
    """Return ``image``, and ``views`` of what a view gave that has several."""
    return {"image": pixels[0], "views": pixels[1:]} if pixels.ndim == 4 else {"image": pixels}


def _extent(view: View, height: int, width: int) -> dict[str, Tensor]:
    """Return the key ``extent`` of an image of so many pixels, where the view pads."""
    extent = view.extent(height, width) if hasattr(view, "extent") else None
    return {} if extent is None else {"extent": torch.tensor(extent)}


def extend_vocab(vocab: Vocab, tables: Iterable[Rows]) -> None:
    """Give a number to every name of the ``NAMED`` columns that has none, table by table, sorted within one.

    Generators start at 1: 0 is the real image.
    """
    for table in tables:
        for column in NAMED:
            ids = vocab.setdefault(column, {})
            for name in sorted(table.names(column)):  # each is there once, and often in order: a set would mix them
                if name:
                    ids.setdefault(name, len(ids) + (column == "generator"))


def usual_of(data: ImageDataset, transform: Transform) -> Usual:
    """Return what the images of a data set look like in evaluation: of some of them, evenly spread over the table."""
    seen = ImageDataset(data.rows, transform.eval(data.size), data.size, {}, on_bad="skip", max_pixels=data.max_pixels)
    seen.with_appearance = True
    rows = np.linspace(0, len(seen) - 1, min(LOOKED_AT, len(seen))).astype(int)
    return Usual.of(np.stack([seen[int(row)]["appearance"].numpy() for row in rows]))
