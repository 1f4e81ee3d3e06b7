"""Backbones by timm name, with weights from timm, from a local file, or none on purpose.

Weights that were asked for and are not found are an error, never a silent random start.
"""

import socket
from collections.abc import Iterator
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

_skip: ContextVar[bool] = ContextVar("skip_weights", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Build networks without looking for weights: to count them, or because a checkpoint holds all of them."""
    token = _skip.set(True)
    try:
        yield
    finally:
        _skip.reset(token)


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
    if _skip.get():
        return _made(name, **kwargs)
    if weights is None or not _is_file(weights):
        if not pretrained and weights is None:
            return _made(name, **kwargs)
        return _from_timm(f"{name.split('.')[0]}.{weights}" if weights else name, **kwargs)
    model = _made(name, **kwargs)
    load_weights(model, weights)
    return model


def wants_file(weights: str | None) -> bool:
    """Return whether weights are to come from a file, and not from a hub, a checkpoint or chance."""
    return weights is not None and _is_file(weights) and not _skip.get()


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
    if wrong or missing or extra:
        what = [
            f"{len(v)} {n} ({', '.join(sorted(v)[:3])})"
            for n, v in (("of another shape", wrong), ("missing", missing), ("unknown", extra))
            if v
        ]
        raise UserError(f"{file} does not fit the network: {'; '.join(what)}")
    model.load_state_dict(state, strict=False)
    #: Beginnings of the names that the file gave nothing for.
    model.at_random = heads if dropped else ()  # type: ignore[assignment]


def read_state(file: str | Path) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors or torch file; a wrapping ``state_dict`` and ``module.`` are taken off.

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
    for wrapper in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{path} holds no table of tensors")
    return {k.removeprefix("module."): v for k, v in state.items()}


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
        with _offline_if_no_network():
            return _made(name, pretrained=True, **kwargs)
    except UserError:
        raise
    except Exception as e:  # network, hub and timm errors alike: the weights are not to be had
        raise UserError(
            f"no weights for {name}: not in the caches {hub.HF_HUB_CACHE} and {torch.hub.get_dir()}, and "
            f"{urlsplit(hub.ENDPOINT).hostname} did not give them; download them where there is a network and set "
            "model.weights to the file, or start at random with model.pretrained=false; `make demo` needs none"
        ) from e


@contextmanager
def _offline_if_no_network() -> Iterator[None]:
    """Spare the user a minute of retries where the hub's name cannot even be looked up."""
    before = hub.HF_HUB_OFFLINE
    try:
        socket.getaddrinfo(urlsplit(hub.ENDPOINT).hostname, 443)
    except OSError:
        hub.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _is_file(weights: str) -> bool:
    return "/" in weights or weights.endswith((".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar"))


def _alike(name: str) -> list[str]:
    stem = name.split("_")[0]
    return [m for m in timm.list_models() if m.startswith(stem)] or timm.list_models()
