"""Regions filled by LaMa, or by any network that takes a picture and a mask."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfl.errors import UserError, first_line
from dfl.networks.exported import ExportedNetwork, network_files
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models.base import Model, files_hash

#: TorchScript: operations of torch and numbers, which torch runs.
SCRIPT = (".pt", ".jit", ".torchscript")
#: What divides the sides of what it is given.
CELL = 8
#: Picture, float32 (1, 3, H, W), and mask, float32 (1, 1, H, W) -> picture, float32 (1, 3, H, W).
Network = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Lama(Model):
    """LaMa (Suvorov et al., "Resolution-robust Large Mask Inpainting with Fourier Convolutions", WACV 2022) by file.

    The network takes a picture, (1, 3, H, W) in 0..1, and a mask, (1, 1, H, W) with 1 where it is to be filled, padded
    by mirroring to sides that 8 divides; it gives a picture of the same size in 0..1 or 0..255, which is found and
    said. Pictures are filled one by one, so that none depends on its batch. Pixels outside of the mask stay.

    Args:
        model: ``.onnx``, or TorchScript (``.pt``, ``.jit``, ``.torchscript``). TorchScript is a program: open files
            of it only from those whom you trust.

    Raises:
        UserError: If the file is not there or of another kind.
    """

    kind, method, family = "region", "inpainting", "gan"
    multiple = 1  # it pads by itself

    def __init__(self, model: str) -> None:
        self.model, self._scripted = model, Path(model).suffix.lower() in SCRIPT
        if self._scripted and not Path(model).expanduser().is_file():
            raise UserError(f"Lama.model: no file {model} in {Path.cwd()}")
        self._files = [Path(model).expanduser()] if self._scripted else network_files(model, "Lama.model")

    def about(self) -> dict[str, Any]:
        """Return the hash of the file."""
        return {"sha256": files_hash(self._files)}

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the network, which has a precision of its own, and find its range of values."""
        self.network = self._script(device) if self._scripted else self._onnx(device)
        side = self.size or 64
        ramp = np.linspace(0, 1, side, dtype=np.float32)[None, None, None].repeat(3, 1).repeat(side, 2)
        mask = np.zeros((1, 1, side, side), np.float32)
        mask[..., : side // 4, : side // 4] = 1
        highest = float(self.network(ramp, mask).max())
        self._scale = 1.0 if highest > 2 else 255.0
        print(f"{self.model} gives values up to {highest:.2f}, taken as 0..{255 if highest > 2 else 1}")

    def __call__(self, scenes: list[Scene], prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        """Fill regions, see the base; there is no chance in it."""
        made = []
        for scene in scenes:
            height, width = scene.region.shape
            rims = (0, -height % CELL), (0, -width % CELL)
            image = np.pad(scene.image, (*rims, (0, 0)), "symmetric").transpose(2, 0, 1)[None]
            mask = np.pad(scene.region, rims, "symmetric")[None, None]
            values = self.network(image.astype(np.float32) / 255, mask.astype(np.float32))
            if values.shape != image.shape:
                raise UserError(f"Lama: {self.model} gives {values.shape} for a picture of {image.shape}")
            grey = np.rint(values[0, :, :height, :width] * self._scale).clip(0, 255).astype(np.uint8)
            made.append(grey.transpose(1, 2, 0))
        return made

    def _onnx(self, device: str) -> Network:
        """Return the network of an ONNX file, whose inputs are told apart by their channels."""
        network = ExportedNetwork(self.model, "Lama.model", device)
        ports = {port.shape[1]: port for port in network.inputs.values() if len(port.shape) == 4}
        if len(network.inputs) != 2 or not {1, 3} <= ports.keys():
            found = ", ".join(f"{port.name} {port.shape}" for port in network.inputs.values())
            raise UserError(f"Lama: {self.model} takes {found}, and not a picture (1, 3, H, W) and a mask (1, 1, H, W)")
        height, width = ports[3].shape[2:]
        if height != width:
            raise UserError(
                f"Lama: {self.model} is made for pictures of {width}x{height}; export it for any, or a square"
            )
        self.size = height
        output = network.output().name
        return lambda image, mask: network({ports[3].name: image, ports[1].name: mask}, output)

    def _script(self, device: str) -> Network:
        """Return the network of a TorchScript file."""
        try:
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # that it is deprecated
                network = torch.jit.load(Path(self.model).expanduser(), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            raise UserError(f"Lama.model: {self.model} cannot be read as TorchScript: {first_line(error)}") from error

        @torch.inference_mode()
        def run(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
            try:
                filled = network(torch.from_numpy(image).to(device), torch.from_numpy(mask).to(device))
            except (RuntimeError, TypeError) as error:
                last = str(error).strip().splitlines()[-1:]  # the lines before say where in the script
                raise UserError(f"Lama: {self.model} fails on {image.shape}, {mask.shape}: {last}") from error
            return np.asarray(filled.float().cpu())

        return run
