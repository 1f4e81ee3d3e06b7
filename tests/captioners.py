"""The smallest captioners of transformers, built at random with tokenizers of letters: no test downloads one."""

from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    GPT2Tokenizer,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from dfl.data.toy.models import LAYER, letters, louder, seeded
from dfl.data.toy.models import captioner as blip

TOWER: dict[str, Any] = LAYER | {"image_size": 32, "patch_size": 8}
SIDE = {"height": 32, "width": 32}


def git(folder: Path) -> Path:
    n = letters(folder)
    ids = {"bos_token_id": 2, "eos_token_id": 3, "pad_token_id": 0}
    config = GitConfig(vision_config=TOWER, vocab_size=n, max_position_embeddings=128, **LAYER, **ids)
    louder(GitForCausalLM(config)).save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=SIDE).save_pretrained(folder)
    return folder


def vit_gpt2(folder: Path) -> Path:
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    GPT2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[]).save_pretrained(folder)
    end = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 256)
    text = GPT2Config(vocab_size=257, n_positions=128, n_embd=32, n_layer=1, n_head=2, add_cross_attention=True, **end)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**TOWER), text)
    model = louder(VisionEncoderDecoderModel(config=config))
    model.generation_config.update(decoder_start_token_id=256, eos_token_id=256, pad_token_id=256)
    model.save_pretrained(folder)
    ViTImageProcessor(size=SIDE).save_pretrained(folder)
    return folder


MAKERS = {"blip": blip, "git": git, "vit_gpt2": vit_gpt2}


def captioner(folder: Path, kind: str = "blip") -> Path:
    """Return a folder below another with a captioner of a kind, always the same."""
    if not (folder / kind).is_dir():
        seeded(lambda: MAKERS[kind](folder / kind))
    return folder / kind
