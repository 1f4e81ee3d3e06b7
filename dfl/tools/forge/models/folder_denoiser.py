"""Unconditional diffusion models of diffusers, opened from a folder.

* a pipeline (DDPM, DDIM, PNDM): ``unet/`` and ``scheduler/``; or the same flat, as google/ddpm-celebahq-256 is;
* a latent one (LDM), which has an autoencoder beside them: ``vae/`` or ``vqvae/``, KL or VQ.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dfl.data.sources.trees import read_json
from dfl.errors import UserError
from dfl.tools.forge.models import folders
from dfl.tools.forge.models.base import files_hash
from dfl.tools.forge.models.denoiser import Denoiser
from dfl.tools.forge.models.vae import CODECS, latents, read_codec


class FolderDenoiser(Denoiser):
    """A model in a folder.

    Args:
        folder: The folder.
        scale: What latents are multiplied by; None for what the autoencoder's config says. Files that were converted
            may say diffusers' default, 0.18215, where they were trained with 1.

    Raises:
        UserError: If it holds no such model, one that predicts something else than the noise, or parts that do not
            belong together.
    """

    def __init__(self, folder: str, scale: float | None = None) -> None:
        self.folder = folders.existing(folder, "a folder of diffusers, or toy:64")
        if scale is not None and not 0 < scale < math.inf:
            raise UserError(f"scale is {scale}: latents are multiplied by it, so it must be a number above 0")
        unet, self.scheduler = self._file("unet", "config.json"), self._file("scheduler", "scheduler_config.json")
        self.unet, codecs = unet.parent, [self.folder / name for name in CODECS if (self.folder / name).is_dir()]
        self.weighted = [self.unet, *codecs[:1]]
        self.variant = folders.variant_of(self.weighted)
        self._read_scheduler()
        self._read_unet(unet)
        self.latent = bool(codecs)
        if self.latent:
            self.codec_class, self.cell, config = read_codec(codecs[0])
            self._check_latents(codecs[0] / "config.json", config)
            self.scale = scale or _scale(codecs[0] / "config.json", config)
        elif scale is not None or self.shape[0] != 3:
            why = "scale is that of one" if scale else f"its network makes {self.shape[0]} channels, and not RGB"
            raise UserError(f"model: {self.folder} has no autoencoder ({' or '.join(CODECS)}), and {why}")

    def _file(self, part: str, name: str) -> Path:
        """Return a config: in the folder of its part, or in the model's own where that is flat."""
        files = (self.folder / part / name, self.folder / name)
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise UserError(f"model: {self.folder} is no unconditional model of diffusers: no {part}/{name}, no {name}")
        return found

    def _read_scheduler(self) -> None:
        config = read_json(self.scheduler, dict)
        predicts = config.get("prediction_type", "epsilon")
        if predicts != "epsilon":
            raise UserError(f"model: {self.scheduler} says that it predicts {predicts!r}, and it must be the noise")
        self.levels = folders.number(self.scheduler, config, "num_train_timesteps", 1000)
        self.clip = config.get("clip_sample", True) is True

    def _read_unet(self, file: Path) -> None:
        config = read_json(file, dict)
        folders.class_of(file, config, ("UNet2DModel",))
        if config.get("num_class_embeds") or config.get("class_embed_type"):
            raise UserError(f"model: {file} asks for a class of each image; an unconditional one is needed")
        channels, made, size = (
            folders.number(file, config, f"{key}") for key in ("in_channels", "out_channels", "sample_size")
        )
        if made not in (channels, 2 * channels):
            raise UserError(f"model: {file} makes {made} channels of {channels}: it must be as many, or twice as many")
        if size % (step := folders.factor(file, config, 4)):
            raise UserError(f"model: {file} says sample_size {size}, and its blocks need one that divides by {step}")
        self.shape = (channels, size, size)

    def _check_latents(self, file: Path, config: dict[str, Any]) -> None:
        key = "latent_channels" if config.get("vq_embed_dim") is None else "vq_embed_dim"
        channels = folders.number(file, config, key, 3 if self.codec_class == "VQModel" else 4)
        if channels != self.shape[0]:
            raise UserError(
                f"model: {file} has latents of {channels} channels, and the network of {self.unet} takes "
                f"{self.shape[0]}: the parts do not belong together"
            )

    def about(self) -> dict[str, Any]:
        """Return the hash of weights and configs, and the scale of latents."""
        files = [one for part in self.weighted for one in part.iterdir() if one.suffix in (".json", folders.SAFE)]
        hashed = files_hash({*files, self.scheduler}, self.folder)
        return {"sha256": hashed} | ({"scale": self.scale} if self.latent else {})

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load network and autoencoder; the levels of noise are the scheduler's."""
        package = folders.diffusers()
        known = {key: value for key, value in read_json(self.scheduler, dict).items() if not key.startswith("_")}
        try:
            with folders.silent():
                self.betas = package.DDPMScheduler.from_config(known).betas.double().numpy()
        except Exception as error:  # as in `folders.loaded`
            raise UserError(f"model: {self.scheduler} cannot be used: {folders.one_line(error)}") from error
        if len(self.betas) != self.levels:
            held = f"{len(self.betas)} trained_betas, and num_train_timesteps is {self.levels}"
            raise UserError(f"model: {self.scheduler} holds {held}: they must be as many")
        parts = [package.UNet2DModel, *([getattr(package, self.codec_class)] if self.latent else [])]
        loaded = [
            folders.loaded(cls, folder, dtype, self.variant).to(device)
            for cls, folder in zip(parts, self.weighted, strict=True)
        ]
        self.network, self.codec, self.dtype = loaded[0], loaded[-1], dtype

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """Return what the network says."""
        return self.network(x.to(self.dtype), t).sample.float()

    def encoded(self, images: Tensor) -> Tensor:
        """Return latents; see `latents`."""
        if not self.latent:
            return images
        return self.scale * latents(self.codec, images.to(self.dtype)).float()

    def decoded(self, x: Tensor) -> Tensor:
        """Return what the autoencoder makes of latents."""
        return self.codec.decode((x / self.scale).to(self.dtype)).sample.float() if self.latent else x


def _scale(file: Path, config: dict[str, Any]) -> float:
    """Return the factor of latents that an autoencoder's config says; diffusers' own if it says none."""
    value = config.get("scaling_factor")
    if value is None:
        return 0.18215
    if not isinstance(value, (int, float)) or not 0 < value < math.inf:
        says = str(value)[:60]
        raise UserError(f"model: {file} says scaling_factor {says!r}, and it must be a number above 0 (or give scale)")
    return float(value)
