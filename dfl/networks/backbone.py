"""Backbones by timm name, with weights from timm, from a local file, or none on purpose.

Weights that were asked for and are not found are an error, never a silent random start.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants as hub
from timm.data import resolve_model_data_config
from torch import nn

from dfl.errors import UserError, near
from dfl.hub import offline_if_no_network
from dfl.networks.normalize import Normalize
from dfl.networks.weights import heads_of, load_weights

_Counts, _Rate = int | list[int], float
#: Arguments of ``timm.create_model`` that a checkpoint may give, those of an architecture, each with its kind.
TIMM: dict[str, Any] = {
    **dict.fromkeys(("img_size", "patch_size", "embed_dim", "depth", "depths", "dims", "num_heads"), _Counts),
    **dict.fromkeys(("num_classes", "output_stride", "reg_tokens", "stem_width", "layers"), _Counts),
    **dict.fromkeys(("channels", "hidden"), _Counts),
    **dict.fromkeys(("drop_rate", "drop_path_rate", "drop_block_rate", "attn_drop_rate"), _Rate | None),
    **dict.fromkeys(("proj_drop_rate", "pos_drop_rate", "patch_drop_rate", "init_values", "mlp_ratio"), _Rate | None),
    **dict.fromkeys(("qkv_bias", "class_token", "no_embed_class", "dynamic_img_size"), bool),
    **dict.fromkeys(("pad_type", "global_pool", "act_layer", "norm_layer"), str),
}

_skip: ContextVar[bool] = ContextVar("skip_weights", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build networks without looking for weights: to count them, or because a checkpoint holds all of them."""
    token = _skip.set(True)
    try:
        yield
    finally:
        _skip.reset(token)


def skips_weights() -> bool:
    """Whether networks are built without looking for weights just now."""
    return _skip.get()


def create_backbone(name: str, pretrained: bool = True, weights: str | None = None, **kwargs: Any) -> nn.Module:
    """Build a timm model.

    Args:
        name: timm name, for example ``vit_base_patch16_224``.
        pretrained: Load weights. False starts at random.
        weights: Where from: a local file (safetensors, Keras's .h5, or a torch file that loads with
            ``weights_only=True``), or a timm tag, for example ``augreg2_in21k_ft_in1k``. None takes timm's default.
            Loaded even if ``pretrained`` is false.
        **kwargs: Passed to timm, for example ``num_classes`` or ``pad_type``.

    Raises:
        UserError: If timm has no such model, or the weights are not there or do not fit.
    """
    if not timm.is_model(name):
        raise UserError(f"timm has no model {name!r}" + near(name.split(".")[0], _alike(name)))
    if skips_weights():
        return _made(name, **kwargs)
    if weights is None or not is_file(weights):
        if not pretrained and weights is None:
            return _made(name, **kwargs)
        model: Any = _from_timm(f"{name.split('.')[0]}.{weights}" if weights else name, **kwargs)
        heads = heads_of(model)
        other = getattr(model, "num_classes", 0) not in (0, getattr(model, "pretrained_cfg", {}).get("num_classes"))
        model.at_random = heads if other else ()
        return model
    model = _made(name, **kwargs)
    load_weights(model, weights)
    return model


def backbone_and_view(
    name: str,
    pretrained: bool,
    weights: str | None,
    input_size: int | None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    **kwargs: Any,
) -> tuple[Any, int, Normalize]:
    """Build a timm model for a size of images; return it, the size, and the normalisation that it begins with.

    Args:
        name: timm name.
        pretrained: As for `create_backbone`.
        weights: As for `create_backbone`.
        input_size: Side of the images in pixels; by default the model's own.
        mean: Normalisation of values in [0, 1]; by default the model's own.
        std: The same.
        **kwargs: Passed to timm.

    Raises:
        UserError: As `create_backbone`.
    """
    config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if input_size and config is not None and config.fixed_input_size:  # a ViT is built for one size
        kwargs = {"img_size": input_size} | kwargs
    network = create_backbone(name, pretrained, weights, **kwargs)
    own = resolve_model_data_config(network)
    return network, input_size or own["input_size"][-1], Normalize(mean or own["mean"], std or own["std"])


def wants_file(weights: str | None) -> bool:
    """Return whether weights are to come from a file, and not from a hub, a checkpoint or chance."""
    return weights is not None and is_file(weights) and not skips_weights()


def is_convolutional(model: nn.Module) -> bool:
    """Return whether most of the parameters are in convolutions, so that channels_last is faster."""
    conv = sum(p.numel() for m in model.modules() if isinstance(m, nn.Conv2d) for p in m.parameters(recurse=False))
    return 2 * conv > sum(p.numel() for p in model.parameters())


def _made(name: str, pretrained: bool = False, **kwargs: Any) -> nn.Module:
    try:
        return timm.create_model(name, pretrained=pretrained, **kwargs)
    except TypeError as e:  # an argument that this model does not take
        raise UserError(f"timm cannot build {name} with {kwargs}: {e}") from e


def _from_timm(name: str, **kwargs: Any) -> nn.Module:
    try:
        known = timm.get_pretrained_cfg(name)
        if known is None or not known.has_weights:
            raise UserError(
                f"no weights for {name} on any hub: set model.weights to a file, or start at random with "
                "model.pretrained=false"
            )
        with offline_if_no_network():
            return _made(name, pretrained=True, **kwargs)
    except UserError:
        raise
    except Exception as e:  # network, hub and timm errors alike: the weights are not to be had
        raise UserError(
            f"no weights for {name}: not in the caches {hub.HF_HUB_CACHE} and {torch.hub.get_dir()}, and "
            f"{urlsplit(hub.ENDPOINT).hostname} did not give them; download them where there is a network and set "
            "model.weights to the file, or start at random with model.pretrained=false; `make demo` needs none"
        ) from e


def is_file(weights: str) -> bool:
    """Return whether ``weights`` is meant as a file, not as a tag of timm."""
    return "/" in weights or weights.endswith((".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar", ".h5"))


def _alike(name: str) -> list[str]:
    stem = name.split("_")[0]
    return [m for m in timm.list_models() if m.startswith(stem)] or timm.list_models()
