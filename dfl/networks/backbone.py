"""Backbones by timm name, with weights from timm, from a local file, or none on purpose.

Weights that were asked for and are not found are an error, never a silent random start.
"""

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants as hub
from safetensors.torch import load_file
from timm.data import resolve_model_data_config
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from dfl.errors import UserError, near
from dfl.hub import offline_if_no_network
from dfl.networks.normalize import Normalize
from dfl.runs import archive

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
        model: Any = _from_timm(f"{name.split('.')[0]}.{weights}" if weights else name, **kwargs)
        heads = _heads(model)
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


def load_weights(model: nn.Module, file: str) -> None:
    """Load a local file into a timm model; positions of a ViT for another size of images are interpolated.

    A head of another number of classes stays at random, as in timm. A head of one output z, as binary detectors have
    it, becomes one of the two logits 0 and z, which say the same: z is the log-odds of fake. A beginning that all names
    of the file share, such as ``module.``, is taken off.

    Raises:
        UserError: If the file is not there, is no weights file, or its names or shapes do not fit.
    """
    own = model.state_dict()
    state, heads = _at_its_size(_without_prefix(read_state(file), own), model), _heads(model)
    of_head = tuple(f"{head}." for head in heads) or ("\0",)
    for key in [k for k in state if k.startswith(of_head) and k in own]:
        if len(state[key]) == 1 and len(own[key]) == 2 and state[key].shape[1:] == own[key].shape[1:]:
            state[key] = torch.cat([torch.zeros_like(state[key]), state[key]])
            if key.endswith("weight"):
                warnings.warn(
                    f"{file} has one output, which is taken as the log-odds of fake (1 is fake)", stacklevel=2
                )
    dropped = [k for k in state if k.startswith(of_head) and (k not in own or own[k].shape != state[k].shape)]
    for key in dropped:
        del state[key]
    wrong = [k for k in state.keys() & own.keys() if own[k].shape != state[k].shape]
    missing = [k for k in own if k not in state and not (k.startswith(of_head) and dropped)]
    extra = [k for k in state if k not in own]
    refuse_misfit(file, {"of another shape": wrong, "missing": missing, "unknown": extra})
    model.load_state_dict(state, strict=False)
    #: Beginnings of the names that the file gave nothing for.
    model.at_random = heads if dropped else ()  # type: ignore[assignment]


def _at_its_size(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Return a table with the positions of a ViT interpolated to the size of images that it is built for, as timm does.

    Positions of another width stay as they are, and do not fit.
    """
    here, own = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if here is None or own is None or here.shape == own.shape or here.ndim != 3 or here.shape[-1] != own.shape[-1]:
        return state
    prefix = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
    if math.isqrt(here.shape[1] - prefix) ** 2 != here.shape[1] - prefix:
        return state
    return state | {"pos_embed": resample_abs_pos_embed(here, list(model.patch_embed.grid_size), None, prefix)}


def _heads(model: nn.Module) -> tuple[str, ...]:
    """Return the names of a timm model's classifiers."""
    head = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (head,) if isinstance(head, str) else tuple(head)


def _without_prefix(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a table without the beginnings that all its names share and no own name has, if names fit then."""
    whole = state
    while len(first := {key.partition(".")[0] for key in state}) == 1:
        (prefix,) = (f"{name}." for name in first)
        if any(key.startswith(prefix) for key in own) or not all(key.startswith(prefix) for key in state):
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state if state.keys() & own.keys() else whole


def refuse_misfit(source: str, misfits: Mapping[str, list[str]], most: int = 3) -> None:
    """Raise a UserError that counts the names of each kind of misfit and lists the first; none is no error."""
    parts = [f"{len(names)} {what} ({', '.join(sorted(names)[:most])})" for what, names in misfits.items() if names]
    if parts:
        raise UserError(f"{source} does not fit the network: {'; '.join(parts)}")


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
    own = model.state_dict()
    state = _without_prefix(read_state(file), own)
    for pattern, name in OFFICIAL:
        state = {re.sub(pattern, name, key): value for key, value in state.items()}
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
    model.at_random = tuple(missing)  # type: ignore[assignment]
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
    with path.open("rb") as opened:
        begins = opened.read(64)
    if problem := archive.wrong(path):
        raise UserError(f"{path} {problem}")
    try:
        if begins[8:9] == b"{":  # safetensors, whatever the file is called
            state: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the file looks like a program
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # the readers raise many kinds; each means that this is not a weights file
        raise UserError(f"{path} {_why_unread(begins, str(e))}") from e
    with archive.distrusted(path):
        state = _unwrapped(state, path)
    state = {k.removeprefix("module."): v for k, v in state.items()}
    inner = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    return inner or state


#: What files call the table of their weights.
WRAPPERS = ("state_dict", "model", "net", "model_state_dict", "network", "params")


def _unwrapped(state: Any, path: Path) -> dict[str, Tensor]:
    """Return the table of tensors in what a file holds.

    Raises:
        UserError: If there is none, or several that could be meant.
    """
    while isinstance(state, Mapping) and not any(isinstance(value, Tensor) for value in state.values()):
        tables = {key: value for key, value in state.items() if isinstance(value, Mapping) and value}
        candidates = [name for name in WRAPPERS if name in tables][:1] or list(tables)
        if len(candidates) > 1:
            names = ", ".join(map(str, candidates))
            raise UserError(f"{path} holds several tables ({names}); save the one that is meant")
        if not candidates:
            break
        state = tables[candidates[0]]
    if not isinstance(state, dict) or not state or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no table of tensors")
    return {str(key): Tensor.detach(value) for key, value in dict.items(state)}


def _why_unread(begins: bytes, message: str) -> str:
    """Return why a file is no weights file, as the end of a sentence, from its first bytes and what torch said."""
    if not begins:
        return "is empty"
    if begins.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: git lfs pull"
    if begins.lstrip().startswith(b"<"):
        return "is a web page, not the file that was to be downloaded"
    again = "save its weights alone where you trust it: torch.save(model.state_dict(), 'weights.pth')"
    if "TorchScript" in message:
        return f"is a TorchScript program, which is not run here; {again}"
    if hit := re.search(r"GLOBAL ([\w.]+)", message):
        return (
            f"is no weights file that can be read safely: it holds a pickled object ({hit[1]}), and to read it could "
            f"run code; {again}"
        )
    return "is no weights file that can be read safely: it is cut off or damaged, or of another kind"


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
