"""Image embeddings of a frozen encoder on disk: an image is encoded once, not once an epoch.

    key = sha256(weights and settings of the encoder, number format, the pixels that it sees)     one file each

What the encoder sees is the image after augmentation, resizing and normalisation. So no key is ever wrong, whatever the
transform does; an image that is cropped at random just never comes again.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dfl.errors import UserError
from dfl.runs.files import write
from dfl.runs.weights_hash import WeightsHash


class EmbeddingCache:
    """Embeddings by the content of their images; processes may share a folder.

    Args:
        folder: Holds them; it is made when there is something to keep.
        weights: Returns the encoder's weights by name.
        settings: All else that the embeddings depend on.

    Raises:
        UserError: If one of the weights is trained: each step would make all embeddings wrong.
    """

    def __init__(self, folder: str | Path, weights: Callable[[], Mapping[str, Tensor]], settings: str = "") -> None:
        self.folder, self.weights, self.settings = Path(folder).expanduser(), weights, settings
        if trained := [name for name, weight in weights().items() if weight.requires_grad]:
            raise UserError(
                f"model.cache keeps embeddings of a frozen encoder, and {trained[0]} is trained: leave model.cache out"
            )
        self._hash = WeightsHash()

    def __call__(self, image: Tensor, encode: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Return the maps of images, from disk where they are there, and encode and store the others.

        Args:
            image: (N, 3, H, W), as the encoder wants them.
            encode: Returns its maps, each (N, ...), of such images; called with those that are not on disk, if any.

        Raises:
            UserError: If the disk does not take them.
        """
        keys = self.keys(image)
        cached = [self._read(key) for key in keys]
        missing = [row for row, maps in enumerate(cached) if maps is None]
        if missing:
            encoded = [maps.detach().cpu() for maps in encode(image[missing])]
            for at, row in enumerate(missing):
                cached[row] = new = [maps[at].clone(memory_format=torch.contiguous_format) for maps in encoded]
                self._write(keys[row], new)
        return [torch.stack(maps).to(image.device) for maps in zip(*filter(None, cached), strict=True)]

    def keys(self, image: Tensor) -> list[str]:
        """Return the key of each image (N, 3, H, W)."""
        kind = image.device.type
        numbers = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        words = f"{self._hash(self.weights())} {self.settings} {kind} {numbers} {image.dtype} {tuple(image.shape[1:])}"
        base = hashlib.sha256(words.encode())
        keys = []
        for one in image.detach().cpu():
            digest = base.copy()
            digest.update(one.reshape(-1).contiguous().view(torch.uint8).numpy().data)
            keys.append(digest.hexdigest())
        return keys

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> list[Tensor] | None:
        try:
            maps = load_file(self.path(key))
        except (OSError, SafetensorError):  # not there, or cut off: it is made anew
            return None
        return [maps[name] for name in sorted(maps)] or None

    def _write(self, key: str, maps: list[Tensor]) -> None:
        file = self.path(key)
        try:
            write(file, save({str(number): one for number, one in enumerate(maps)}))
        except UserError as error:
            raise UserError(
                f"model.cache: cannot write to {self.folder} ({error}); make room, or leave model.cache out"
            ) from error
