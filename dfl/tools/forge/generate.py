"""The second stage of a set: fakes by models, in this process, one model after the other, a whole batch at a time.

A batch holds the same pictures whatever was there before, and its rows are written when it is whole: on a GPU, whose
sums depend on what else is in a batch, a set that was cut off is still the one that an uninterrupted run makes. Only
one model has its weights loaded at a time.
"""

import gc
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from dfl.data.masks import load_mask
from dfl.errors import UserError
from dfl.runs.output_folder import OutputFolder
from dfl.runs.workers import Workers
from dfl.tools.forge import photos
from dfl.tools.forge.makers import Scene, blended
from dfl.tools.forge.models.base import Check, Model, Part, seed_of
from dfl.tools.forge.models.entries import Entries
from dfl.tools.forge.plan import Job, Picture
from dfl.tools.forge.prompts import caption_of, lacking
from dfl.tools.forge.scenes import batched
from dfl.tools.forge.settings import Settings

#: Columns that say who is seen in a photo, which is not who a model shows that never saw it.
OF_PHOTO = ("source", "identity", "video", "group", "caption")


@dataclass
class Fake:
    """A picture, uint8 (H, W, 3), what it was made with, and its distance from the photo; nan where none was taken."""

    image: np.ndarray
    prompt: str
    seed: int
    distance: float
    tries: int = 1


class Generation:
    """Everything that models do for one set.

    Args:
        folder: The set.
        settings: Of the set.
        entries: Models, and what serves them.
        jobs: All pictures.
        rows: By the number of a picture, the rows of the first stage, which are completed here; none of a picture that
            was left out.
        progress: Show bars.
    """

    def __init__(
        self,
        folder: OutputFolder,
        settings: Settings,
        entries: Entries,
        jobs: list[Job],
        rows: list[list[dict[str, Any]]],
        progress: bool,
    ) -> None:
        self.folder, self.settings, self.entries, self.jobs, self.rows = folder, settings, entries, jobs, rows
        self.progress, self.partial, self.device = progress, folder.partial, settings.device or "cpu"
        self.dtype: torch.dtype = getattr(torch, settings.dtype or "float32")

    def run(self, given: Sequence[str]) -> dict[str, Any]:
        """Make what is missing; return how the check was calibrated, for the record of the set.

        Args:
            given: Prompt of each picture, with fields or none; empty if models have their own.
        """
        check, facts = self._calibrated()  # seconds: photos that cannot be compared are said before hours of work
        if self.settings.roundtrip:
            self._roundtrip(self.entries.models[self.settings.roundtrip].vae())
        words = self._words()
        for name in self.settings.makers:
            if model := self.entries.models.get(name):
                prompts = [""] * len(self.jobs)
                if model.prompted:
                    own = given or [model.prompt or ""] * len(words)
                    prompts = [prompt.format_map(one) for prompt, one in zip(own, words, strict=True)]
                self._fakes(name, model, prompts, check if model.checkable else None)
        shutil.rmtree(self.partial / photos.KEPT, ignore_errors=True)
        return {"check": facts} if facts else {}

    def _stage(
        self,
        stage: str,
        parts: Sequence[Part],
        function: Callable[[Any], dict[str, Any]],
        batches: Sequence[Any],
        log: str = "",
    ) -> list[dict[str, Any]]:
        """Return the results of batches; the parts are open from the first that is missing to the last."""
        opened = False

        def one(batch: Any) -> dict[str, Any]:
            nonlocal opened
            try:
                if not opened:
                    for part in parts:
                        part.open(self.device, self.dtype)
                    opened = True
                return function(batch)
            except torch.OutOfMemoryError as error:
                raise UserError(
                    f"{stage}: no memory left on {self.device} for --batch {self.settings.batch}: give a smaller one, "
                    "--dtype float16, or smaller pictures (--square, --max_side)"
                ) from error

        with Workers(len(batches), stage, 1, self.progress) as pool:
            results = list(self.folder.results(one, batches, pool, log or stage))
        if opened:
            for part in parts:
                part.close()
            gc.collect()  # pipelines hold themselves
            if self.device.startswith("cuda"):
                torch.cuda.empty_cache()
        return results

    def _batches(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        size = self.settings.batch or 1
        return [items[start : start + size] for start in range(0, len(items), size)]

    def _roundtrip(self, vae: Model) -> None:
        """Send real photos through a VAE: the counterpart of each, kept as PNG too, since fakes are pasted onto it."""

        def one(batch: Sequence[Job]) -> dict[str, Any]:
            there = [job for job in batch if self.rows[job.number]]
            scenes = [self._scene(job) for job in there]
            made = batched(vae, scenes, [""] * len(scenes), [0] * len(scenes), self.device)
            files = []
            for job, image in zip(there, made, strict=True):
                photos.save(self.partial, f"{job.number:06d}", image, self.settings)
                files.append(photos.save_kept(self.partial, job, image))
            return {"files": files, "reason": _left_out(batch, there)}

        self._stage("roundtrip", [vae], one, self._batches(self.jobs))

    def _words(self) -> list[dict[str, str]]:
        """Return the words of each picture by field: what entries say of it; its own caption comes first.

        Raises:
            UserError: If a picture has no word for a field.
        """
        asked = list(self.entries.words.values())

        def one(batch: Sequence[Job]) -> dict[str, Any]:
            there = [job for job in batch if self.rows[job.number]]
            pictures = [job.picture for job in there]
            images = [photos.opened(picture, self.settings)[0] for picture in pictures]
            found: list[dict[str, str]] = [{} for _ in there]
            for part in asked:
                for words, more in zip(found, part(pictures, images), strict=True):
                    words |= {field: word for field, word in more.items() if word}
            by_number = {job.number: words for job, words in zip(there, found, strict=True)}
            said = [by_number.get(job.number, {}) for job in batch]
            return {"files": [], "words": said, "reason": _left_out(batch, there)}

        results = self._stage("words", asked, one, self._batches(self.jobs)) if asked else []
        said = [words for result in results for words in result["words"]] or [{} for _ in self.jobs]
        for job, words, asks in zip(self.jobs, said, self.entries.fields, strict=True):
            if caption := caption_of(job.picture):
                words["caption"] = caption
            absent = [name for name in asks if not words.get(name)]
            if absent and self.rows[job.number]:
                raise lacking(job.picture.name, absent[0])
            words |= dict.fromkeys(absent, "")
        return said

    def _calibrated(self) -> tuple[Check | None, dict[str, Any]]:
        """Return the check, its threshold set by pairs of real photos, and how that was found; None without one."""
        check = next(iter(self.entries.checks.values()), None)
        if check is None:
            return None, {}
        there = [job for job in self.jobs if self.rows[job.number] and job.picture.split == "train"]
        pictures = [job.picture for job in there]
        people = [picture.person for picture in pictures]
        load = [partial(_photo, picture, self.settings) for picture in pictures]

        def one(_: Any) -> dict[str, Any]:
            return {"files": [], **check.calibrate(load, people, self.settings.seed)}

        facts = self._stage("calibrate", [check], one, [None])[0]
        check.threshold = facts["threshold"]
        return check, {key: value for key, value in facts.items() if key != "files"}

    def _fakes(self, name: str, model: Model, prompts: Sequence[str], check: Check | None) -> None:
        """Make the fakes of a model, and complete their rows."""
        fakes = [(job, k) for job in self.jobs for k, (maker, _) in enumerate(job.fakes) if maker == name]
        one = partial(self._batch, name, model, prompts, check)
        parts: list[Part] = [model, *([check] if check else [])]
        # a model may be called words, or roundtrip, as other stages are; no name has a dot
        for result in self._stage(name, parts, one, self._batches(fakes), f"fakes.{name}"):
            for number, k, columns in result["made"]:
                self.rows[number][1 + k] |= columns

    def _batch(
        self, name: str, model: Model, prompts: Sequence[str], check: Check | None, batch: Sequence[tuple[Job, int]]
    ) -> dict[str, Any]:
        """Make a batch of fakes and their files."""
        there = [(job, k) for job, k in batch if self.rows[job.number]]
        scenes = [self._scene(job, self.rows[job.number][1 + k].get("mask", ""), job.counts[k]) for job, k in there]
        made = self._tried(model, scenes, [prompts[job.number] for job, _ in there], there, check)
        files, rows = [], []
        for (job, k), scene, fake in zip(there, scenes, made, strict=True):
            image = fake.image
            if model.kind == "region" and model.paste:
                onto = photos.kept(self.partial, job) if self.settings.roundtrip else scene.image
                image = blended(onto, image, scene.region, self.settings.feather)
            files.append(photos.save(self.partial, job.stems[k], image, self.settings))
            columns: dict[str, Any] = {} if model.of_photo else dict.fromkeys(OF_PHOTO, "")
            columns |= {"path": files[-1], "family": model.family, "method": model.method, "seed": fake.seed}
            columns |= {"model": self.entries.identity(name), "steps": model.steps, "tries": fake.tries}
            columns |= {"caption": fake.prompt} if model.prompted else {}
            columns |= {"gram": float(f"{fake.distance:.6g}")} if check else {}
            rows.append([job.number, k, columns])
        return {"files": files, "made": rows, "reason": _left_out(batch, there)}

    def _tried(
        self,
        model: Model,
        scenes: list[Scene],
        prompts: list[str],
        fakes: Sequence[tuple[Job, int]],
        check: Check | None,
    ) -> list[Fake]:
        """Return a fake of each scene: of those that were made until one was near enough, the nearest to its photo."""
        best: dict[int, Fake] = {}
        todo = list(range(len(scenes)))
        for attempt in range(1 + (model.retries if check else 0)):
            words = [f"{prompts[i]} {model.again}" if attempt and model.prompted else prompts[i] for i in todo]
            seeds = [seed_of(self.settings.seed, fakes[i][0].number, fakes[i][1], attempt) for i in todo]
            some = [scenes[i] for i in todo]
            images = batched(model, some, words, seeds, self.device)
            near = check([scene.image for scene in some], images) if check else [math.nan] * len(some)
            for i, fake in zip(todo, map(Fake, images, words, seeds, near), strict=True):
                if i not in best or fake.distance < best[i].distance:
                    best[i] = fake
                best[i].tries = attempt + 1
            todo = [i for i in todo if check and check.threshold is not None and best[i].distance > check.threshold]
            if not todo:
                break
        return [best[i] for i in range(len(scenes))]

    def _scene(self, job: Job, mask: str = "", count: int = 0) -> Scene:
        """Return what a model is shown of a picture: the region of a mask, or all of it."""
        image = photos.opened(job.picture, self.settings)[0]
        height, width = image.shape[:2]
        area = load_mask(str(self.partial / mask), "max", (width, height)) if mask else None
        region = np.ones((height, width), bool) if area is None else area > 0
        return Scene(image, region, image, self.settings.limits, self.settings.colour, count)


def _photo(picture: Picture, settings: Settings) -> np.ndarray:
    return photos.opened(picture, settings)[0]


def _left_out(batch: Sequence[Any], there: Sequence[Any]) -> str:
    """Return why a batch is made again by the next run, which may be able to read what this one could not; or ''."""
    return f"{len(batch) - len(there)} pictures of it were left out" if len(there) < len(batch) else ""
