"""The smallest Stable Diffusion folders (those of the toy models) and LoRA files: no test downloads one."""

from functools import partial
from pathlib import Path

from dfl.data.toy import models
from dfl.data.toy.models import seeded

#: Reads 77 tokens, as CLIP does.
stable_diffusion = partial(models.stable_diffusion, tokens=77)


def lora(folder: Path, base: Path, scale: float = 1.0, rank: int = 2) -> Path:
    """Return a LoRA file at random for the cross-attention of a folder's UNet."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet", local_files_only=True)
    adapter = LoraConfig(r=rank, target_modules=["to_q", "to_v"], init_lora_weights=False)
    seeded(lambda: unet.add_adapter(adapter), 7)
    weights = {name: scale * weight for name, weight in get_peft_model_state_dict(unet).items()}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=weights)
    return folder / "pytorch_lora_weights.safetensors"
