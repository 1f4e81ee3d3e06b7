"""The smallest generator and captioner, built at random, always the same: pictures of noise, words of single letters.

They show and test what is made by models of users, without a download: ``dfl toy --models``. Each is a folder of
diffusers or transformers, under 1 MB, with a tokenizer of bytes or letters.
"""

from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from dfl.errors import UserError
from dfl.hub import without_bars
from dfl.runs.output_folder import output_folder

LETTERS = [chr(ord("a") + i) for i in range(26)]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
#: A transformer of one layer.
LAYER: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}


def make_models(root: str | Path) -> Path:
    """Make ``stable_diffusion`` and ``captioner`` below a folder, unless they are there; return the folder.

    Raises:
        UserError: If the folder holds something else, or diffusers is not installed.
    """
    if not RequirementCache("diffusers>=0.42"):
        raise UserError("toy models need the package diffusers: pip install 'dfl[generate]'")
    with output_folder(root, "toy_models", {"version": 1}) as folder:
        if not folder.done:
            with without_bars():
                stable_diffusion(folder.partial / "stable_diffusion")
                captioner(folder.partial / "captioner")
            folder.finish()
    return Path(root)


def seeded(build: Any, seed: int = 0) -> Any:
    """Return what a function builds of random numbers, without touching those of anyone else."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def stable_diffusion(
    folder: Path, kind: str = "StableDiffusionPipeline", channels: int = 4, hidden: int = 32, tokens: int = 160
) -> Path:
    """Write a Stable Diffusion of 64 px, 0.1 M parameters.

    Args:
        folder: Where.
        kind: Class of the pipeline that the folder is of.
        channels: What its network takes: latents, and what stands beside them.
        hidden: Width of its words.
        tokens: Most of a prompt; the captions of the toy set have up to 130 letters, each a token.
    """
    import diffusers

    parts = seeded(lambda: tiny_parts(channels, hidden, tokens), channels)
    levels = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = diffusers.DDIMScheduler(**levels, clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    words = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    getattr(diffusers, kind)(**parts, scheduler=scheduler, **words).save_pretrained(folder)
    return folder


def tiny_parts(channels: int, hidden: int, tokens: int) -> dict[str, Any]:
    """Return the networks and the tokenizer of a Stable Diffusion; see `stable_diffusion`."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from tokenizers import pre_tokenizers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    # CLIP's letters: 256 bytes, and each at the end of a word
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], model_max_length=tokens
    )
    words = LAYER | {"hidden_size": hidden, "max_position_embeddings": tokens}
    words |= {"bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    text = CLIPTextConfig(vocab_size=514, **words)
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
        sample_size=64,
        scaling_factor=1.0,
    )
    return {"unet": unet, "vae": vae, "text_encoder": CLIPTextModel(text), "tokenizer": tokenizer}


def letters(folder: Path) -> int:
    """Write BERT's tokenizer of single letters; return how many tokens it has."""
    from transformers import BertTokenizer

    folder.mkdir(parents=True)
    tokens = [*SPECIAL, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(tokens))
    BertTokenizer(str(folder / "vocab.txt"), bos_token="[DEC]").save_pretrained(folder)
    return len(tokens)


def louder(model: Any) -> Any:
    """Return a model with larger random weights, or all images would give one caption."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3)
    return model


def captioner(folder: Path) -> Path:
    """Write a BLIP that sees 32 px."""
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipImageProcessor

    ids = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = LAYER | ids | {"vocab_size": letters(folder), "encoder_hidden_size": 32, "max_position_embeddings": 128}
    config = BlipConfig(vision_config=LAYER | {"image_size": 32, "patch_size": 8}, text_config=text, projection_dim=32)
    seeded(lambda: louder(BlipForConditionalGeneration(config))).save_pretrained(folder)
    BlipImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
