"""From an embedding of [SEG] to a mask: SAM, SAM 2, or a small decoder on the features that the vision tower has.

SAM's image encoder is frozen and sees the image at its own size; the embedding is the one sparse token of its prompt.
What the encoder gives can be kept on disk (`dfl.features`).
The small decoder needs no second look at the image: its maps are what the language model's own tower saw.
"""

import json
import math
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from torch import Tensor, nn

from dfl.errors import UserError
from dfl.features import FeatureStore
from dfl.networks.normalize import IMAGENET, Normalize


class SidaFusion(nn.Module):
    """Add to the [SEG] embedding what it finds out from the detection: one cross-attention.

    ``official`` is the published code: the class logits ask, the [SEG] embedding is the only key and value. A softmax
    over one key is 1 whatever is asked, so the output is seg + out(v(seg)): the class has no say in the mask, and the
    projection of the class gets a gradient of exactly 0. It is computed step by step: a fused kernel's backward pass
    leaves rounding of 1e-7 on some processors, out of which AdamW makes steps of full size.

    ``two_key`` makes the exchange real: the [SEG] embedding asks, and finds two keys, the projected class logits and
    itself.

    Args:
        dim: C, of the embedding; a multiple of 8, the heads of the attention.
        mode: Which.
    """

    def __init__(self, dim: int, mode: Literal["official", "two_key"] = "two_key") -> None:
        super().__init__()
        self.mode = mode
        self.project = nn.Linear(3, dim)
        self.attention = nn.MultiheadAttention(dim, 8, batch_first=True)

    def forward(self, class_logit: Tensor, seg: Tensor) -> Tensor:
        """Map class logits (N, 3) and embeddings (N, C) to the fused embeddings (N, C)."""
        detection, own = self.project(class_logit)[:, None], seg[:, None]
        if self.mode == "official":
            query, keys = detection, own
        else:
            query, keys = own, torch.cat([detection, own], 1)
        # asked for its weights it takes no fused kernel
        return seg + self.attention(query, keys, keys, need_weights=self.mode == "official")[0][:, 0]


class Light(nn.Module):
    """Modulate features with the embedding, scale them up four times, and ask each pixel how near the embedding it is.

    Args:
        width: D, channels of the features.
        dim: C, of the embedding.
        hidden: Channels within; a multiple of 16.
    """

    def __init__(self, width: int, dim: int = 256, hidden: int = 64) -> None:
        super().__init__()
        self.dim = dim
        self.enter = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.GroupNorm(8, hidden))
        self.modulate = nn.Linear(dim, 2 * hidden)
        self.mix = nn.Sequential(nn.GELU(), nn.Conv2d(hidden, hidden, 3, padding=1), nn.GroupNorm(8, hidden), nn.GELU())
        self.rise = nn.Sequential(nn.Conv2d(hidden, hidden * 4, 3, padding=1), nn.PixelShuffle(4), nn.GELU())
        self.ask = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden // 4 + 1))

    def forward(self, image: Tensor, features: Tensor, prompt: Tensor) -> Tensor:
        """Map features (N, D, g, g) and embeddings (N, C) to logits (N, 4 g, 4 g); the image is not looked at."""
        scale, shift = self.modulate(prompt)[:, :, None, None].chunk(2, 1)
        x = self.enter(features.to(prompt.dtype))
        x = self.rise(self.mix(x * (1 + scale) + shift))
        want = self.ask(prompt)
        return torch.einsum("nchw,nc->nhw", x, want[:, :-1]) + want[:, -1, None, None]


class Sam(nn.Module):
    """SAM or SAM 2 of transformers: frozen encoder, trained decoder, one mask.

    Args:
        sam: The model.
    """

    def __init__(self, sam: Any) -> None:
        super().__init__()
        if sam.config.model_type not in ("sam", "sam2"):
            raise UserError(f"model.mask is of the type {sam.config.model_type!r}; it must be light, a SAM or a SAM 2")
        self.normalize = Normalize(*IMAGENET)
        self.sam, self.second = sam, sam.config.model_type == "sam2"
        self.dim = int(sam.config.mask_decoder_config.hidden_size)
        self.side = int(sam.config.prompt_encoder_config.image_size)
        sam.requires_grad_(False)
        decoder = sam.mask_decoder
        decoder.requires_grad_(True)
        # a loss of masks alone teaches these nothing, and the convolutions run before the decoder, without gradients
        idle = ("iou_prediction_head", "pred_obj_score_head", "conv_s0", "conv_s1")
        for name in idle:
            if getattr(decoder, name, None) is not None:
                getattr(decoder, name).requires_grad_(False)
        if self.second:
            decoder.dynamic_multimask_via_stability = False  # the one mask that was trained, in evaluation too
        #: Where image embeddings are kept, if anywhere.
        self.cache: FeatureStore | None = None

    def keep_embeddings(self, folder: str | Path | None, gigabytes: float = math.inf) -> None:
        """Keep the image embeddings in a folder from now on, and take them from there; None: not any more."""
        if folder is None:
            self.cache = None
            return
        config = self.sam.config
        settings = {k: v for k, v in config.vision_config.to_dict().items() if k != "_name_or_path"}
        words = json.dumps([transformers.__version__, config.model_type, settings], sort_keys=True, default=str)
        self.cache = FeatureStore(folder, self._encoder_weights, words, 1e9 * gigabytes, "model.cache")

    def _encoder_weights(self) -> dict[str, Tensor]:
        """Return all weights that the image embeddings depend on; SAM 2 has some of them in its decoder."""
        others = ("prompt_encoder.", "mask_decoder.", "shared_image_embedding.")
        return {
            name: weight
            for name, weight in self.sam.state_dict(keep_vars=True).items()
            if not name.startswith(others) or name.startswith("mask_decoder.conv_s")
        }

    def _embed(self, image: Tensor) -> list[Tensor]:
        maps = self.sam.get_image_embeddings(self.normalize(image).to(self.sam.dtype))
        return list(maps) if self.second else [maps]

    def forward(self, image: Tensor, features: Tensor, prompt: Tensor) -> Tensor:
        """Map images (N, 3, S, S) in [0, 1] and embeddings (N, C) to logits (N, S / 4, S / 4)."""
        with torch.no_grad():
            maps = self.cache(image, self._embed) if self.cache else self._embed(image)
            place = self.sam.get_image_wide_positional_embeddings()
            dense = self.sam.prompt_encoder(None, None, None, None)[1] if not self.second else self._no_mask(maps[-1])
        extra = {"high_resolution_features": maps[:-1]} if self.second else {}
        n = len(image)
        return self.sam.mask_decoder(
            image_embeddings=maps[-1],
            image_positional_embeddings=place.expand(n, -1, -1, -1),
            sparse_prompt_embeddings=prompt[:, None, None].to(maps[-1].dtype),
            dense_prompt_embeddings=dense.expand(n, -1, -1, -1),
            multimask_output=False,
            **extra,
        )[0][:, 0, 0]

    def _no_mask(self, last: Tensor) -> Tensor:
        weight = self.sam.prompt_encoder.no_mask_embed.weight
        return weight.reshape(1, -1, 1, 1).expand(1, -1, *last.shape[-2:])
