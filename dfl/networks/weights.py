"""Weights in files: read what holds them as tensors by name, and fit them to a network, or say what does not fit."""

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from dfl.errors import UserError
from dfl.networks.released import XCEPTION, renamed
from dfl.runs import archive


def load_weights(model: nn.Module, file: str) -> None:
    """Load a local file into a timm model; positions of a ViT for another size of images are interpolated.

    A head stays at random, as in timm, if the file has none or one of another number of classes. A head of one output
    z, as binary detectors have it, becomes one of the two logits 0 and z, which say the same: z is the log-odds of
    fake. A beginning that all names of the file share, such as ``module.``, is taken off; names of others that
    `dfl.networks.released` knows are turned into ours.

    Raises:
        UserError: If the file is not there, is no weights file, or its names or shapes do not fit.
    """
    own = model.state_dict()
    state = _without_prefix(renamed(read_state(file), model, file), own)
    state, heads = _at_its_size(state, model), heads_of(model)
    of_head = tuple(f"{head}." for head in heads)
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
    headless = bool(dropped) or not any(k.startswith(of_head) for k in state)
    refuse_misfit(file, own, state, fresh=of_head if headless else ())
    model.load_state_dict(state, strict=False)
    #: Beginnings of the names that the file gave nothing for.
    model.at_random = heads if headless else ()  # type: ignore[assignment]


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


def heads_of(model: nn.Module) -> tuple[str, ...]:
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


def refuse_misfit(
    source: str,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    spare: tuple[str, ...] = (),
    fresh: tuple[str, ...] = (),
) -> None:
    """Raise a UserError that counts what of a table does not fit a network, and lists the first names of each kind.

    Args:
        source: Where the table is from.
        own: The network's.
        state: The table. Counters of batches may be missing, as from older files.
        spare: Beginnings of names that it may have beyond the network.
        fresh: Beginnings of names that it need not have, or may have of another shape.
    """
    wanted = [k for k in own if not k.startswith(fresh) and (k in state or not k.endswith("num_batches_tracked"))]
    misfits = {
        "of another shape": [k for k in wanted if k in state and own[k].shape != state[k].shape],
        "missing": [k for k in wanted if k not in state],
        "unknown": [k for k in state if k not in own and not k.startswith(spare)],
    }
    parts = [f"{len(names)} {what} ({', '.join(sorted(names)[:3])})" for what, names in misfits.items() if names]
    if parts:
        raise UserError(f"{source} does not fit the network: {'; '.join(parts)}")


def load_named(
    model: nn.Module,
    file: str,
    spare: tuple[str, ...] = (),
    fresh: tuple[str, ...] = (),
    state: dict[str, Tensor] | None = None,
) -> None:
    """Load an official file into a network by name.

    Args:
        model: Gets the tensors; it calls them as timm does.
        file: A local file of Patch-Forensics, dolos, FFD, ImageNet weights, or a checkpoint of ``dfl``.
        spare: Beginnings of names that the file may have beyond the network.
        fresh: Beginnings of names that may stay as they are, because the file has none, or of another shape.
        state: What it holds, where that is read already.

    Raises:
        UserError: If the file is not there, is no weights file, or its names or shapes do not fit.
    """
    own = model.state_dict()
    state = _without_prefix(read_state(file) if state is None else state, own)
    for pattern, name in XCEPTION:
        state = {re.sub(pattern, name, key): value for key, value in state.items()}
    # Keras-born files have their pointwise convolutions as matrices
    state = {k: v[..., None, None] if k in own and v.ndim == 2 and own[k].ndim == 4 else v for k, v in state.items()}
    refuse_misfit(file, own, state, spare, fresh)
    fits = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(fits, strict=False)
    missing = (k for k in own if k not in fits and not k.endswith("num_batches_tracked"))
    model.at_random = tuple(missing)  # type: ignore[assignment]


def weights_file(file: str | Path) -> Path:
    """Return the path of a local file of weights.

    Raises:
        UserError: If it is not there.
    """
    path = Path(file).expanduser()
    if not path.is_file():
        raise UserError(f"no weights file '{file}' (looked in {path.absolute().parent}); set weights to a local file")
    return path


def read_state(file: str | Path) -> dict[str, Tensor]:
    """Read tensors by name from a safetensors, torch or Keras file; wrappings and ``module.`` are taken off.

    Of a checkpoint of ``dfl`` it is what its ``network`` holds.

    Raises:
        UserError: If the file is not there, holds anything but tensors, or cannot be read.
    """
    path = weights_file(file)
    with path.open("rb") as opened:
        begins = opened.read(64)
    if problem := archive.wrong(path):
        raise UserError(f"{path} {problem}")
    try:
        if begins[8:9] == b"{":  # safetensors, whatever the file is called
            state: Any = load_file(path)
        elif begins.startswith(HDF5):
            state = _read_h5(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the file looks like a program
                state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as e:  # the readers raise many kinds; each means that this is not a weights file
        raise UserError(f"{path} {_why_unread(begins, str(e))}") from e
    with archive.distrusted(path):
        state = _unwrapped(state, path)
    state = {k.removeprefix("module."): v for k, v in state.items()}
    inner = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
    return inner or state


#: How an HDF5 file begins.
HDF5 = b"\x89HDF\r\n\x1a\n"


def _read_h5(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of Keras 2 (HDF5) as ``layer.word``, such as ``conv2d_5.kernel``, as they lie there.

    It holds tables of arrays, of which nothing is run.

    Raises:
        UserError: If h5py is not installed, or an array is larger than the file or lies outside it.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} is a file of Keras, which h5py reads: pip install 'dfl[keras]'") from error

    tensors: dict[str, Tensor] = {}

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind != "f":
            return
        if item.is_virtual or item.external or item.nbytes > path.stat().st_size:
            raise UserError(f"{path}: {name} is larger than the file or lies outside it, so Keras did not write it")
        layer, word = name.split("/")[-2:] if "/" in name else ("", name)
        tensors[f"{layer}.{word.partition(':')[0]}"] = torch.from_numpy(item[()]).float()

    with h5py.File(path) as file:
        file.visititems(take)
    return tensors


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
    if bare := next((key for key, value in state.items() if value.is_meta), None):
        raise UserError(f"{path} holds the shape of {bare} and no values: the network that was saved had none")
    return {str(key): Tensor.detach(value) for key, value in dict.items(state)}


def _why_unread(begins: bytes, message: str) -> str:
    """Return why a file is no weights file, as the end of a sentence, from its first bytes and what torch said."""
    if not begins:
        return "is empty"
    if begins.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: git lfs pull"
    if begins.lstrip().startswith(b"<"):
        return "is a web page, not the file that was to be downloaded"
    if hit := re.search(r"GLOBAL ([\w.]+)", message):
        return (
            f"is no weights file that can be read safely: it holds a pickled object ({hit[1]}), and to read it could "
            f"run code; {archive.AGAIN}"
        )
    return "is no weights file that can be read safely: it is cut off or damaged, or of another kind"
