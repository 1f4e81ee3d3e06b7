"""The smallest folders of the kin of Stable Diffusion: XL, 3 without its T5, Flux Fill; at random, under 1 MB each."""

from pathlib import Path
from typing import Any

from dfl.data.toy.models import LAYER, seeded, tiny_parts

#: Text encoders that give one vector of a prompt too.
POOLED = LAYER | {"projection_dim": 32, "vocab_size": 514, "max_position_embeddings": 77}
POOLED |= {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}


def family(folder: Path, name: str) -> Path:
    """Write ``xl``, ``3`` or ``fill``."""
    import diffusers

    kind = {"xl": "StableDiffusionXL", "3": "StableDiffusion3", "fill": "FluxFill"}[name]
    parts = seeded({"xl": _xl, "3": _three, "fill": _fill}[name])
    getattr(diffusers, f"{kind}Pipeline")(**parts).save_pretrained(folder)
    return folder


def _words() -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    old = tiny_parts(4, 32, 77)
    pooled = CLIPTextModelWithProjection(CLIPTextConfig(**POOLED))
    return {"vae": old["vae"], "text_encoder": old["text_encoder"], "tokenizer": old["tokenizer"]} | {
        "text_encoder_2": pooled,
        "tokenizer_2": old["tokenizer"],
    }


def _vae16() -> Any:
    from diffusers import AutoencoderKL

    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    numbers = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 4, "latent_channels": 16, "sample_size": 64}
    return AutoencoderKL(
        **blocks, **numbers, scaling_factor=1.0, shift_factor=0.0, use_quant_conv=False, use_post_quant_conv=False
    )


def _xl() -> dict[str, Any]:
    from diffusers import DDIMScheduler, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=32 + 6 * 8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    return _words() | {"unet": unet, "scheduler": scheduler}


def _three() -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    network = SD3Transformer2DModel(
        sample_size=8,
        in_channels=16,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=64,
        out_channels=16,
    )
    words = _words() | {"text_encoder": CLIPTextModelWithProjection(CLIPTextConfig(**POOLED)), "vae": _vae16()}
    return words | {
        "transformer": network,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder_3": None,
        "tokenizer_3": None,
    }


def _fill() -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel, T5Tokenizer

    network = FluxTransformer2DModel(
        in_channels=384,
        out_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=True,
    )
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((chr(c), -1.0) for c in range(97, 123)), ("▁", -1.0)]
    longer = T5EncoderModel(T5Config(vocab_size=len(letters), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2))
    words = _words() | {"vae": _vae16(), "text_encoder": CLIPTextModel(CLIPTextConfig(**POOLED))}
    return words | {
        "transformer": network,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder_2": longer,
        "tokenizer_2": T5Tokenizer(vocab=letters, extra_ids=0),
    }
