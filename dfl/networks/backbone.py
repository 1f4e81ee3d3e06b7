"""Backbones by timm name, with weights from timm, from a local file, or none on purpose.

Weights that were asked for and are not found are an error, never a silent random start.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants as hub
from safetensors.torch import load_file
from torch import Tensor, nn

from dfl.errors import UserError, near
from dfl.hub import offline_if_no_network

_Counts, _Rate = int | list[int], float
#: Arguments of ``timm.create_model`` that a checkpoint may give, those of an architecture, each with its kind.
TIMM: dict[str, Any] = {
    **dict.fromkeys(("img_size", "patch_size", "embed_dim", "depth", "depths", "dims", "num_heads"), _Counts),
    **dict.fromkeys(("num_classes", "output_stride", "reg_tokens", "stem_width", "layers", "channels"), _Counts),
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
        weights: Where from: a local file (safetensors, or a torch file that loads with ``weights_only=True``), or a
            timm tag, for example ``augreg2_in21k_ft_in1k``. None takes timm's default. Loaded even if
            ``pretrained`` is false.
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
        return _from_timm(f"{name.split('.')[0]}.{weights}" if weights else name, **kwargs)
    model = _made(name, **kwargs)
    load_weights(model, weights)
    return model


def wants_file(weights: str | None) -> bool:
    """Return whether weights are to come from a file, and not from a hub, a checkpoint or chance."""
    return weights is not None and is_file(weights) and not skips_weights()


def load_weights(model: nn.Module, file: str) -> None:
    """Load a local file into a timm model. A head of another number of classes stays at random, as in timm.

    Raises:
        UserError: If the file is not there, is no weights file, or its names or shapes do not fit.
    """
    state = read_state(file)
    head = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    heads = (head,) if isinstance(head, str) else tuple(head)
    own = model.state_dict()
    dropped = [
        k
        for k in state
        if k.startswith(tuple(f"{h}." for h in heads)) and (k not in own or own[k].shape != state[k].shape)
    ]
    for key in dropped:
        del state[key]
    wrong = [k for k in state.keys() & own.keys() if own[k].shape != state[k].shape]
    missing = [k for k in own if k not in state and not (k.startswith(tuple(f"{h}." for h in heads)) and dropped)]
    extra = [k for k in state if k not in own]
    refuse_misfit(file, {"of another shape": wrong, "missing": missing, "unknown": extra})
    model.load_state_dict(state, strict=False)
    #: Beginnings of the names that the file gave nothing for.
    model.at_random = heads if dropped else ()  # type: ignore[assignment]


def refuse_misfit(source: str, found: Mapping[str, list[str]], most: int = 3) -> None:
    """Raise a UserError that counts the names of each kind of misfit and lists the first; none is no error."""
    told = [f"{len(names)} {what} ({', '.join(sorted(names)[:most])})" for what, names in found.items() if names]
    if told:
        raise UserError(f"{source} does not fit the network: {'; '.join(told)}")


#: How official files call what is here called by timm's names.
OFFICIAL = (
    (r"(^|\.)c\.weight$", r"\1conv1.weight"),  # FFD as published: depthwise convolutions
    (r"skip_bn\.", "skipbn."),
    (r"^last_linear\.", "fc."),
    (r"^map\.c\.(conv1|pointwise)\.", r"map.\1."),  # FFD: direct regression
    (r"^(map\.c|map_conv1)\.", "map.block."),  # FFD: manipulation appearance model
    (r"^(map\.l|map_linear)\.", "map.linear."),
)


def load_named(model: nn.Module, file: str, spare: tuple[str, ...] = (), fresh: tuple[str, ...] = ()) -> list[str]:
    """Load an official file into a network by name.

    Args:
        model: Gets the tensors; it calls them as timm does.
        file: A local file of Patch-Forensics, dolos, FFD, ImageNet weights, or a checkpoint of ``dfl``.
        spare: Beginnings of names that the file may have beyond the network.
        fresh: Beginnings of names that may stay as they are, because the file has none, or of another shape.

    Returns:
        The names that stayed as they were.

    Raises:
        UserError: If the file is not there, is no weights file, or its names or shapes do not fit.
    """
    state = read_state(file)
    for pattern, name in OFFICIAL:
        state = {re.sub(pattern, name, key): value for key, value in state.items()}
    own = model.state_dict()
    # Keras-born files have their pointwise convolutions as matrices
    state = {k: v[..., None, None] if k in own and v.ndim == 2 and own[k].ndim == 4 else v for k, v in state.items()}
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    counters = tuple(k for k in own if k.endswith("num_batches_tracked"))  # older files have none
    missing = [k for k in own if k not in fits and k not in counters]
    wrong = [k for k in missing if k in state and not k.startswith(fresh or ("\0",))]
    absent = [k for k in missing if k not in state and not k.startswith(fresh or ("\0",))]
    extra = [k for k in state if k not in own and not k.startswith(spare or ("\0",))]
    refuse_misfit(file, {"of another shape": wrong, "missing": absent, "unknown": extra})
    model.load_state_dict(fits, strict=False)
    return missing


def read_state(file: str | Path) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors or torch file; wrappings and ``module.`` are taken off.

    Of a checkpoint of ``dfl`` it is what its ``network`` holds.

    Raises:
        UserError: If the file is not there, holds anything but tensors, or cannot be read.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"no weights file '{file}' (looked in {path.absolute().parent}); set weights to a local file")
    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as e:  # the readers raise many kinds; each means that this is not a weights file
        raise UserError(f"{path} is no weights file that can be read safely: {str(e).splitlines()[0]}") from e
    for wrapper in ("state_dict", "model", "net"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no table of tensors")
    state = {k.removeprefix("module."): v for k, v in state.items()}
    inner = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    return inner or state


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
    return "/" in weights or weights.endswith((".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar"))


def _alike(name: str) -> list[str]:
    stem = name.split("_")[0]
    return [m for m in timm.list_models() if m.startswith(stem)] or timm.list_models()
