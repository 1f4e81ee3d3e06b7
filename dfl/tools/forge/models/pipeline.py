"""A folder of Stable Diffusion or its kin: what it says that it is, its LoRA files, and the open pipeline.

No safety checker and no watermark: what they black out or sign would give the label away.
"""

import hashlib
import inspect
import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfl.data.sources.trees import read_json
from dfl.errors import UserError
from dfl.tools.forge.models import folders
from dfl.tools.forge.models.base import files_hash

#: Classes that the parts of a folder may be of; other parts are left out.
_CLIP, _T5 = ("CLIPTokenizer", "CLIPTokenizerFast"), ("T5Tokenizer", "T5TokenizerFast")
PARTS = {
    "unet": ("UNet2DConditionModel",),
    "transformer": ("SD3Transformer2DModel", "FluxTransformer2DModel"),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel", "CLIPTextModelWithProjection"),
    "text_encoder_2": ("CLIPTextModelWithProjection", "T5EncoderModel"),
    "text_encoder_3": ("T5EncoderModel",),
    "tokenizer": _CLIP,
    "tokenizer_2": _CLIP + _T5,
    "tokenizer_3": _T5,
}
WEIGHTED = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
#: What pipelines may want, and get this for it.
INSTEAD = {
    **dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"), None),
    **dict.fromkeys(("requires_safety_checker", "add_watermarker"), False),
}
#: The name of a pipeline is that of a family and one of these.
ENDING = re.compile(r"(?:Img2Img|Inpaint|InstructPix2Pix)?Pipeline$")
FAMILIES = ("StableDiffusion", "StableDiffusionXL", "StableDiffusion3", "Flux", "FluxFill")


class Folder:
    """What a folder says of itself, read as plain values.

    Args:
        folder: The folder.
        pipelines: By family, the pipeline that is wanted of it.
        inputs: Of what the network's input may be made, in latents and masks: its channels are checked.
        t5: Whether the T5 of a Stable Diffusion 3 is used.

    Attributes:
        cell: Pixels of a latent cell.
        multiple: What sides must divide by.

    Raises:
        UserError: If it is not there, of another kind, or has pickled weights alone.
    """

    def __init__(
        self, folder: str, pipelines: Mapping[str, str], inputs: tuple[tuple[int, int], ...], t5: bool
    ) -> None:
        self.path = folders.existing(folder)
        known = [family + end for family in FAMILIES for end in ("", "Img2Img", "Inpaint", "InstructPix2Pix")]
        own, parts = folders.index_of(self.path, [name + "Pipeline" for name in known], PARTS)
        family = ENDING.sub("", own)
        if family not in pipelines:
            raise UserError(f"model: {self.path} is a {own}, which this maker has none of: {', '.join(pipelines)}")
        self.pipeline = pipelines[family]
        self.parts = [part for part in parts if t5 or not part.endswith("_3")]
        self.weighted = [self.path / part for part in self.parts if part in WEIGHTED]
        self.variant = folders.variant_of(self.weighted)
        for part in self.parts:  # transformers makes up a tokenizer without words where none is
            if not list((self.path / part).glob("*")):
                raise UserError(f"model: {self.path / part} is not there or empty: download the whole folder")
        vae = self._config("vae")
        self.cell = folders.factor(self.path / "vae" / "config.json", vae, 1)
        self.multiple = max(8, self.cell * (2 if "transformer" in self.parts else 1))
        self._check_input(folders.number(self.path / "vae", vae, "latent_channels", 4), inputs)

    def _config(self, part: str) -> dict[str, Any]:
        if part not in self.parts:
            raise UserError(f"model: {self.path / 'model_index.json'} names no {part}")
        return read_json(self.path / part / "config.json", dict)

    def _check_input(self, latent: int, inputs: tuple[tuple[int, int], ...]) -> None:
        """Raise a UserError if the network takes other channels than this maker gives it."""
        part = "transformer" if "transformer" in self.parts else "unet"
        config = self._config(part)
        if config.get("_class_name") == "FluxTransformer2DModel":  # which packs them
            return
        channels = folders.number(self.path / part, config, "in_channels", 4)
        fit = [latents * latent + masks for latents, masks in inputs]
        if channels not in fit:
            raise UserError(
                f"model: the {part} of {self.path} has in_channels {channels}, and this maker gives "
                f"{' or '.join(map(str, fit))}: TextToImage and Edit take {latent}, Inpaint also {2 * latent + 1}, "
                f"Instruct {2 * latent}"
            )

    def sha256(self, loras: Mapping[Path, float]) -> str:
        """Return the hash of weights, configs, tokens, and of LoRA files with their weight."""
        places = [self.path / part for part in (*self.parts, "scheduler")]
        read = (".json", ".txt", ".model", folders.SAFE)
        own = [file for place in places if place.is_dir() for file in place.iterdir() if file.suffix in read]
        base = files_hash(own, self.path)
        customised = "".join(f"{files_hash([file])}*{weight};" for file, weight in loras.items())
        return hashlib.sha256(f"{base}{customised}".encode()).hexdigest() if loras else base

    def open(self, loras: Mapping[Path, float], device: str, dtype: torch.dtype, offload: bool) -> Any:
        """Return the pipeline, with its LoRA files.

        Raises:
            UserError: If it cannot be loaded, or a LoRA is of another base.
        """
        cls = getattr(folders.diffusers(), self.pipeline)
        takes = inspect.signature(cls.__init__).parameters
        words = {name: value for name, value in INSTEAD.items() if name in takes}
        words |= {name: None for name in PARTS if name in takes and name not in self.parts}
        pipe = folders.loaded(cls, self.path, dtype, self.variant, **words)
        pipe.set_progress_bar_config(disable=True)
        pipe.vae.enable_slicing()
        for i, file in enumerate(loras):
            _add_lora(pipe, file, f"lora{i}")
        if loras:
            pipe.set_adapters([f"lora{i}" for i in range(len(loras))], list(loras.values()))
        if offload:
            pipe.enable_model_cpu_offload(device=device)
            return pipe
        return pipe.to(device)


def lora_file(name: str, weight: float) -> Path:
    """Return the file of a LoRA.

    Raises:
        UserError: If it is not there or no safetensors: diffusers would open pickles, which can run code.
    """
    from safetensors import SafetensorError, safe_open

    file = Path(name).expanduser()
    if file.suffix.lower() != folders.SAFE:
        raise UserError(
            f"lora: {name} must end in {folders.SAFE}; other files can be pickles, which run code: where you trust it, "
            "open it and write it with safetensors.torch.save_file"
        )
    if not file.is_file():
        raise UserError(f"lora: no file {name!r} in {Path.cwd()}")
    if not math.isfinite(weight):
        raise UserError(f"lora: the weight of {name} is {weight}, and it must be a number")
    try:
        with safe_open(file, "pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"lora: {name} is damaged or no safetensors: {folders.one_line(error)}") from error
    return file


def _add_lora(pipe: Any, file: Path, name: str) -> None:
    """Load a LoRA under a name.

    Raises:
        UserError: If it does not fit, or changes nothing.
    """
    try:
        with folders.silent():
            pipe.load_lora_weights(str(file), adapter_name=name, local_files_only=True, use_safetensors=True)
        known = {one for names in pipe.get_list_adapters().values() for one in names}
    except Exception as error:  # as in `folders.loaded`
        why = folders.one_line(error, 160)
        raise UserError(
            f"lora: {file} does not fit {type(pipe).__name__}: was it made of another base? ({why})"
        ) from error
    if name not in known:
        raise UserError(f"lora: {file} changes nothing of {type(pipe).__name__}: was it made of another base?")


def too_long(pipe: Any, prompts: list[str]) -> None:
    """Warn of prompts with more tokens than the model reads; a T5 beside CLIP reads longer ones."""
    if getattr(pipe, "text_encoder_3", None) or type(getattr(pipe, "text_encoder_2", None)).__name__.startswith("T5"):
        return
    most = min(pipe.tokenizer.model_max_length, 1 << 16)
    with folders.silent():
        longest = max(len(pipe.tokenizer(prompt).input_ids) for prompt in prompts)
    if longest > most:
        warnings.warn(
            f"a prompt has {longest} tokens, and the model reads {most}: its end is cut off (shorten it)", stacklevel=2
        )


def called(pipe: Any, words: Mapping[str, Any], scenes_size: tuple[int, int]) -> list[np.ndarray]:
    """Return the pictures that a pipeline makes, uint8 (H, W, 3).

    Raises:
        UserError: If it fails, or a picture holds what is no number, as 16-bit arithmetic may.
    """
    height, width = scenes_size
    takes = inspect.signature(pipe.__call__).parameters
    size = {name: value for name, value in (("height", height), ("width", width)) if name in takes}
    try:
        with folders.silent():
            images = np.asarray(pipe(**words, **size, output_type="np").images)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # as in `folders.loaded`
        why = f"{folders.one_line(error, 160)} (do the folder's parts belong together?)"
        raise UserError(f"{type(pipe).__name__} fails on pictures of {width}x{height}: {why}") from error
    if not np.isfinite(images).all():
        raise UserError(f"{type(pipe).__name__} made what is no picture (nan): give --dtype float32 or bfloat16")
    return list(np.rint(images.clip(0, 1) * 255).astype(np.uint8))
