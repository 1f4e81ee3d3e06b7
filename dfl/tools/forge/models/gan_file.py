"""Pictures by a generator that was exported to a file: one network, or a mapping of latents before a synthesis."""

import hashlib
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from dfl.errors import UserError, first_line
from dfl.networks.exported import ExportedNetwork, Port, network_files
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models.base import Model, files_hash

#: Latents whose mapped mean truncation goes towards, and pictures that tell the range of values.
MEAN_OF, PROBES = 4096, 3
#: By range of values, what is taken off one, and grey levels of 1.
RANGES = {"-1..1": (-1.0, 127.5), "0..1": (0.0, 255.0), "0..255": (0.0, 1.0)}


class GanFile(Model):
    """A generator in ONNX or OpenVINO's format: latent -> picture, or latent -> style -> picture.

    Truncation brings what the last network is given towards a mean, ``mean + truncation * (x - mean)``: faces become
    more alike and have fewer faults (Karras et al., "A Style-Based Generator Architecture", CVPR 2019, appendix B).
    Pictures are made one by one, so that none depends on its batch, and reduced to the size of the set (Lanczos).

    Args:
        model: The network that gives pictures: ``.onnx``, or ``.xml`` with its ``.bin``.
        mapping: The network before it.
        truncation: 1 leaves latents as they are; near 0 all pictures become the mean.
        mean: ``.npy``, of what the last network takes; by default that of 4096 mapped latents, and 0 without a mapping.
        latents: ``.npy`` (n, ...): row i is for fake i of this maker, in place of latents that are drawn by seed.
        input: Name of the last network's input, where it has several.
        output: Of its output.
        mapping_input: Of the mapping's input.
        mapping_output: Of its output.
        values: Range of a picture's values; by default found from three pictures, and said.

    Raises:
        UserError: If a file is not there or is none of its kind, or the truncation is not above 0.
    """

    kind, method, family = "full", "synthesis", "gan"
    of_photo, multiple = False, 1

    def __init__(
        self,
        model: str,
        mapping: str | None = None,
        truncation: float = 1.0,
        mean: str | None = None,
        latents: str | None = None,
        input: str | None = None,
        output: str | None = None,
        mapping_input: str | None = None,
        mapping_output: str | None = None,
        values: Literal["auto", "-1..1", "0..1", "0..255"] = "auto",
    ) -> None:
        if not 0 < truncation < math.inf:
            raise UserError(f"GanFile: truncation {truncation} must be above 0, where all pictures are the mean")
        self._files = network_files(model, "GanFile.model")
        self._files += network_files(mapping, "GanFile.mapping") if mapping else []
        self.model, self.mapping, self.truncation, self.values = model, mapping, truncation, values
        self.mean, self.latents = _array(mean, "GanFile.mean"), _array(latents, "GanFile.latents")
        self.most = None if self.latents is None else len(self.latents)
        self._names = (input, output, mapping_input, mapping_output)

    def about(self) -> dict[str, Any]:
        """Return the hash of the networks, and all else that pictures depend on."""
        given = {"mean": self.mean, "latents": self.latents}
        hashes = {name: None if x is None else hashlib.sha256(x.tobytes()).hexdigest() for name, x in given.items()}
        settings = {"truncation": self.truncation, "names": list(self._names), "values": self.values}
        return {"sha256": files_hash(self._files), **hashes, **settings}

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the networks, which have a precision of their own; find the mean and the range of values."""
        synthesis, mapping = ExportedNetwork(self.model, "GanFile.model", device), None
        self._in, self._out = synthesis.input(self._names[0]), synthesis.output(self._names[1])
        self._latent = self._in
        if self.mapping:
            mapping = ExportedNetwork(self.mapping, "GanFile.mapping", device)
            self._latent, self._style = mapping.input(self._names[2]), mapping.output(self._names[3])
        self.network = synthesis, mapping
        self._mean = self._found_mean() if self.truncation != 1 else None
        some = PROBES if self.latents is None else min(PROBES, len(self.latents))
        probes = [self._picture(self._taken(i, i)) for i in range(some)]
        if not np.array_equal(probes[0], self._picture(self._taken(0, 0))):
            raise UserError(f"GanFile: {self.model} draws noise of its own; export it with constant noise")
        self._range = self.values if self.values != "auto" else found_range(np.stack(probes), self.model)

    def __call__(self, scenes: list[Scene], prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        """Make pictures, see the base; with latents by file, those of the numbers that the fakes have."""
        low, scale = RANGES[self._range]
        made = []
        for scene, seed in zip(scenes, seeds, strict=True):
            picture = (self._picture(self._taken(scene.count, seed)) - np.float32(low)) * np.float32(scale)
            made.append(_sized(np.rint(picture).clip(0, 255).astype(np.uint8), scene.image.shape, self.model))
        return made

    def _taken(self, count: int, seed: int) -> np.ndarray:
        """Return the latent of a fake, as its network takes it: row ``count`` of those given, else drawn by seed."""
        if self.latents is None:
            shape = [n for n in self._latent.shape[1:] if n is not None]
            if not shape or None in self._latent.shape[1:]:
                raise UserError(f"GanFile: {self.model} takes latents of any length: give some by latents: FILE.npy")
            return np.random.default_rng(seed).standard_normal((1, *shape), np.float32)
        if count >= len(self.latents):
            raise UserError(
                f"GanFile.latents: {len(self.latents)} latents are fewer than the fakes that are to be made"
            )
        return fitted(self.latents[count], self._latent, "GanFile.latents")

    def _mapped(self, latent: np.ndarray) -> np.ndarray:
        """Return what the last network takes for a latent."""
        mapping = self.network[1]
        if mapping is None:
            return latent
        return fitted(mapping({self._latent.name: latent}, self._style.name), self._in, "GanFile.mapping")

    def _found_mean(self) -> np.ndarray:
        if self.mean is not None or not self.mapping:
            return fitted(np.zeros(1) if self.mean is None else self.mean, self._in, "GanFile.mean")
        rng, shape = np.random.default_rng(0), self._taken(0, 0).shape
        mapped = [self._mapped(rng.standard_normal(shape, np.float32)) for _ in range(MEAN_OF)]
        return np.asarray(np.mean(mapped, 0, np.float64), np.float32)

    def _picture(self, latent: np.ndarray) -> np.ndarray:
        """Return the picture of a latent in the network's own values, float32 (H, W, 3), or (H, W, 1) of grey."""
        given = self._mapped(latent)
        if self._mean is not None:
            given = self._mean + np.float32(self.truncation) * (given - self._mean)
        values = self.network[0]({self._in.name: given}, self._out.name)
        if values.ndim == 4 and len(values) == 1:
            for of_channels in (values[0].transpose(1, 2, 0), values[0]):
                if of_channels.shape[2] in (1, 3):
                    return of_channels.astype(np.float32)
        raise UserError(f"GanFile: {self.model} gives {values.shape}; a picture is (1, 3, H, W) or (1, H, W, 3)")


def _array(file: str | None, what: str) -> np.ndarray | None:
    """Return a file of numbers, float32, or None of none."""
    if file is None:
        return None
    try:
        return np.asarray(np.load(Path(file).expanduser(), allow_pickle=False), np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise UserError(f"{what}: {file} is no .npy of numbers: {first_line(error)}") from error


def fitted(x: np.ndarray, port: Port, what: str) -> np.ndarray:
    """Return numbers in the shape that a network takes for one picture; one style serves all layers of (1, L, D).

    Raises:
        UserError: If they cannot be brought to it.
    """
    x = x[0] if x.ndim == len(port.shape) and len(x) == 1 else x
    try:
        x = x.reshape((1,) * (len(port.shape) - 1 - x.ndim) + x.shape)
        wanted = [have if n is None else n for n, have in zip(port.shape[1:], x.shape, strict=True)]
        return np.broadcast_to(x, wanted)[None].astype(np.float32)
    except ValueError as error:
        raise UserError(f"{what}: shape {x.shape} where {port.name} is {port.shape}") from error


def found_range(pictures: np.ndarray, file: str) -> str:
    """Return the range of a network's values, one of `RANGES`, and say it.

    Beyond 8 they are grey levels; below -0.25 they go from -1, since no picture is without a dark place; else from 0
    to 1. Generators overshoot, so ends are not sharp.

    Args:
        pictures: float32, any shape.
        file: Of the network.

    Raises:
        UserError: If values are not finite, or of none of the ranges.
    """
    low, high = float(pictures.min()), float(pictures.max())
    found = "0..255" if high > 8 else "-1..1" if low < -0.25 else "0..1"
    if not -64 < low <= high < 320 or (low < -8 and found != "0..255"):  # NaN too
        raise UserError(f"{file} gives values from {low:.3g} to {high:.3g}: its range is none of {', '.join(RANGES)}")
    print(f"{file} gives {low:.2f} to {high:.2f}, taken as {found}")
    return found


def _sized(made: np.ndarray, like: tuple[int, ...], file: str) -> np.ndarray:
    """Return a picture, uint8 (H, W, 3), reduced to the size of (height, width, ...)."""
    (height, width), (own_height, own_width) = like[:2], made.shape[:2]
    if own_height * width != own_width * height or own_height < height:
        raise UserError(
            f"GanFile: {file} makes pictures of {own_width}x{own_height}, and one of the set is {width}x{height}: "
            f"--square {min(own_height, own_width)} or less makes all alike"
        )
    rgb = Image.fromarray(np.broadcast_to(made, (own_height, own_width, 3)))
    return np.asarray(rgb if own_height == height else rgb.resize((width, height), Image.Resampling.LANCZOS))
