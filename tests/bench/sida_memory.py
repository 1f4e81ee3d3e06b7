"""How much GPU memory SIDA needs to train, counted without a GPU and without weights.

    python -m tests.bench.sida_memory

Models are built from their configurations on the meta device, at true size, so parameters are counted, not estimated.
What a step keeps for its backward pass is counted too: one and two decoder layers with LoRA run forward on the meta
device, autograd says which tensors it saves, each storage counts once and parameters do not. The difference is one
layer. Attention saves what a fused kernel saves (query, key, value, output, log-sum-exp), not the matrix of weights.

Per parameter: frozen 2 bytes (bf16), or 4.5 bits in linear layers of the language model under NF4; frozen 4 bytes
(float32) in SAM; trainable 4 bytes, its gradient 4, AdamW's two moments 8 (float32). Activations are bf16, as autocast
has them. With checkpointing a layer keeps its input, and one layer at a time is there whole. On top come the frozen SAM
encoder's largest attention (bias and scores of its global layers), what FSDP has whole (the layer at work and the next,
and all that is in none of the layers that `dfl.training.sharded` cuts), and 1 GiB for context, workspaces and
fragmentation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SamConfig,
    SamModel,
    SamVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dfl.training.sharded import SMALLEST, layers

GIB = 2**30
OVERHEAD = GIB
TRAINABLE = 4 + 4 + 8  # weight, gradient, moments
NF4 = 4.5 / 8  # blocks of 64 values with a float32 scale


class _Fused(torch.autograd.Function):
    """What a fused attention kernel saves: query, key, value, output, and a log-sum-exp for each query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out


def _attention(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return _Fused.apply(query, key, value).transpose(1, 2).contiguous(), None


ALL_ATTENTION_FUNCTIONS.register("counted", _attention)
ALL_MASK_ATTENTION_FUNCTIONS.register("counted", lambda *_, **__: None)


@contextmanager
def counting(*modules: nn.Module) -> Iterator[list[int]]:
    """Yield a list that ends as [bytes saved for backward], each storage once, the modules' parameters left out."""
    held = {p.untyped_storage()._cdata for m in modules for p in (*m.parameters(), *m.buffers())}
    kept: dict[int, Tensor] = {}
    total = [0]

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in held and key not in kept:
            kept[key] = tensor  # held on to, so that no other storage gets its place
            total[0] += tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total


@dataclass
class Size:
    """One combination of a language model and SAM, in parameters and bytes for each image."""

    name: str
    language: PreTrainedConfig
    build: Callable[[Any], nn.Module]
    sam: SamConfig
    tokens: int  # of image, prompt and answer
    whole_embedding: bool = False  # trained whole, as the official code does
    rank: int = 8  # of LoRA
    targets: str = "q_proj|v_proj"
    batch: int = 2  # images on a GPU

    def count(self) -> "Counted":
        """Build everything on the meta device and count."""
        with torch.device("meta"):
            model, sam = self.build(self.language), SamModel(self.sam)
        linear = sum(
            m.weight.numel()
            for n, m in model.named_modules()
            if isinstance(m, nn.Linear) and ("language_model" in n or "text_model" in n)
        )
        base, sam_base = (sum(p.numel() for p in m.parameters()) for m in (model, sam))
        text = self.language.get_text_config()
        dim, rows = text.hidden_size, text.vocab_size
        lora = sum(p.numel() for n, p in self._lora(model).named_parameters() if "lora_" in n)
        detection = dim * dim // 2 + dim // 2 + dim // 2 * 3 + 3
        projection = dim * dim + dim + dim * 256 + 256
        fusion = 3 * 256 + 256 + 4 * (256 * 256 + 256)
        decoder = sum(p.numel() for p in sam.mask_decoder.parameters())
        new = rows * dim if self.whole_embedding else 2 * 3 * dim
        return Counted(
            base=base,
            sam=sam_base,
            linear=linear,
            trainable=lora + detection + projection + fusion + decoder + new,
            frozen=base - (rows * dim if self.whole_embedding else 0),
            frozen_sam=sam_base - decoder,
            layers=text.num_hidden_layers,
            layer=sum(p.numel() for p in _first_layer(model).parameters()),
            together=2 * _together(model) + 4 * _together(sam),
            largest=max(m.weight.numel() for m in _first_layer(model).modules() if isinstance(m, nn.Linear)),
            of_layer=self._saved(2) - self._saved(1),
            outside=2 * self._saved(1) - self._saved(2) + _saved_by_decoder(sam),
            layer_input=2 * self.tokens * dim,
            sam_attention=2 * 2 * self._sam_attention(),
        )

    def _saved(self, layers: int) -> int:
        """Return the bytes that the language model with so many layers and its loss save for an image."""
        config = type(self.language).from_dict(self.language.to_dict())
        text = config.get_text_config()
        text.num_hidden_layers = layers
        if getattr(text, "layer_types", None):
            text.layer_types = text.layer_types[:layers]
        config._attn_implementation = "counted"
        with torch.device("meta"):
            model = self._lora(self.build(config)).to(torch.bfloat16)
            embeds = torch.empty(1, self.tokens, text.hidden_size, dtype=torch.bfloat16, requires_grad=True)
            labels, known = (torch.zeros(1, self.tokens, dtype=torch.long) for _ in range(2))
            with counting(model) as total:
                place = torch.zeros(3, 1, self.tokens, dtype=torch.long) if "qwen" in config.model_type else None
                model(inputs_embeds=embeds, attention_mask=known, position_ids=place, labels=labels, use_cache=False)
        return total[0]

    def _lora(self, model: nn.Module) -> nn.Module:
        layers = rf".*(language_model|text_model).*\.({self.targets})"
        return get_peft_model(model, LoraConfig(r=self.rank, lora_alpha=16, lora_dropout=0.05, target_modules=layers))

    def _sam_attention(self) -> int:
        vision = self.sam.vision_config
        return vision.num_attention_heads * (vision.image_size // vision.patch_size) ** 4


@dataclass
class Counted:
    """Parameters, and bytes for each image of a batch on one GPU."""

    base: int
    sam: int
    linear: int
    trainable: int
    frozen: int
    frozen_sam: int
    layers: int
    layer: int
    together: int
    largest: int
    of_layer: int
    outside: int
    layer_input: int
    sam_attention: int

    @property
    def frozen_bytes(self) -> int:
        """Bytes of what is not trained: the language model in bf16, SAM in float32."""
        return 2 * self.frozen + 4 * self.frozen_sam

    def activations(self, batch: int, checkpointing: bool) -> int:
        """Return the bytes that a batch keeps for its backward pass, at their peak."""
        inside = self.layers * self.layer_input + self.of_layer if checkpointing else self.layers * self.of_layer
        return batch * (inside + self.outside)

    def peak(self, how: str, gpus: int, batch: int, checkpointing: bool = True) -> float:
        """Return the bytes on one GPU at the peak of a step.

        Args:
            how: ``ddp``, ``fsdp`` or ``4-bit`` (with DDP).
            gpus: How many.
            batch: Images on each.
            checkpointing: Whether layers are run again in the backward pass.
        """
        frozen, trained = float(self.frozen_bytes), float(TRAINABLE * self.trainable)
        if how == "fsdp":  # all in parts
            frozen, trained = frozen / gpus + 2 * 2 * self.layer + self.together, trained / gpus
        elif how == "4-bit":  # the linear layer at work is there in bf16
            frozen += self.linear * (NF4 - 2) + 2 * self.largest
        elif how != "ddp":
            raise ValueError(how)
        return frozen + trained + self.activations(batch, checkpointing) + batch * self.sam_attention + OVERHEAD


def _together(network: nn.Module) -> int:
    """Return the parameters that are in none of the layers that are gathered by themselves."""
    cut = sum(p.numel() for layer in layers(network, SMALLEST) for p in layer.parameters())
    return sum(p.numel() for p in network.parameters()) - cut


def _first_layer(model: nn.Module) -> nn.Module:
    text = getattr(model.model, "language_model", None) or model.model.text_model
    return text.layers[0]


def _saved_by_decoder(sam: SamModel) -> int:
    """Return the bytes that the mask decoder saves for an image, float32, and the mask loss at SAM's size."""
    side = sam.config.vision_config.image_size // sam.config.vision_config.patch_size
    with torch.device("meta"):
        maps, prompt = torch.empty(1, 256, side, side), torch.empty(1, 1, 1, 256, requires_grad=True)
        sam.vision_encoder.requires_grad_(False)
        with counting(sam) as total:
            low = sam.mask_decoder(maps, maps, prompt, maps, multimask_output=False)[0]
            full = nn.functional.interpolate(low[:, 0], sam.config.vision_config.image_size, mode="bilinear")
            nn.functional.binary_cross_entropy_with_logits(full, torch.empty_like(full)).add(full.sigmoid().sum())
    return total[0]


def llava(size: str) -> LlavaConfig:
    """Return LLaVA 1.5 (Vicuna, CLIP ViT-L/14 at 336 px) with 7 or 13 billion parameters."""
    wide = {"7b": (4096, 11008, 32, 32), "13b": (5120, 13824, 40, 40)}[size]
    dim, hidden, layers, heads = wide
    text = LlamaConfig(
        vocab_size=32064,
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
    )
    vision = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    return LlavaConfig(vision_config=vision, text_config=text, image_token_index=32000)


def smolvlm(size: str) -> SmolVLMConfig:
    """Return SmolVLM with 256 or 500 million parameters."""
    dim, hidden, layers, heads = {"256m": (576, 1536, 30, 9), "500m": (960, 2560, 32, 15)}[size]
    text = LlamaConfig(
        vocab_size=49280,
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 3,
    )
    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vision |= {"image_size": 512, "patch_size": 16}
    return SmolVLMConfig(vision_config=vision, text_config=text, scale_factor=4, tie_word_embeddings=False)


def qwen3_vl() -> Qwen3VLConfig:
    """Return Qwen3-VL with 2 billion parameters."""
    text = {"vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28}
    text |= {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": True}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20]}}
    vision = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048}
    vision |= {"num_position_embeddings": 2304, "deepstack_visual_indexes": [5, 11, 17]}
    return Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


def sam(size: str) -> SamConfig:
    """Return SAM with the encoder ViT-B or ViT-H, at 1,024 px."""
    dim, layers, heads, at = {"b": (768, 12, 12, (2, 5, 8, 11)), "h": (1280, 32, 16, (7, 15, 23, 31))}[size]
    vision = SamVisionConfig(
        hidden_size=dim, num_hidden_layers=layers, num_attention_heads=heads, global_attn_indexes=list(at)
    )
    return SamConfig(vision_config=vision)


#: An image is 576 tokens for LLaVA 1.5 (336 px), 196 for Qwen3-VL (448 px) and 64 for SmolVLM (512 px); 250 more for
#: prompt and answer.
SIZES = (
    Size("LLaVA 7B + SAM ViT-H", llava("7b"), LlavaForConditionalGeneration, sam("h"), 826),
    Size("the same, embedding trained whole", llava("7b"), LlavaForConditionalGeneration, sam("h"), 826, True),
    Size("LLaVA 13B + SAM ViT-H", llava("13b"), LlavaForConditionalGeneration, sam("h"), 826),
    Size("Qwen3-VL 2B + SAM ViT-B", qwen3_vl(), Qwen3VLForConditionalGeneration, sam("b"), 446),
    Size("SmolVLM 500M + SAM ViT-B", smolvlm("500m"), SmolVLMForConditionalGeneration, sam("b"), 314),
    Size(
        "`sida_small.yaml`: the same, rank 16 on q, k, v, o, 4 images",
        smolvlm("500m"),
        SmolVLMForConditionalGeneration,
        sam("b"),
        314,
        rank=16,
        targets="q_proj|k_proj|v_proj|o_proj",
        batch=4,
    ),
)
GPUS = (1, 2, 4, 8)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(sizes: Sequence[Size] = SIZES) -> str:
    """Return the two tables of docs/detectors/sida.md."""
    parts, peaks = [], []
    for size in sizes:
        one = size.count()
        parts.append(
            [
                size.name,
                f"{one.base / 1e6:,.0f} + {one.sam / 1e6:,.0f}",
                f"{one.trainable / 1e6:,.1f}",
                f"{one.frozen_bytes / GIB:.1f}",
                *(f"{n * one.trainable / GIB:.2f}" for n in (4, 4, 8)),
                f"{one.activations(1, False) / GIB:.2f}",
                f"{one.activations(1, True) / GIB:.2f}",
                f"{one.sam_attention / GIB:.2f}",
            ]
        )
        if size.whole_embedding:
            continue
        for how in ("ddp", "fsdp", "4-bit"):
            many = GPUS if how == "fsdp" else (1,)
            cells = [f"{one.peak(how, n, size.batch) / GIB:.1f}" if n in many else "as 1" for n in GPUS]
            peaks.append([size.name, how, *cells, f"{one.peak(how, 1, size.batch, False) / GIB:.1f}"])
    first = ["", "parameters, M", "trained, M", "frozen", "trained", "gradients", "moments", "activations"]
    first += ["with checkpointing", "SAM's attention"]
    second = ["", "strategy", *(f"{n} GPU{'s' * (n > 1)}" for n in GPUS), "1 GPU, no checkpointing"]
    return f"{table(first, parts)}\n\n{table(second, peaks)}"


def main() -> None:
    """Print the tables."""
    print(tables())


if __name__ == "__main__":
    main()
