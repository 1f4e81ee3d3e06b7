"""The smallest folders of unconditional diffusion models, built at random: no test downloads one."""

import json
from pathlib import Path
from typing import Any

import torch


def ddpm(folder: Path, out: int = 3, channels: int = 3, flat: bool = False, **scheduler: Any) -> Path:
    """Return a folder with a DDPM of 16 px, or of so many channels for latents; always the same one."""
    from diffusers import DDPMScheduler, UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(out)
        unet = UNet2DModel(
            sample_size=16,
            in_channels=channels,
            out_channels=out,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )
    unet.save_pretrained(folder if flat else folder / "unet")
    DDPMScheduler(**scheduler).save_pretrained(folder if flat else folder / "scheduler")
    return folder


def ldm(folder: Path, vq: bool) -> Path:
    """Return a folder with a latent model: an autoencoder of 32 px, its cells 2 px, and a DDPM of 16 x 16 latents."""
    from diffusers import AutoencoderKL, VQModel

    blocks = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "latent_channels": 3 if vq else 4,
        "scaling_factor": 0.5,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codec = VQModel(**blocks, num_vq_embeddings=32) if vq else AutoencoderKL(**blocks)
    codec.save_pretrained(folder / ("vqvae" if vq else "vae"))
    channels = 3 if vq else 4
    return ddpm(folder, channels, channels, beta_schedule="scaled_linear", clip_sample=False)


def changed(folder: Path, file: str, **words: Any) -> Path:
    """Return the folder with other values in one of its configs."""
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | words))
    return folder
