"""Folders of diffusers, looked at before anything is loaded: what they say is plain values, never code.

diffusers takes a relative word for a name on the hub, falls back to pickles where it is let, and imports the classes
that a folder names. So a folder must be there, its classes must be of a table here, and its weights safetensors.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from logging import CRITICAL
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.imports import RequirementCache

from dfl.data.sources.trees import read_json
from dfl.errors import UserError
from dfl.networks.pretrained import quiet

_HAS_DIFFUSERS = RequirementCache("diffusers>=0.42")
#: Where parts of a pipeline may come from.
LIBRARIES = ("diffusers", "transformers")
#: Weights that are read, and those that can run code.
SAFE, PICKLES = ".safetensors", (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")


def diffusers() -> Any:
    """Return the package, which takes seconds to import.

    Raises:
        UserError: If it is not installed.
    """
    if not _HAS_DIFFUSERS:
        raise UserError("models of diffusion need the package diffusers: pip install 'dfl[generate]'")
    import diffusers

    return diffusers


def existing(folder: str, what: str = "a folder of diffusers") -> Path:
    """Return a folder's path.

    Raises:
        UserError: If it is not there: nothing is looked up on the hub.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"model: no folder {folder!r} in {Path.cwd()}; download the model and give {what}")
    return path


def class_of(file: Path, config: dict[str, Any], classes: Sequence[str]) -> str:
    """Return the class that a config is of.

    Raises:
        UserError: If it is none of those that may stand there.
    """
    name = config.get("_class_name")
    if not isinstance(name, str) or name not in classes:
        raise UserError(f"model: {file} is of {str(name)[:60]!r}, and this maker takes {' or '.join(classes)}")
    return name


def number(file: Path, config: dict[str, Any], key: str, default: int | None = None) -> int:
    """Return a whole number of a config.

    Raises:
        UserError: If it is none.
    """
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 20:
        raise UserError(f"model: {file} says {key} {str(value)[:60]!r}, and it must be a whole number")
    return value


def factor(file: Path, config: dict[str, Any], blocks: int) -> int:
    """Return by how much a network divides height and width: each of its blocks but the last halves them.

    Args:
        file: The config's.
        config: Of a UNet or an autoencoder.
        blocks: diffusers' own number, where the config says none.

    Raises:
        UserError: If it holds no blocks.
    """
    value = config.get("block_out_channels", [0] * blocks)
    if not isinstance(value, list) or not 0 < len(value) < 16:
        says = str(value)[:60]
        raise UserError(f"model: {file} says block_out_channels {says!r}, and it must be a list of whole numbers")
    return int(2 ** (len(value) - 1))


def variant_of(folders: Sequence[Path]) -> str | None:
    """Return ``fp16`` if some part has its weights as ``*.fp16.safetensors`` alone, else None.

    Raises:
        UserError: If a part has no safetensors.
    """
    variant = None
    for folder in folders:
        names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
        safe = [name for name in names if name.endswith(SAFE)]
        if not safe:
            pickles = [name for name in names if name.endswith(PICKLES)]
            why = (
                f"its weights are pickled ({pickles[0]}), which can run code: where you trust them, open them with "
                "diffusers and write safetensors, pipeline.save_pretrained(FOLDER)"
                if pickles
                else "it has no weights: download them"
            )
            raise UserError(f"model: {folder} holds no {SAFE}; {why}")
        if all(".fp16" in name for name in safe):
            variant = "fp16"
    return variant


def loaded(cls: Any, folder: Path, dtype: torch.dtype, variant: str | None = None, **words: Any) -> Any:
    """Return a model or pipeline of diffusers from a folder, with its weights.

    Raises:
        UserError: If they are damaged, or of something else.
    """
    try:
        with silent():
            return cls.from_pretrained(
                str(folder), local_files_only=True, use_safetensors=True, dtype=dtype, variant=variant, **words
            )
    except Exception as error:  # whatever libraries meet in a stranger's files: their errors have no common kind
        raise UserError(f"model: {folder} cannot be opened: {one_line(error)}") from error


def one_line(error: BaseException, longest: int = 300) -> str:
    """Return what an error of these libraries says, as one short line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else text[: longest - 3] + "..."


def index_of(folder: Path, pipelines: Sequence[str], parts: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    """Return the pipeline that a folder is of, and its parts, all of which are of classes that may stand there.

    Args:
        folder: The folder.
        pipelines: Classes of pipelines.
        parts: Classes by part, of diffusers or transformers. Parts that are not among them are left out, but for the
            scheduler, which is any of diffusers.

    Raises:
        UserError: If it names others.
    """
    file = folder / "model_index.json"
    if not file.is_file():
        raise UserError(f"model: {folder} is no folder of diffusers: it has no model_index.json")
    index = read_json(file, dict)
    name = class_of(file, index, pipelines)
    found = [part for part in parts if index.get(part, [None, None]) != [None, None]]
    for part in found:
        if index[part] not in [[library, one] for library in LIBRARIES for one in parts[part]]:
            says = str(index[part])[:80]
            raise UserError(f"model: {file} says that its {part} is {says}; it must be {' or '.join(parts[part])}")
    match index.get("scheduler"):
        case ["diffusers", str(one)] if one.isidentifier() and one.endswith("Scheduler"):
            return name, found
    raise UserError(
        f"model: {file} says that its scheduler is {str(index.get('scheduler'))[:80]}; it must be diffusers'"
    )


@contextmanager
def silent() -> Iterator[None]:
    """Spare the user bars, and what diffusers and transformers tell of every folder."""
    from diffusers.utils import logging as of_diffusers

    level = of_diffusers.get_verbosity()
    of_diffusers.set_verbosity(CRITICAL)  # what went wrong is raised too, and is a line here
    of_diffusers.disable_progress_bar()
    try:
        with quiet():
            yield
    finally:
        of_diffusers.set_verbosity(level)
        of_diffusers.enable_progress_bar()
