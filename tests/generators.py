"""The smallest Stable Diffusion folders, built at random with a tokenizer of bytes: no test downloads one."""

from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


def _tokenizer() -> CLIPTokenizer:
    # CLIP's letters: 256 bytes, and each at the end of a word
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def _parts(channels: int, hidden: int) -> dict[str, Any]:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    end = {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    text = CLIPTextConfig(
        vocab_size=514, hidden_size=hidden, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2, **end
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=hidden,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        sample_size=32,
        scaling_factor=1.0,
    )
    return {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(text), "tokenizer": _tokenizer()}


def stable_diffusion(folder: Path, kind: str = "StableDiffusionPipeline", channels: int = 4, hidden: int = 32) -> Path:
    """Return a folder with a Stable Diffusion of a kind at random, always the same: about 0.1 M parameters."""
    import diffusers

    with torch.random.fork_rng():
        torch.manual_seed(channels)
        parts = _parts(channels, hidden)
    levels = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = diffusers.DDIMScheduler(**levels, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    words = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipeline = getattr(diffusers, kind)(**parts, scheduler=scheduler, **words)
    pipeline.save_pretrained(folder)
    return folder


def lora(folder: Path, base: Path, scale: float = 1.0, rank: int = 2) -> Path:
    """Return a LoRA file at random for the cross-attention of a folder's UNet."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet", local_files_only=True)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        unet.add_adapter(LoraConfig(r=rank, target_modules=["to_q", "to_v"], init_lora_weights=False))
        weights = {name: scale * weight for name, weight in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights)
    return folder / "pytorch_lora_weights.safetensors"
