"""A photo through a VAE and back: what every latent model leaves in a picture, without a model of what is seen.

As a maker it gives fakes that show what their photos show; as ``--roundtrip`` it gives real photos that trace, so that
a detector trained on them cannot tell by it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dfl.data.sources.trees import read_json
from dfl.errors import UserError
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models import folders
from dfl.tools.forge.models.base import Model, files_hash

#: Folders of autoencoders.
CODECS = ("vae", "vqvae")


def read_codec(folder: Path) -> tuple[str, int, dict[str, Any]]:
    """Return the class of an autoencoder, the pixels of a cell of its latents, and its config.

    Raises:
        UserError: If it is none, or not of RGB.
    """
    file = folder / "config.json"
    config = read_json(file, dict)
    name = folders.class_of(file, config, ("AutoencoderKL", "VQModel"))
    for key in ("in_channels", "out_channels"):
        if (channels := folders.number(file, config, key, 3)) != 3:
            raise UserError(f"model: {file} says {key} {channels}, and it must be the 3 of RGB: take another model")
    return name, folders.factor(file, config, 1), config


def latents(codec: Any, images: Tensor) -> Tensor:
    """Return the latents of images: the likeliest of a KL autoencoder, those of VQ before they are quantized."""
    found = codec.encode(images)
    return found.latents if hasattr(found, "latents") else found.latent_dist.mode()


class Vae(Model):
    """The VAE of a folder of diffusers, KL or VQ, always in float32: that of SD XL overflows in 16 bits.

    Args:
        model: Folder that has one in ``vae/`` or ``vqvae/``, or that is one.

    Raises:
        UserError: If it is not there, not of RGB, or has pickled weights alone.
    """

    kind, method = "edit", "reconstruction"

    def __init__(self, model: str) -> None:
        folder = folders.existing(model)
        self.folder = next((folder / name for name in CODECS if (folder / name).is_dir()), folder)
        self.codec, self.multiple, _ = read_codec(self.folder)
        self.variant = folders.variant_of([self.folder])

    def about(self) -> dict[str, Any]:
        """Return the hash of weights and config."""
        files = [file for file in self.folder.iterdir() if file.suffix in (".json", folders.SAFE)]
        return {"sha256": files_hash(files, self.folder)}

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the VAE."""
        cls = getattr(folders.diffusers(), self.codec)
        self.network = folders.loaded(cls, self.folder, torch.float32, self.variant).to(device)

    def vae(self) -> "Vae":
        """Return itself."""
        return self

    @torch.inference_mode()
    def __call__(self, scenes: list[Scene], prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        """Return each photo as the VAE gives it back: the likeliest latent, no chance; one at a time, for memory."""
        made = []
        for scene in scenes:
            x = torch.from_numpy(scene.image).to(self.network.device).permute(2, 0, 1)[None].float() / 127.5 - 1
            y = self.network.decode(latents(self.network, x)).sample
            made.append(((y[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy())
        return made
