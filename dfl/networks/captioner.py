"""A caption of each image, by a pretrained model: BLIP, GIT, or a vision encoder with a text decoder such as ViT-GPT2.

    image (H, W, 3) -> the model's own view of it -> beam search, no sampling -> one line of text

The one place that captions. The same images give the same captions, alone or in a batch: all texts of a batch begin
alike, so there is no padding, and each image's search ends by itself. What is left is the rounding of sums, which may
depend on the size of the batch where two captions are equally likely.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageTextToText

from dfl.errors import UserError, first_line
from dfl.hub import offline_if_no_network
from dfl.networks.pretrained import named_tokenizer, pretrained, quiet
from dfl.runs.weights_hash import WeightsHash

#: ``model_type`` of what captions without being asked a question.
TYPES = ("blip", "git", "vision-encoder-decoder")


class Captioner:
    """Writes captions: ``captioner(images)`` returns one line for each.

    Args:
        model: Hub name or folder, with tokenizer, preprocessor_config.json and safetensors.
        beams: Of the beam search; 1 takes the most likely token each time.
        shortest: Fewest tokens of a caption, those of the prompt not counted.
        longest: Most tokens of a caption.
        prompt: Words that the model is to go on from, and that the caption leaves out; of BLIP and GIT.
        device: Where it runs; by default a GPU if there is one.
        flag: What the user named the model by, for errors.

    Raises:
        UserError: If the model is not there or none that captions, lacks a part, or the numbers contradict each other.
    """

    def __init__(
        self,
        model: str,
        beams: int = 3,
        shortest: int = 5,
        longest: int = 60,
        prompt: str = "",
        device: str | None = None,
        flag: str = "--model",
    ) -> None:
        if beams < 1 or not 0 <= shortest <= longest or longest < 1:
            raise UserError(
                f"captions have beams >= 1 and 0 <= shortest <= longest, not {beams}, {shortest}, {longest}"
            )
        self.name = model
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = pretrained(flag, model, AutoModelForImageTextToText, types=TYPES).eval()
        text = getattr(self.model.config, "decoder", None) or self.model.config.get_text_config()
        self.tokenizer = named_tokenizer(flag, model, int(text.vocab_size))
        self.start, self.prompt = self._start(prompt), prompt
        try:
            with offline_if_no_network():  # PIL: the same pixels whatever else is installed
                self.view = AutoImageProcessor.from_pretrained(model, backend="pil", trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{flag}: {model} does not say how it sees images ({first_line(error)}); it needs its "
                "preprocessor_config.json"
            ) from error
        self.words = {"num_beams": beams, "do_sample": False, "min_new_tokens": shortest, "max_new_tokens": longest}
        try:
            self.model.to(self.device)
        except RuntimeError as error:
            raise UserError(f"--device {self.device}: {first_line(error)}") from error

    def _start(self, prompt: str) -> list[int]:
        """Return the tokens that every caption begins with; none for the model's own."""
        kind = self.model.config.model_type
        if not prompt:
            return []
        if kind == TYPES[2]:
            raise UserError(f"--prompt goes with blip and git, and {self.name} is a {kind}: leave it out")
        ids = self.tokenizer(prompt)["input_ids"]
        return list(ids if kind == "blip" else ids[:-1])  # BLIP takes the end of the text off itself

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> list[str]:
        """Return the captions of RGB images, uint8 (H, W, 3) each of its own size; '' where it wrote no word."""
        pixels = self.view(images=[Image.fromarray(image) for image in images], return_tensors="pt")["pixel_values"]
        begun = {"input_ids": torch.tensor([self.start] * len(images), device=self.device)} if self.start else {}
        with quiet():  # it says of every batch that a single start token could be padding
            ids = self.model.generate(pixel_values=pixels.to(self.device), **begun, **self.words)
        given = max(1, len(self.start) - (self.model.config.model_type == "blip"))
        texts = self.tokenizer.batch_decode(ids[:, given:], skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def about(self) -> dict[str, Any]:
        """Return what the captions depend on, as JSON stores it: the hash of weights, tokens and search, and words."""
        digest = hashlib.sha256(WeightsHash()(self.model.state_dict()).encode())
        search = self.model.generation_config.to_dict()
        search.pop("transformers_version", None)
        for part in (self.tokenizer.get_vocab(), self.view.to_dict(), search):
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        return {"model": self.name, "sha256": digest.hexdigest(), "prompt": self.prompt} | self.words
