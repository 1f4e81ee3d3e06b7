"""Captions for prompts, of photos whose tables have none: `dfl data caption` within a forge."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfl.errors import UserError
from dfl.tools.forge.models.base import Words, files_hash
from dfl.tools.forge.plan import Picture

#: What a folder of transformers is read from.
_READ = (".json", ".txt", ".model", ".safetensors")


class Captions(Words):
    """A line that a pretrained captioner writes of each photo.

    Args:
        model: Folder of transformers: BLIP, GIT, ViT-GPT2.
        beams: Of the beam search; 1 takes the most likely token each time.
        shortest: Fewest tokens of a caption.
        longest: Most tokens of a caption.
        prompt: Words that the model goes on from, such as "a picture of"; captions leave them out.
        field: What prompts call the line. A photo's own caption, of its table, is in place of ``caption`` alone: under
            another name each photo is told anew.

    Raises:
        UserError: If there is no such folder: nothing is looked up on the hub.
    """

    def __init__(
        self,
        model: str,
        beams: int = 3,
        shortest: int = 5,
        longest: int = 60,
        prompt: str = "",
        field: str = "caption",
    ) -> None:
        self.fields = (field,)
        self.folder = Path(model).expanduser()
        if not (self.folder / "config.json").is_file():
            raise UserError(
                f"no captioner at {model!r}: it must be a folder with config.json, tokenizer and safetensors "
                f"(looked in {Path.cwd()}); captions by a model of the hub come from `dfl data caption`"
            )
        self.search: dict[str, Any] = {"beams": beams, "shortest": shortest, "longest": longest, "prompt": prompt}

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the model, float32; raises UserError if it is none that captions, or lacks a part."""
        from dfl.networks.captioner import Captioner  # transformers: slow to import

        self.network = Captioner(str(self.folder), **self.search, device=device, flag="captioner")

    def about(self) -> dict[str, Any]:
        """Return the hash of the folder's files, and the settings of the search."""
        files = [file for file in self.folder.iterdir() if file.suffix in _READ]
        return self.search | {"sha256": files_hash(files, self.folder)}

    def __call__(self, pictures: list[Picture], images: list[np.ndarray]) -> list[dict[str, str]]:
        """Return the caption of each photo, without the full stop that the prompt's sentence has itself.

        On a CPU one photo at a time, as models: the rounding of sums depends on the batch.
        """
        step = 1 if self.network.device.startswith("cpu") else max(1, len(images))
        batches = [images[start : start + step] for start in range(0, len(images), step)]
        return [{self.fields[0]: line.rstrip(" .")} for batch in batches for line in self.network(batch)]
