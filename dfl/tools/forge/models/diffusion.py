"""Stable Diffusion and its kin as makers: SD 1 and 2, XL, 3, Flux, by what their folder says that it is.

    TextToImage: words alone        Edit: a noised photo and words (img2img)
    Inpaint: a region and words     Instruct: a photo and what to do with it (InstructPix2Pix)

LoRA files, each with its weight, make of a base what users customise; a folder fine-tuned by DreamBooth is an ordinary
one.
"""

import inspect
import math
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from dfl.errors import UserError
from dfl.tools.forge.makers import Scene
from dfl.tools.forge.models.base import Model, generators, whole_cells
from dfl.tools.forge.models.pipeline import FAMILIES, Folder, called, lora_file, too_long
from dfl.tools.forge.models.vae import Vae
from dfl.tools.forge.prompts import AGAIN, SENTENCE


class Diffusion(Model):
    """What these makers share.

    Args:
        model: Folder of diffusers.
        prompt: What is to be seen, the same for all or with fields: {caption} and those of the entries that say more.
        negative_prompt: What is not to be seen.
        steps: By default as many as the pipeline's.
        guidance: How much the words count; by default the pipeline's.
        lora: Weight by LoRA file (safetensors); 0 is the base itself.
        again: Sentence appended where a check finds a picture too far from its photo.
        retries: How often it is then made again.
        t5: Whether the T5 of a Stable Diffusion 3 reads the prompt too, which takes most of its memory.
        offload: Keep on the GPU only the part that works: slower, for GPUs that are too small.

    Raises:
        UserError: For a folder that is not there, of another kind or with pickled weights, a LoRA that is no
            safetensors, or a number out of bounds.
    """

    prompted = True
    #: The pipeline of each family.
    pipelines: ClassVar[dict[str, str]]
    #: Channels that the network may take: so many latents, and so many masks.
    inputs: ClassVar[tuple[tuple[int, int], ...]] = ((1, 0),)

    def __init__(
        self,
        model: str,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        lora: dict[str, float] | None = None,
        again: str = AGAIN,
        retries: int = 1,
        t5: bool = True,
        offload: bool = False,
    ) -> None:
        if (steps is not None and steps < 1) or retries < 0:
            raise UserError(f"steps {steps} must be at least 1, retries {retries} not negative")
        _check_guidance("guidance", guidance)
        if negative_prompt and guidance is not None and guidance <= 1:
            raise UserError(f"guidance {guidance} leaves negative_prompt unread: give more than 1, or leave it out")
        self.folder = Folder(model, self.pipelines, self.inputs, t5)
        self.multiple = self.folder.multiple
        self.prompt, self.again, self.retries, self.steps = prompt, again, retries, steps
        self.lora = {lora_file(file, weight): weight for file, weight in (lora or {}).items()}
        self.offload = offload
        self.words: dict[str, Any] = {
            "num_inference_steps": steps,
            "guidance_scale": guidance,
            "negative_prompt": negative_prompt,
        }
        if negative_prompt and self.folder.pipeline.startswith("Flux"):
            raise UserError(f"{self.folder.pipeline} reads no negative_prompt: leave it out")

    def about(self) -> dict[str, Any]:
        """Return hash, prompt and numbers; a number that was not given is the pipeline's."""
        names = [file.name for file in self.lora]  # two files of one name are told apart by where they lie
        lora = {file.name if names.count(file.name) == 1 else str(file): weight for file, weight in self.lora.items()}
        words = {name: value for name, value in self.words.items() if value is not None}
        of_model = {"sha256": self.folder.sha256(self.lora), "pipeline": self.folder.pipeline}
        return of_model | {"prompt": self.prompt, "lora": lora, **words, "again": self.again, "retries": self.retries}

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the pipeline; take its own numbers where none were given."""
        if self.offload and not device.startswith("cuda"):
            raise UserError(f"offload is for a GPU, and the device is {device}: leave it out")
        self.network = self.folder.open(self.lora, device, dtype, self.offload)
        takes = inspect.signature(self.network.__call__).parameters
        for name, value in self.words.items():
            if value is not None and name not in takes:
                raise UserError(f"{self.folder.pipeline} takes no {name}: leave it out")
        self.words = {name: value for name, value in self.words.items() if value is not None}
        self.steps = steps = int(self.words.get("num_inference_steps", takes["num_inference_steps"].default))
        levels = self.network.scheduler.config.get("num_train_timesteps", steps)
        if steps > levels:
            raise UserError(f"steps {steps} are more than the {levels} levels of noise of {self.folder.path}")
        strength = self.words.get("strength", takes["strength"].default if "strength" in takes else 1)
        if int(steps * strength) < 1:
            raise UserError(f"strength {strength} of {steps} steps leaves none: give more of either")

    def vae(self) -> Vae:
        """Return the VAE of the folder, for photos that are to carry its trace."""
        return Vae(str(self.folder.path))

    def __call__(self, scenes: list[Scene], prompts: list[str], seeds: list[int]) -> list[np.ndarray]:
        """Make a picture for each scene; see `Model`."""
        too_long(self.network, prompts)
        words = self.words | self.seen(scenes) | {"prompt": prompts, "generator": generators(seeds)}
        if "negative_prompt" in words:
            words["negative_prompt"] = [words["negative_prompt"]] * len(prompts)
        with torch.inference_mode():
            return called(self.network, words, scenes[0].image.shape[:2])

    def seen(self, scenes: list[Scene]) -> dict[str, Any]:
        """Return what the pipeline is given of the scenes."""
        return {}


def _check_guidance(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value < math.inf:
        raise UserError(f"{name} {value} must be a number of at least 0")


class TextToImage(Diffusion):
    """Makes a picture of words alone; it never sees the photo whose words they are."""

    kind, method = "full", "synthesis"
    pipelines: ClassVar = {family: f"{family}Pipeline" for family in FAMILIES[:4]}

    def __init__(self, model: str, prompt: str = SENTENCE, **words: Any) -> None:
        super().__init__(model, prompt, **words)


class Noised(Diffusion):
    """What begins with a photo under noise.

    Args:
        model: Folder of diffusers.
        strength: Share of the steps that are taken, above 0 up to 1; by default the pipeline's.
        **words: Those of all makers of diffusers.
    """

    def __init__(self, model: str, strength: float | None = None, **words: Any) -> None:
        super().__init__(model, **words)
        if strength is not None and not 0 < strength <= 1:
            raise UserError(f"strength {strength} must be above 0, and at most 1")
        self.words["strength"] = strength

    def seen(self, scenes: list[Scene]) -> dict[str, Any]:
        """Return the photos."""
        return {"image": [Image.fromarray(scene.image) for scene in scenes]}


class Edit(Noised):
    """Adds noise to a photo and takes it away under a prompt (img2img)."""

    kind, method = "edit", "edit"
    pipelines: ClassVar = {family: f"{family}Img2ImgPipeline" for family in FAMILIES[:4]}


class Instruct(Diffusion):
    """Does to a photo what the prompt says (InstructPix2Pix).

    Args:
        model: Folder of diffusers whose network takes the photo beside the noise.
        image_guidance: How much the photo counts; by default the pipeline's.
        **words: Those of all makers of diffusers.
    """

    kind, method = "edit", "edit"
    inputs = ((2, 0),)
    pipelines: ClassVar = {family: f"{family}InstructPix2PixPipeline" for family in FAMILIES[:2]}

    def __init__(self, model: str, image_guidance: float | None = None, **words: Any) -> None:
        super().__init__(model, **words)
        _check_guidance("image_guidance", image_guidance)
        self.words["image_guidance_scale"] = image_guidance

    seen = Noised.seen


class Inpaint(Noised):
    """Makes a region anew under a prompt; pixels outside of it are put back, since the VAE changes all.

    The folder is an inpainting one, or a plain one, which keeps to the photo less well.
    """

    kind, method = "region", "inpainting"
    inputs = ((1, 0), (2, 1))
    pipelines: ClassVar = {family: f"{family}InpaintPipeline" for family in FAMILIES[:4]} | {
        "FluxFill": "FluxFillPipeline"
    }

    def seen(self, scenes: list[Scene]) -> dict[str, Any]:
        """Return the photos, and masks of whole latent cells."""
        masks = [whole_cells(scene.region, self.folder.cell).astype(np.uint8) * 255 for scene in scenes]
        return super().seen(scenes) | {"mask_image": [Image.fromarray(mask) for mask in masks]}
