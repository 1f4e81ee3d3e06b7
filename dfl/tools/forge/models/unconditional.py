"""Makers that are diffusion models of whole images: regions by RePaint, and images of their own.

The settings that decide what an image costs are ``steps``, ``jump`` and ``resample``: `about` counts the calls of the
network. The published faces of RePaint are 250, 10, 10, 2410 calls; 50, 5, 3 are 140.
"""

from copy import copy
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from dfl.errors import UserError
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models.base import Model, generators, whole_cells
from dfl.tools.forge.models.denoiser import Denoiser
from dfl.tools.forge.models.folder_denoiser import FolderDenoiser
from dfl.tools.forge.models.repaint import Ddim, Ddpm, calls, repaint
from dfl.tools.forge.models.toy_denoiser import ToyDenoiser
from dfl.tools.forge.models.vae import Vae

#: Begins the name of the model that needs no file.
TOY = "toy:"


def denoiser(name: str, scale: float | None = None) -> Denoiser:
    """Return the model of a name: ``toy:SIZE``, or a folder of diffusers.

    Raises:
        UserError: If there is none.
    """
    if not name.startswith(TOY):
        return FolderDenoiser(name, scale)
    size = name.removeprefix(TOY)
    if not size.isdecimal() or not 16 <= int(size) <= 256:
        raise UserError(f"model is {name!r}: toy:SIZE makes images of 16 to 256 pixels, such as toy:64")
    return ToyDenoiser(int(size))


class _Diffusion(Model):
    """What all of them share: the model, its sampler, and the loop."""

    def __init__(
        self,
        model: str,
        steps: int,
        sampler: Literal["ddim", "ddpm"],
        eta: float,
        jump: int = 1,
        resample: int = 1,
        scale: float | None = None,
    ) -> None:
        self.model = denoiser(model, scale)
        self.size = self.multiple = self.model.size
        self.steps: int = steps
        self.sampler, self.eta, self.jump, self.resample = sampler, eta, jump, resample
        levels = self.model.levels
        if not 0 <= eta <= 1 or (eta and sampler == "ddpm"):
            raise UserError(f"eta is {eta}: a share of noise within 0 and 1, of the sampler ddim; ddpm has its own")
        if steps < 2 or (levels % steps if sampler == "ddim" else steps > levels):
            rule = "at least 2, and divide" if sampler == "ddim" else "within 2 and"  # one would begin without noise
            raise UserError(f"steps is {steps}: it must be {rule} {levels}, the levels that {model} was trained on")
        if jump < 1 or resample < 1 or (resample > 1 and jump >= steps):
            raise UserError(f"jump is {jump}, resample {resample}: both are at least 1, and jump is less than steps")

    def about(self) -> dict[str, Any]:
        """Return the hash of the model, the settings, and how often the network is called for a picture."""
        sampling = {name: getattr(self, name) for name in ("steps", "sampler", "eta", "jump", "resample")}
        return self.model.about() | sampling | {"calls": calls(self.steps, self.jump, self.resample)}

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the model."""
        network = copy(self.model)  # what it loads goes when the copy does
        network.open(device, dtype)
        self.network, self.device = network, device

    def vae(self) -> Vae:
        """Return the autoencoder of a latent model, for photos that are to carry its trace."""
        if isinstance(self.model, FolderDenoiser) and self.model.latent:
            return Vae(str(self.model.weighted[-1]))
        raise UserError(f"{type(self).__name__} of pixels has no VAE: --roundtrip takes a Vae, or a model of latents")

    @torch.inference_mode()
    def _made(self, known: Tensor, keep: Tensor, seeds: list[int]) -> list[np.ndarray]:
        """Return pictures, uint8 (H, W, 3), of what is known in the model's terms, and where; see `repaint`."""
        model = self.network
        levels = (
            Ddim(model.betas, self.steps, model.clip, self.eta)
            if self.sampler == "ddim"
            else Ddpm(model.betas, self.steps, model.clip)
        )
        made = model.decoded(repaint(model, levels, known, keep, generators(seeds), self.jump, self.resample))
        if not made.isfinite().all():
            raise UserError(f"{type(self).__name__} made what is no picture (nan): give --dtype float32 or bfloat16")
        pixels = (made.clamp(-1, 1) + 1) * 127.5
        return list(pixels.round().byte().permute(0, 2, 3, 1).cpu().numpy())


class Unconditional(_Diffusion):
    """Whole images that show nobody, of noise alone: of a DDPM, DDIM or LDM folder.

    Args:
        model: Folder of diffusers, or ``toy:SIZE``.
        steps: Calls of the network for an image.
        sampler: ``ddim``, or ``ddpm``: ancestral.
        eta: Share of fresh noise of ``ddim``, 0 to 1.
        scale: Of latents, if the folder's own is wrong.
    """

    kind, method, of_photo = "full", "synthesis", False

    def __init__(
        self,
        model: str,
        steps: int = 50,
        sampler: Literal["ddim", "ddpm"] = "ddim",
        eta: float = 0.0,
        scale: float | None = None,
    ) -> None:
        super().__init__(model, steps, sampler, eta, scale=scale)

    def __call__(self, scenes: list[Scene], prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        """Make a picture of its own for each scene."""
        nothing = torch.zeros(len(seeds), *self.model.shape, device=self.device)
        return self._made(nothing, nothing[:, :1], seeds)


class Repaint(_Diffusion):
    """A region by a model of pixels (Lugmayr et al. 2022).

    Args:
        model: Folder of diffusers, or ``toy:SIZE``.
        steps: Levels of noise.
        jump: Levels that are walked back up at a time.
        resample: Times that each stretch of ``jump`` levels is walked down; 1 for never back.
        sampler: ``ddim``, as in diffusers, or ``ddpm``, as in the authors' code.
        eta: Share of fresh noise of ``ddim``, 0 to 1.
        scale: Of latents, if the folder's own is wrong.
    """

    kind, method = "region", "inpainting"
    latent: ClassVar[bool] = False

    def __init__(
        self,
        model: str,
        steps: int = 250,
        jump: int = 10,
        resample: int = 10,
        sampler: Literal["ddim", "ddpm"] = "ddim",
        eta: float = 0.0,
        scale: float | None = None,
    ) -> None:
        super().__init__(model, steps, sampler, eta, jump, resample, scale)
        if self.latent != self.model.latent:
            what = "no autoencoder: use Repaint" if self.latent else "an autoencoder: use LatentRepaint"
            raise UserError(f"model: {model} has {what}")

    @torch.inference_mode()
    def __call__(self, scenes: list[Scene], prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        """Make the scenes' regions anew."""
        pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
        known = self.network.encoded((pixels.float() / 127.5 - 1).to(self.device))
        cell = self.model.cell
        regions = np.stack([whole_cells(scene.region, cell)[None, ::cell, ::cell] for scene in scenes])
        return self._made(known, torch.from_numpy(~regions).float().to(self.device), seeds)


class LatentRepaint(Repaint):
    """The same in the latents of an LDM, KL or VQ. All pixels pass its decoder, so its trace is everywhere.

    Args:
        model: Folder of diffusers with ``vae/`` or ``vqvae/``.
        steps: See `Repaint`.
        jump: See `Repaint`.
        resample: See `Repaint`.
        sampler: See `Repaint`.
        eta: See `Repaint`.
        scale: Of latents, if the folder's own is wrong.
    """

    paste, latent = False, True
