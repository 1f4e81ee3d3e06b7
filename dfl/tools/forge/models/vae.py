"""A photo through a VAE and back: what every latent model leaves in a picture, without a model of what is seen.

As a maker it gives fakes that show what their photos show; as ``--roundtrip`` it gives real photos that trace, so that
a detector trained on them cannot tell by it.
"""

from typing import Any

import numpy as np
import torch

from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models import folders
from dfl.tools.forge.models.base import Model, files_hash


class Vae(Model):
    """The VAE of a folder of diffusers, always in float32: that of SD XL overflows in 16 bits.

    Args:
        model: Folder that has one in ``vae/``, or that is one.

    Raises:
        UserError: If it is not there, or has pickled weights alone.
    """

    kind, method = "edit", "reconstruction"

    def __init__(self, model: str) -> None:
        folder = folders.existing(model)
        self.folder = folder / "vae" if (folder / "vae").is_dir() else folder
        config = folders.read_json(self.folder / "config.json")
        folders.class_of(self.folder / "config.json", config, ["AutoencoderKL"])
        self.variant = folders.variant_of([self.folder])
        self.multiple = 2 ** (len(config.get("block_out_channels") or [0] * 4) - 1)
        self._sha256 = ""

    def about(self) -> dict[str, Any]:
        """Return the hash of weights and config."""
        files = [file for file in self.folder.iterdir() if file.suffix in (".json", folders.SAFE)]
        self._sha256 = self._sha256 or files_hash(files, self.folder)
        return {"sha256": self._sha256}

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the VAE."""
        cls = folders.diffusers().AutoencoderKL
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
            y = self.network.decode(self.network.encode(x).latent_dist.mode()).sample
            made.append(((y[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy())
        return made
