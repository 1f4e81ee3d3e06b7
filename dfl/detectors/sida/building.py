"""Pretrained models of transformers by name or folder, or random ones from a config of plain types."""

import copy
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, BitsAndBytesConfig

from dfl.detectors.sida.families import FAMILIES, Family, family_of
from dfl.detectors.sida.masks import Light, Sam
from dfl.detectors.sida.text import NEW_TOKENS, Conversation, local_tokenizer
from dfl.errors import UserError, first_line
from dfl.networks.backbone import skips_weights
from dfl.networks.pretrained import named_tokenizer, pretrained

_Count, _Counts = int, int | list[int]
_Rope = {"rope_type": str, "rope_theta": float, "mrope_section": list[int], "mrope_interleaved": bool}
#: Parts that are built from numbers alone; others of transformers may look for weights of their own.
_PARTS = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma", "phi", "phi3", "qwen2_5_vl_text", "qwen3_vl_text"),
    *("clip_vision_model", "siglip_vision_model", "smolvlm_vision", "idefics3_vision"),
    *("qwen2_5_vl_vision", "qwen2_5_vl", "qwen3_vl_vision", "qwen3_vl"),
    *("sam_vision_model", "sam2_vision_model", "sam2_hiera_det_model"),
)
_Part: dict[str, Any] = {
    "model_type": Literal[_PARTS],
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "depth"), _Count),
    **dict.fromkeys(("num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "num_heads"), _Count),
    **dict.fromkeys(("num_channels", "in_channels", "projection_dim", "mlp_dim", "output_channels"), _Count),
    **dict.fromkeys(("num_pos_feats", "iou_head_hidden_dim", "num_multimask_outputs", "out_hidden_size"), _Count),
    **dict.fromkeys(
        ("spatial_merge_size", "temporal_patch_size", "num_position_embeddings", "fpn_hidden_size"), _Count
    ),
    **dict.fromkeys(("scale_factor", "image_seq_length", "vision_feature_layer", "image_token_id"), _Count),
    **dict.fromkeys(("image_size", "patch_size", "window_size", "blocks_per_stage", "embed_dim_per_stage"), _Counts),
    **dict.fromkeys(("num_attention_heads_per_stage", "window_size_per_stage", "global_attention_blocks"), _Counts),
    **dict.fromkeys(("global_attn_indexes", "fullatt_block_indexes", "deepstack_visual_indexes"), _Counts),
    **dict.fromkeys(("window_positional_embedding_background_size", "backbone_channel_list"), _Counts),
    "backbone_feature_sizes": list[list[int]],
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "rope_theta", "attention_dropout", "initializer_range"), float),
    **dict.fromkeys(("hidden_act", "vision_feature_select_strategy"), str),
    **dict.fromkeys(("tie_word_embeddings", "attention_bias", "qkv_bias", "use_abs_pos", "use_rel_pos"), bool),
    "rope_parameters": _Rope,
}
#: Entries of a config.json that a checkpoint may give, those of an architecture, each with its kind.
CONFIG: dict[str, Any] = _Part | {
    "model_type": Literal[(*FAMILIES, "sam", "sam2")],
    **dict.fromkeys(("text_config", "prompt_encoder_config", "mask_decoder_config"), _Part),
    "vision_config": _Part | {"backbone_config": _Part},
}


def build(
    what: str,
    name: str | None,
    config: Mapping[str, Any] | None,
    dtype: str = "float32",
    four_bit: bool = False,
    vocabulary: int | None = None,
    check: Callable[[Any], object] = lambda config: None,
) -> tuple[Any, bool]:
    """Build a model.

    Args:
        what: The argument that names it, for errors: ``language`` or ``mask``.
        name: Hub name or folder; its weights are taken, from safetensors.
        config: What its config.json holds, with ``model_type``: a random model where there is no name, or where weights
            are skipped.
        dtype: Of its weights.
        vocabulary: Tokens that a random language model knows, where its config does not say.
        four_bit: Linear layers of the language model proper in 4 bits (NF4), through bitsandbytes; vision tower,
            projector and output layer stay as they are.
        check: Raises for a config that will not do, before gigabytes are made or loaded.

    Returns:
        The model and whether its weights came from the name.

    Raises:
        UserError: If it is not there, is none that transformers knows, or its weights do not fit; if 4 bits are asked
            for without bitsandbytes, or without weights.
    """
    if four_bit and name is None:
        raise UserError("model.four_bit packs pretrained weights, and model.language names none: leave one out")
    auto = AutoModelForImageTextToText if what == "language" else AutoModel
    if name is None or (skips_weights() and config is not None):
        if not config:
            raise UserError(f"model.{what} names no model and model.{what}_config does not describe one: give one")
        settings = copy.deepcopy(dict(config))
        kind = settings.pop("model_type", None)
        if vocabulary and "text_config" in settings:
            settings["text_config"] = {"vocab_size": vocabulary} | settings["text_config"]
        try:
            built = AutoConfig.for_model(kind, **settings)
            check(built)
            # elsewhere the fastest; it looks into masks, and where there are only shapes none can be looked into
            attention = "eager" if torch.get_default_device().type == "meta" else None
            return auto.from_config(built, dtype=getattr(torch, dtype), attn_implementation=attention), False
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"model.{what}_config makes no model of type {kind!r}: {first_line(error)}") from error
    if four_bit and not RequirementCache("bitsandbytes>=0.46.1"):
        raise UserError("model.four_bit needs bitsandbytes: pip install 'dfl[sida]'")

    def words(config: Any) -> dict[str, Any]:
        check(config)
        return {"quantization_config": in_four_bits(config)} if four_bit else {}

    try:
        model = pretrained(f"model.{what}", name, auto, words, getattr(torch, dtype))
    except UserError as error:
        if four_bit and isinstance(why := error.__cause__, ImportError | RuntimeError):
            raise UserError(f"model.four_bit: bitsandbytes cannot load {name!r} here: {first_line(why)}") from error
        raise
    return model, True


def in_four_bits(config: Any) -> BitsAndBytesConfig:
    """Return how bitsandbytes packs a model of this config: NF4, products in bfloat16 (QLoRA, Dettmers et al. 2023)."""
    family = FAMILIES[config.model_type]
    unpacked = [f"model.{family.tower}", f"model.{family.projector}", "lm_head"]
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=unpacked,  # its name, but read for 4 bits as well
    )


def add_rows(model: Any, length: int) -> None:
    """Make room for ``length`` tokens; rows beyond the old ones are the old ones' mean, with a little fixed noise.

    They are the same on every machine: a checkpoint that leaves the frozen base out finds it as it was.
    """
    old = model.get_input_embeddings().weight.shape[0]
    if length <= old:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.resize_token_embeddings(length, mean_resizing=False)
    tables = {id(t.weight): t.weight for t in (model.get_input_embeddings(), model.get_output_embeddings())}
    for weight in tables.values():
        _fill(weight, old)


def _fill(weight: nn.Parameter, old: int) -> None:
    if weight.is_meta:
        return
    noise = torch.randn(
        (len(weight) - old, weight.shape[1]), generator=torch.Generator("cpu").manual_seed(0), device="cpu"
    )
    with torch.no_grad():
        old_rows: Tensor = weight[:old].float()
        weight[old:] = (old_rows.mean(0) + 0.1 * old_rows.std(0) * noise.to(weight.device)).to(weight.dtype)


def fit_vocabulary(model: Any, conversation: Conversation, tokenizer: Any, named: bool) -> None:
    """Give a model rows for the new tokens, and if its tokenizer was made here the ids that it has.

    Args:
        model: The language model.
        conversation: Knows the new tokens.
        tokenizer: Of the model.
        named: The model came from a name, with ids of its own.
    """
    add_rows(model, max(len(tokenizer), max(conversation.new) + 1))
    config, text = model.config, model.config.get_text_config()
    for part, name in ((config, "image_token_id"), (config, "image_token_index")):
        if hasattr(part, name):
            setattr(part, name, conversation.image)
    if named:
        return
    for part in (text, model.generation_config):
        part.pad_token_id, part.eos_token_id = conversation.pad, tokenizer.eos_token_id
        part.bos_token_id = tokenizer.bos_token_id


def mask_decoder(mask: str | None, config: dict[str, Any] | None, width: int, dim: int) -> tuple[Light | Sam, bool]:
    """Return what draws the mask, and whether its weights came from a name."""
    if mask == "light":
        return Light(width, dim, **(config or {})), False
    sam, named = build("mask", mask, config)
    return Sam(sam), named


def language_side(hparams: Mapping[str, Any]) -> tuple[Any, bool, Family, Conversation]:
    """Return the language model, whether its weights came from a name, its family and its conversation.

    Args:
        hparams: Arguments of `Sida` by name.
    """
    language, config = hparams["language"], hparams["language_config"]
    if language is None or (skips_weights() and config is not None):
        kind = FAMILIES.get(str((config or {}).get("model_type")), Family)  # others are refused when it is built
        tokenizer = local_tokenizer(hparams["corpus"] or [], (kind.image_token, *kind.tokens))
    else:
        tokenizer = named_tokenizer("model.language", language)
    vocabulary = len(tokenizer) + len(NEW_TOKENS)
    model, named = build("language", language, config, hparams["dtype"], hparams["four_bit"], vocabulary, family_of)
    family = family_of(model.config, hparams["view_size"])
    longest = int(getattr(model.config.get_text_config(), "max_position_embeddings", 2048))
    predicting, most = hparams["feature"] == "predicting", hparams["longest_answer"]
    words = (family.prompt, family.image_token, family.count)
    conversation = Conversation(tokenizer, *words, predicting, longest, most)
    fit_vocabulary(model, conversation, tokenizer, named)
    return model, named, family, conversation
