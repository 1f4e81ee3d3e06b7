"""From the bytes of an image to what the detector says of it: what ``predict`` does with files, without any.

Decoding and resizing may run in many threads; the detector belongs to one.
"""

import json
import logging
import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from dfl.data.appearance import Usual, appearance
from dfl.data.batch import collate
from dfl.data.chains import FAMILIES, chain, variants
from dfl.data.dataset import View, unlabelled
from dfl.data.decoding import read_image
from dfl.data.degrading import degraded
from dfl.data.transforms import Transform, Views
from dfl.detectors import Detector
from dfl.errors import UserError, first_line
from dfl.evaluation.maps import fitted
from dfl.sharing.opened import opened
from dfl.sharing.serve.settings import Settings

#: What an image is changed by, as the benchmark does it, to see whether its verdict changes: name and meaning.
CHANGES = {name: FAMILIES[family].about for family in ("jpeg", "resize", "crop") for name in variants([family])}
Row = dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """What the detector says of an image, and what it saw.

    Attributes:
        score: Probability of fake before calibration, as `predict` writes it.
        logit: Its log-odds.
        classes: Probability of each class, by name; None where there is only real and fake.
        text: What the detector writes; None where it does not.
        map: (h, w) float32, the probability of manipulation, and the image that it lies on, (3, H, W) uint8, on the
            CPU and without padding; None where the detector gives no map.
    """

    score: float
    logit: float
    classes: dict[str, float] | None
    text: str | None
    map: tuple[torch.Tensor, torch.Tensor] | None


class Scorer:
    """A detector ready to score.

    Args:
        detector: With its weights.
        transform: How images are brought to its size.
        views: What it sees of an image.
        max_pixels: Images with more are refused.
        accelerator: As Lightning's.
        usual: What its training images look like; None where that is not known.
        name: What to call it.

    Raises:
        UserError: If there is no such accelerator.
    """

    def __init__(
        self,
        detector: Detector,
        transform: Transform,
        views: Views = "centre",
        max_pixels: int = 64_000_000,
        accelerator: str = "auto",
        usual: Usual | None = None,
        name: str = "",
    ) -> None:
        logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
        off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        # never run: it knows devices, and is what detectors ask whether they are trained
        try:
            trainer = pl.Trainer(accelerator=accelerator, devices=1, enable_model_summary=False, **off)  # type: ignore[arg-type]
        except (MisconfigurationException, ValueError) as error:
            raise UserError(f"--accelerator {accelerator}: {first_line(error)}") from error
        detector.trainer = trainer
        detector.setup("predict")
        self.device = trainer.strategy.root_device
        self.detector = detector.to(self.device).eval()
        self.view: View = transform.eval(detector.input_size, transform.checked(views))
        #: Whether images keep their sizes, so that no two make a batch.
        self.one_by_one = transform.resize == "whole"
        self.max_pixels, self.usual, self.name = max_pixels, usual, name or type(detector).__name__
        self._changing = threading.Lock()

    @classmethod
    def opened(cls, settings: Settings) -> "Scorer":
        """Open the checkpoint that the settings mean; a stranger's gives weights and numbers alone.

        Raises:
            UserError: If there is none, it is damaged, or it needs weights that are not given.
        """
        word, places = settings.ckpt_path, settings.model or {}
        trained, detector = opened(word, settings.root, settings.name, "--model.", **places)
        print(f"serving with {trained}", *trained.notes, sep="\n", flush=True)
        name = f"{trained.class_name} of {trained.path.parent.name if trained.in_run else trained.path.name}"
        words = settings.views, settings.max_pixels, settings.accelerator
        return cls(detector, Transform(**trained.transform or {}), *words, trained.usual, name)

    def read(self, content: bytes) -> np.ndarray:
        """Return the pixels of an image, uint8 (H, W, 3).

        Raises:
            DecodeError: If it cannot be read, or is too large.
        """
        return read_image(content, max_pixels=self.max_pixels)

    def row(self, image: np.ndarray, caption: str = "") -> Row:
        """Return what goes into a batch of an image uint8 (H, W, 3)."""
        return unlabelled(image, self.view, caption)

    def unusual(self, content: bytes, image: np.ndarray, row: Row) -> str | None:
        """Return in what an image is unlike those of the training; None for nothing.

        Args:
            content: Of its file.
            image: Its pixels.
            row: Of `row`.
        """
        if self.usual is None:
            return None
        facts = appearance(content, image.shape[:2], row["image"])
        return self.usual.unusual(facts.numpy()[None])[0] or None

    def changed(self, image: np.ndarray) -> Iterator[tuple[str, str, np.ndarray]]:
        """Yield name, meaning and pixels of each changed copy of an image.

        Raises:
            DecodeError: If the image cannot be changed so.
        """
        for name, about in CHANGES.items():
            cell = json.dumps({"seed": 0, "steps": chain(name)}, sort_keys=True)
            with self._changing:  # the steps of a chain have generators, which are no two threads' at once
                copy = degraded((image, None), cell, 0, "the image")[0]
            yield name, about, copy

    @torch.inference_mode()
    def score(self, rows: Sequence[Row]) -> list[Scored]:
        """Return what the detector says of the images of a batch.

        Raises:
            UserError: If the detector cannot say anything, as of an image without the caption that it reads, or a
                score is NaN.
        """
        batch = collate(list(rows))
        seen = batch["image"]
        batch = {k: v.to(self.device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        answer = self.detector.predict_step(self.detector.on_after_batch_transfer(batch, 0), 0)
        scores, logits = answer["score"].tolist(), answer["logit"].tolist()
        if any(math.isnan(score) for score in scores):
            raise UserError("the score is no number: the weights are damaged")
        probs = answer["class_prob"].tolist() if "class_prob" in answer else None
        maps = answer["map"].float().cpu() if "map" in answer else None
        texts = answer.get("text")
        results = []
        for i, score in enumerate(scores):
            classes = None if probs is None else dict(zip(answer["class_names"], probs[i], strict=True))
            text = None if texts is None else texts[i]
            shown = None
            if maps is not None:
                shown = fitted(maps[i], seen[i], batch["extent"][i] if "extent" in batch else None)
            results.append(Scored(score, logits[i], classes, text, shown))
        return results
