"""What `dfl forge` asks of a generator that is a model, of what says what a photo shows, and of what checks a fake.

Entries of ``--models FILE`` are built by name and their ``init_args`` alone: building reads no weights, so that every
mistake that can be seen without them costs a second. Weights are loaded by ``open``, for the first batch that is
missing, into ``network``, which ``close`` lets go of before the next model.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from dfl.errors import UserError
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.plan import Picture


class Part(ABC):
    """What an entry of ``--models`` may be: `Model`, `Words`, `Check`.

    Attributes:
        network: What ``open`` loaded.
    """

    network: Any = None

    @abstractmethod
    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the weights.

        Raises:
            UserError: If they are not there, damaged, or of something else.
        """

    def close(self) -> None:
        """Let go of what ``open`` loaded."""
        self.network = None

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """Return what its results depend on, as JSON stores it: ``sha256`` of all weights, and settings.

        Is asked before ``open``, and must say the same afterwards.
        """


class Model(Part):
    """A generator: makes pictures of scenes, a batch at a time.

    Attributes:
        kind: ``region``: changes the scene's region (class 2, with its mask); ``edit``: changes the whole photo;
            ``full``: makes a picture of its own (class 1, both).
        method: What is done, for the table: inpainting, synthesis, edit, ...
        family: Of the generator, for the table: diffusion, gan.
        prompted: Whether it reads prompts.
        of_photo: Whether what it makes comes of the photo, or of words about it. If not, it has no ``source``.
        multiple: What sides of a scene must divide by; forge pads to it by reflection, and cuts what comes back.
        paste: Whether pixels outside of the region are put back. If not, the model's trace is everywhere.
        size: The only height and width that it takes; None for any, or before ``open``.
        most: Pictures that it can make; None for any number.
        steps: Steps that a picture takes, for the table; None where there are none.
        prompt: Of every picture, or with fields such as ``{caption}``; None where the user gave none.
        again: Sentence that is appended to the prompt where a `Check` finds a picture too far from its photo.
        retries: How often it is then made again; the nearest is kept.
    """

    kind: ClassVar[Literal["region", "full", "edit"]]
    method: ClassVar[str]
    family: ClassVar[str] = "diffusion"
    prompted: ClassVar[bool] = False
    of_photo: ClassVar[bool] = True
    multiple: int = 8
    paste: bool = True
    size: int | None = None
    most: int | None = None
    steps: int | None = None
    prompt: str | None = None
    again: str = ""
    retries: int = 0

    @property
    def checkable(self) -> bool:
        """Whether a whole picture of it can be near its photo, or far from it."""
        return self.of_photo and self.kind != "region"

    @abstractmethod
    def __call__(self, scenes: list[Scene], prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        """Make a picture for each scene.

        Args:
            scenes: Of one size, whose sides ``multiple`` divides (``size``, if it has one). The donor is the image.
            prompts: '' where it reads none.
            seeds: Of 63 bits, one for each picture: the same seed gives the same picture, alone or in any batch, but
                for the rounding of kernels that depend on the batch's shape.

        Returns:
            uint8 (H, W, 3), RGB, of the scenes' size.

        Raises:
            UserError: If it cannot.
        """

    def vae(self) -> "Model":
        """Return the VAE that photos can be sent through, for ``--roundtrip``.

        Raises:
            UserError: If it has none.
        """
        raise UserError(f"{type(self).__name__} has no VAE: --roundtrip takes a Vae, or a model of latents")


class Words(Part):
    """Says what photos show, in the words that prompts ask for.

    Attributes:
        fields: The words that it knows: caption, gender, age, ...
    """

    fields: tuple[str, ...]

    def unseen(self, picture: Picture) -> dict[str, str] | None:
        """Return the words of a photo where they are known without looking at it, as from a table; else None."""
        return None

    @abstractmethod
    def __call__(self, pictures: list[Picture], images: list[np.ndarray]) -> list[dict[str, str]]:
        """Return the words of each photo by field; images are uint8 (H, W, 3), each of its own size."""


class Check(Part):
    """Measures how far a fake is from its photo.

    Attributes:
        threshold: A fake that is farther is made again, if its model has ``retries``; None until it is calibrated.
    """

    threshold: float | None = None

    def check_photos(self, photos: Sequence[Callable[[], Any]], people: Sequence[str]) -> None:
        """Raise a UserError if `calibrate` cannot do with these; is asked before anything is made.

        Args:
            photos: Each opens a photo, or raises DecodeError.
            people: See `calibrate`.
        """

    @abstractmethod
    def calibrate(self, photos: Sequence[Callable[[], np.ndarray]], people: Sequence[str], seed: int) -> dict[str, Any]:
        """Set the threshold, and return it with how it was found, as JSON stores it; a resumed forge is given that.

        Args:
            photos: Each gives a real photo of the training split as the set has it, uint8 (H, W, 3).
            people: Who is seen (identity, or the video), '' where that is not known.
            seed: Seed.
        """

    @abstractmethod
    def __call__(self, photos: list[np.ndarray], made: list[np.ndarray]) -> list[float]:
        """Return the distance of each fake from its photo, uint8 (H, W, 3) both."""


def seed_of(seed: int, number: int, k: int, attempt: int) -> int:
    """Return a seed of 63 bits from the set's, the number of the photo, which of its fakes it is, and which try."""
    return int(np.random.SeedSequence([seed, number, k, 2, attempt]).generate_state(1, np.uint64)[0] >> 1)


def generators(seeds: Iterable[int]) -> list[torch.Generator]:
    """Return a source of chance on the CPU for each picture, so that none depends on its neighbours or the device."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def whole_cells(region: np.ndarray, side: int) -> np.ndarray:
    """Return a region grown to whole latent cells, bool (H, W): nearest resizing would lose what is smaller than one.

    Args:
        region: bool (H, W), both divided by ``side``.
        side: Pixels of a cell.
    """
    height, width = region.shape
    cells = region.reshape(height // side, side, width // side, side).any((1, 3))
    return cells.repeat(side, 0).repeat(side, 1)


def files_hash(files: Iterable[Path], below: Path | None = None) -> str:
    """Return the SHA-256 of the names (below a folder, if given) and bytes of files, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(files):
        with open(file, "rb") as handle:
            own = hashlib.file_digest(handle, "sha256").hexdigest()
        digest.update(f"{file.relative_to(below) if below else ''}:{own};".encode())
    return digest.hexdigest()
