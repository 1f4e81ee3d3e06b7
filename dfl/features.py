"""Features of a frozen encoder on disk: an image is encoded once, not once an epoch or a run.

    key = sha256(weights and settings of the encoder, number format, the pixels that it sees)

    FOLDER/SPACE/many-HASH.safetensors        small features (vectors): some thousands of them and their keys
    FOLDER/SPACE/ab/abcdef....safetensors     one large feature (maps), named by its key

A space is all that the key is made of but the pixels. What the encoder sees is the image after augmentation, cropping
and resizing. So no key is ever wrong, whatever the transform does; an image that is cropped at random just never comes
again.

Files are written whole and never changed, so processes share a folder without locks; small features are gathered for
half a minute before they are written. A file that is cut off counts for nothing. A folder over its limit loses the
files that were not read for longest.
"""

import hashlib
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from dfl.errors import UserError
from dfl.runs.files import remove, write
from dfl.runs.weights_hash import WeightsHash

#: A feature of as many bytes has a file of its own; smaller ones are written when so many bytes, or seconds, are there.
LARGE, GATHERED, PATIENCE = 2**18, 2**22, 30.0
#: Files that are held open.
OPEN = 128
#: Files in the folder that are a store's, which it may remove.
_HEX = "[0-9a-f]"
OURS = (f"{_HEX * 32}/many-{_HEX * 32}.safetensors", f"{_HEX * 32}/{_HEX * 2}/{_HEX * 64}.safetensors")


@dataclass
class _Space:
    """Features of one encoder with one setting."""

    folder: Path
    #: Number of the file, and the row in it, by key.
    rows: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    #: Files of many features that were looked into; a broken one holds nothing.
    files: list[str] = field(default_factory=list)
    listed: int = -1
    #: What is not written yet.
    waiting: dict[bytes, list[Tensor]] = field(default_factory=dict)

    def add(self, name: str, keys: list[bytes]) -> None:
        """Note what a file of many features holds."""
        self.rows.update((key, (len(self.files), row)) for row, key in enumerate(keys))
        self.files.append(name)


class FeatureStore:
    """Features by the content of their images; processes may share a folder.

    Args:
        folder: Holds them; it is made when there is something to keep.
        weights: Returns the encoder's weights by name.
        settings: All else that the features depend on.
        limit: Bytes that the folder may hold.
        flag: The argument that names the folder, for errors.

    Raises:
        UserError: If one of the weights is trained: each step would make all features wrong.
    """

    def __init__(
        self,
        folder: str | Path,
        weights: Callable[[], Mapping[str, Tensor]],
        settings: str = "",
        limit: float = math.inf,
        flag: str = "model.store",
    ) -> None:
        self.folder, self.weights, self.settings = Path(folder).expanduser(), weights, settings
        self.limit, self.flag = limit, flag
        if trained := [name for name, weight in weights().items() if weight.requires_grad]:
            raise UserError(f"{flag} keeps features of a frozen encoder, and {trained[0]} is trained: leave {flag} out")
        self._hash = WeightsHash()
        self._spaces: dict[str, _Space] = {}
        self._opened: OrderedDict[Path, Any] = OrderedDict()
        self._bytes, self._since_counted = math.inf, 0  # not counted yet
        self._written_at = time.monotonic()

    def __call__(self, image: Tensor, encode: Callable[[Tensor], list[Tensor]]) -> list[Tensor]:
        """Return the features of images, from disk where they are there, and encode and store the others.

        Args:
            image: (N, 3, H, W), as the encoder wants them.
            encode: Returns its features, each (N, ...), of such images; called with those that are not there, if any.

        Raises:
            UserError: If the disk does not take them.
        """
        space = self._space(image)
        keys = _keys(image, space.folder.name)
        found = self._read(space, keys)
        if missing := [row for row, features in enumerate(found) if features is None]:
            encoded = [features.detach().cpu() for features in encode(image[missing])]
            for at, row in enumerate(missing):
                found[row] = new = [features[at].clone(memory_format=torch.contiguous_format) for features in encoded]
                self._keep(space, keys[row], new)
            if time.monotonic() - self._written_at > PATIENCE:
                self.flush()
        return [torch.stack(features).to(image.device) for features in zip(*filter(None, found), strict=True)]

    def keys(self, image: Tensor) -> list[str]:
        """Return the key of each image (N, 3, H, W), in hexadecimal."""
        return [key.hex() for key in _keys(image, self._space(image).folder.name)]

    def flush(self) -> None:
        """Write what is not written yet; to be called at the end of a pass.

        Raises:
            UserError: If the disk does not take it.
        """
        for space in self._spaces.values():
            self._flush(space)
        self._written_at = time.monotonic()

    def _space(self, image: Tensor) -> _Space:
        kind = image.device.type
        numbers = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        words = f"{self._hash(self.weights())} {self.settings} {kind} {numbers} {image.dtype} {tuple(image.shape[1:])}"
        name = hashlib.sha256(words.encode()).hexdigest()[:32]
        return self._spaces.setdefault(name, _Space(self.folder / name))

    # reading

    def _read(self, space: _Space, keys: list[bytes]) -> list[list[Tensor] | None]:
        """Return the features of keys; None where there are none."""
        self._list(space)
        return [self._one(space, key) for key in keys]

    def _one(self, space: _Space, key: bytes) -> list[Tensor] | None:
        if key in space.waiting:
            return space.waiting[key]
        number, row = space.rows.get(key, (-1, 0))
        path = _alone(space, key) if number < 0 else space.folder / space.files[number]
        try:
            opened = self._open(path)
            names = [str(n) for n in range(len(opened.keys()) - 1)]
            # a copy of its own: the file may lie in a map of memory
            return [opened.get_slice(name)[row : row + 1][0].clone() for name in names] or None
        except (OSError, SafetensorError, IndexError):  # not there, or not any more, or cut off: it is made anew
            self._opened.pop(path, None)
            space.rows.pop(key, None)
            return None

    def _open(self, path: Path) -> Any:
        """Open a file, or return it as it was opened before; its time says that it was read."""
        if path in self._opened:
            self._opened.move_to_end(path)
            return self._opened[path]
        opened = safe_open(path, framework="pt").__enter__()
        with suppress(OSError):
            os.utime(path)
        self._opened[path] = opened
        if len(self._opened) > OPEN:
            self._opened.popitem(last=False)
        return opened

    def _list(self, space: _Space) -> None:
        """Look which files of many features are there, if that changed since the last look."""
        try:
            changed = space.folder.stat().st_mtime_ns
        except OSError:
            return
        if changed == space.listed:
            return
        space.listed, known = changed, set(space.files)
        for name in sorted(entry.name for entry in os.scandir(space.folder) if entry.name.startswith("many-")):
            if name in known:
                continue
            keys: list[bytes] = []
            with suppress(OSError, SafetensorError), safe_open(space.folder / name, framework="np") as opened:
                keys = [key.tobytes() for key in opened.get_tensor("keys")]
            space.add(name, keys)

    # writing

    def _keep(self, space: _Space, key: bytes, features: list[Tensor]) -> None:
        size = sum(one.numel() * one.element_size() for one in features)
        if size >= LARGE:
            self._write(_alone(space, key), [key], [features])
            return
        space.waiting[key] = features
        if size * len(space.waiting) >= GATHERED:
            self._flush(space)

    def _flush(self, space: _Space) -> None:
        if space.waiting:
            keys = list(space.waiting)
            name = f"many-{hashlib.sha256(b''.join(keys)).hexdigest()[:32]}.safetensors"
            self._write(space.folder / name, keys, list(space.waiting.values()))
            space.add(name, keys)
            space.waiting.clear()

    def _write(self, file: Path, keys: list[bytes], features: list[list[Tensor]]) -> None:
        maps = {str(number): torch.stack(maps) for number, maps in enumerate(zip(*features, strict=True))}
        content = save(maps | {"keys": torch.frombuffer(bytearray(b"".join(keys)), dtype=torch.uint8).view(-1, 32)})
        try:
            write(file, content, sync=False)
        except UserError as error:
            raise UserError(
                f"{self.flag}: cannot write to {self.folder} ({error}); make room, or leave {self.flag} out"
            ) from error
        self._opened.pop(file, None)
        self._bytes += len(content)
        self._since_counted += len(content)
        if self._bytes > self.limit or 20 * self._since_counted > self.limit:
            self._make_room(file)

    def _make_room(self, newest: Path) -> None:
        """Count the bytes in the folder, and remove what was not read for longest until a twentieth is free again."""
        found = []
        for path in (path for pattern in OURS for path in self.folder.glob(pattern)):
            with suppress(OSError):
                about = path.stat()
                found.append((about.st_mtime_ns, about.st_size, path))
        self._bytes, self._since_counted = sum(size for _, size, _ in found), 0
        if self._bytes <= self.limit:
            return
        for _, size, path in sorted(found):
            if self._bytes <= 0.95 * self.limit:
                break
            if path != newest:
                remove(path)
                self._bytes -= size


def _alone(space: _Space, key: bytes) -> Path:
    return space.folder / key.hex()[:2] / f"{key.hex()}.safetensors"


def _keys(image: Tensor, space: str) -> list[bytes]:
    """Return the key of each image (N, 3, H, W) within a space.

    Images that were 8-bit numbers divided by 255 are hashed as these, a quarter of the bytes.
    """
    base, keys = hashlib.sha256(space.encode()), []
    # one by one where they stay in the processor's cache, together where each costs a wait for the device
    for part in image.detach().split(1 if image.device.type == "cpu" else max(len(image), 1)):
        levels = part.mul(255).round_().to(torch.uint8)
        exact = (levels.to(image.dtype).div_(255) == part).flatten(1).all(1).tolist()
        for one, few, is_exact in zip(part, levels.cpu(), exact, strict=True):
            digest = base.copy()
            digest.update(b"\x01" if is_exact else b"\x00")
            pixels = few if is_exact else one.cpu()
            digest.update(pixels.reshape(-1).contiguous().view(torch.uint8).numpy().data)
            keys.append(digest.digest())
    return keys
