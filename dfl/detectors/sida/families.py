"""What differs between families of vision-language models of transformers: how an image becomes tokens.

An image is encoded once, `Seen`: its tokens go to the language model, the features of the vision tower to the light
mask decoder. As the prompt is the same for all images, so is the place of the image tokens in it.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfl.errors import UserError
from dfl.networks.normalize import CLIP, HALF


@dataclass
class Seen:
    """N images as a vision tower sees them."""

    tokens: Tensor  # (N, T, d), what the language model gets
    features: Tensor  # (N, D, g, g) of the tower itself
    raw: Any = None  # what the model returned, for families that need more than the tokens


class Family:
    """The parts of a model by name; the base is for models whose language model takes image tokens as embeddings.

    Args:
        config: The model's.
        side: Of the images in pixels; None takes the tower's own.
    """

    #: ``model_type`` of config.json.
    types: tuple[str, ...] = ()
    image_token = "<image>"
    #: All further tokens of the prompt that a tokenizer made here has to know.
    tokens: tuple[str, ...] = ()
    prompt = "USER: {image}\n{question} ASSISTANT:"
    #: Names under ``model.model``.
    tower, projector, text = "vision_tower", "multi_modal_projector", "language_model"
    normalisation = CLIP

    def __init__(self, config: Any, side: int | None = None) -> None:
        self.config, self.patch = config, int(config.vision_config.patch_size)
        self.side = side or int(config.vision_config.image_size)
        step = self.patch * self.merge
        if self.side % step:
            raise UserError(f"model.view_size is {self.side}: it must be a multiple of {step}, the side of a token")

    @property
    def merge(self) -> int:
        """Patches along one side of a token."""
        return 1

    @property
    def count(self) -> int:
        """Tokens of one image."""
        return int((self.side // (self.patch * self.merge)) ** 2)

    @property
    def width(self) -> int:
        """Channels of the tower's features."""
        return int(self.config.vision_config.hidden_size)

    def part(self, model: nn.Module, name: str) -> nn.Module:
        """Return the module ``tower``, ``projector`` or ``text``.

        Raises:
            UserError: If the model has none.
        """
        try:
            return model.get_submodule(f"model.{getattr(self, name)}")
        except AttributeError as error:
            raise UserError(
                f"{type(model).__name__} has no part {getattr(self, name)!r}: model.language must be an image-text "
                f"model of the families {', '.join(sorted(FAMILIES))}"
            ) from error

    def see(self, model: Any, image: Tensor) -> Seen:
        """Encode images (N, 3, side, side), normalised as the tower wants them."""
        # the tower's class token is dropped twice: by the model ("default") and here
        raw = model.model.get_image_features(pixel_values=image.to(model.dtype))
        return Seen(torch.stack(list(raw.pooler_output)), self._grid(raw.last_hidden_state[:, 1:]))

    def embed(self, model: Any, ids: Tensor, start: int, seen: Seen) -> Tensor:
        """Return the embeddings (N, L, d) of a sequence, image tokens put in."""
        own, n = model.get_input_embeddings()(ids), seen.tokens.shape[1]
        return torch.cat([own[:, :start], seen.tokens.to(own.dtype), own[:, start + n :]], 1)

    def hidden(self, model: Any, ids: Tensor, attention: Tensor, start: int, seen: Seen) -> Tensor:
        """Return the last hidden states (N, L, d), after the final norm."""
        embeds = self.embed(model, ids, start, seen)
        text = self.part(model, "text")
        return text(inputs_embeds=embeds, attention_mask=attention, use_cache=False).last_hidden_state

    def generate(self, model: Any, ids: Tensor, start: int, seen: Seen, **words: Any) -> Tensor:
        """Return the ids (N, T) that come after a prompt (N, L), the most likely one each time."""
        embeds = self.embed(model, ids, start, seen)
        return model.generate(
            inputs_embeds=embeds, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=True, **words
        )

    def _grid(self, patches: Tensor) -> Tensor:
        g = self.side // self.patch
        return patches.transpose(1, 2).unflatten(2, (g, g))


class Llava(Family):
    """LLaVA: CLIP, a projector, LLaMA or Vicuna."""

    types = ("llava",)

    def __init__(self, config: Any, side: int | None = None) -> None:
        super().__init__(config, side)
        own = int(config.vision_config.image_size)
        if self.side != own:
            raise UserError(f"model.view_size is {self.side}, and the vision tower sees images of {own}: leave it out")


class Smol(Family):
    """SmolVLM and Idefics3: SigLIP, and a connector that folds patches into channels. One view of the whole image."""

    types = ("smolvlm", "idefics3")
    tokens = ("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", "<|im_start|>")
    prompt = (
        "<|im_start|>User:<fake_token_around_image><global-img>{image}<fake_token_around_image>{question}"
        "<end_of_utterance>\nAssistant:"
    )
    tower, projector, text = "vision_model", "connector", "text_model"
    normalisation = HALF

    @property
    def merge(self) -> int:
        """Patches along one side of a token."""
        return int(self.config.scale_factor)

    def see(self, model: Any, image: Tensor) -> Seen:
        """Encode images; the model's own way would look for padded images, which there are none of."""
        g = self.side // self.patch
        whole = torch.ones(len(image), g, g, dtype=torch.bool, device=image.device)
        tower: Any = self.part(model, "tower")
        # its parts one by one: as a whole it would look into the mask, and wait for the device
        embedded = tower.embeddings(pixel_values=image.to(model.dtype), patch_attention_mask=whole)
        patches = tower.post_layernorm(tower.encoder(inputs_embeds=embedded, attention_mask=None).last_hidden_state)
        return Seen(self.part(model, "projector")(patches), self._grid(patches))


class Qwen(Family):
    """Qwen2.5-VL and Qwen3-VL: patches of any image size, rotary positions in three axes."""

    types = ("qwen2_5_vl", "qwen3_vl")
    image_token = "<|image_pad|>"
    tokens = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    prompt = "<|im_start|>user\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>\n<|im_start|>assistant\n"
    tower, projector = "visual", "visual.merger"

    def __init__(self, config: Any, side: int | None = None) -> None:
        super().__init__(config, side or 448)
        self.normalisation = HALF if config.model_type == "qwen3_vl" else CLIP

    @property
    def merge(self) -> int:
        """Patches along one side of a token."""
        return int(self.config.vision_config.spatial_merge_size)

    def see(self, model: Any, image: Tensor) -> Seen:
        """Encode images; their patches come in blocks of one token each, every frame twice."""
        n, g, m = len(image), self.side // self.patch, self.merge
        cells = image.reshape(n, 3, g // m, m, self.patch, g // m, m, self.patch)
        cells = cells.permute(0, 2, 5, 3, 6, 1, 4, 7)  # block row, block column, row, column, channel, y, x
        times = int(self.config.vision_config.temporal_patch_size)
        rows = cells[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, times, -1, -1).reshape(n * g * g, -1)
        raw = model.model.get_image_features(pixel_values=rows.to(model.dtype), image_grid_thw=self._size(image))
        features = raw.last_hidden_state.view(n, g // m, g // m, m, m, -1)
        features = features.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, g, g)
        return Seen(torch.stack(list(raw.pooler_output)), features, raw)

    def hidden(self, model: Any, ids: Tensor, attention: Tensor, start: int, seen: Seen) -> Tensor:
        """Return the last hidden states (N, L, d), after the final norm."""
        words = self._words(ids, seen) | {"mm_encoder_outputs": {"image": seen.raw}}
        return model.model(input_ids=ids, attention_mask=attention, use_cache=False, **words).last_hidden_state

    def generate(self, model: Any, ids: Tensor, start: int, seen: Seen, **words: Any) -> Tensor:
        """Return the ids (N, T) that come after a prompt (N, L), the most likely one each time."""
        words |= self._words(ids, seen) | {"mm_encoder_outputs": {"image": seen.raw}}
        attention = torch.ones_like(ids)
        whole = model.generate(input_ids=ids, attention_mask=attention, do_sample=False, use_cache=True, **words)
        return whole[:, ids.shape[1] :]

    def _words(self, ids: Tensor, seen: Seen) -> dict[str, Tensor]:
        kinds = (ids == self.config.image_token_id).int()
        return {"image_grid_thw": self._size(seen.tokens), "mm_token_type_ids": kinds}

    def _size(self, like: Tensor) -> Tensor:
        g = self.side // self.patch
        return torch.tensor([[1, g, g]] * len(like), device=like.device)


FAMILIES: dict[str, type[Family]] = {t: family for family in (Llava, Smol, Qwen) for t in family.types}


def family_of(config: Any, side: int | None = None) -> Family:
    """Return the family of a model's config.

    Raises:
        UserError: If there is no adapter for it.
    """
    kind = getattr(config, "model_type", None)
    if kind not in FAMILIES:
        raise UserError(f"model.language is of the type {kind!r}; there are adapters for {', '.join(sorted(FAMILIES))}")
    return FAMILIES[kind](config, side)
