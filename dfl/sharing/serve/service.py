"""From images that were sent to answers: threads decode, one thread scores, the event loop waits for both."""

import asyncio
import base64
import math
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal, TypeVar

from scipy.special import expit
from starlette.exceptions import HTTPException
from torch import Tensor

from dfl.data.decoding import DecodeError
from dfl.data.metadata import metadata_of
from dfl.errors import UserError
from dfl.evaluation import maps
from dfl.evaluation.predictions import certificates
from dfl.sharing.serve.batching import Batcher
from dfl.sharing.serve.schema import Answer, Change, Failed
from dfl.sharing.serve.scorer import Row, Scored, Scorer
from dfl.sharing.serve.settings import Settings
from dfl.sharing.serve.telemetry import Telemetry

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What is wanted of an image beside its score."""

    maps: bool = False
    metadata: bool = False
    changes: bool = False
    caption: str = ""


@dataclass
class _Prepared:
    """An image, decoded and cut to what the detector sees."""

    width: int
    height: int
    row: Row
    unusual: str | None
    metadata: dict[str, str] | None
    #: Name, meaning and row of each changed copy.
    changes: list[tuple[str, str, Row]]


class Service:
    """A detector, the threads around it, and how its scores are read.

    Args:
        scorer: The detector.
        settings: Limits, threshold.
    """

    def __init__(self, scorer: Scorer, settings: Settings) -> None:
        self.scorer, self.settings = scorer, settings
        self.rule = scorer.detector.rule(settings.fpr, settings.coverage)
        self.telemetry = Telemetry(lambda: self.batcher.waiting)
        size = 1 if scorer.one_by_one else settings.batch_size
        self.batcher: Batcher[Row, Scored] = Batcher(
            scorer.score, size, settings.batch_window / 1000, self.telemetry.batch
        )
        self._trusted = certificates(True, settings.trust)
        self._pool = ThreadPoolExecutor(os.cpu_count(), "decode")
        self._at_work = 0

    def close(self) -> None:
        """Answer what waits, and end the threads."""
        self._pool.shutdown()
        self.batcher.close()

    @property
    def unsure(self) -> tuple[float, float] | None:
        """Return the scores between which nothing is said; None for none."""
        if not self.rule.band:
            return None
        low, high = expit([self.rule.odds - self.rule.band, self.rule.odds + self.rule.band])
        return float(low), float(high)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places of requests that are worked on at once.

        Raises:
            HTTPException: 503, if all are taken.
        """
        if self._at_work >= self.settings.max_requests:
            raise HTTPException(503, "too many requests at once; try again in a second", {"Retry-After": "1"})
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1

    async def answers(self, images: Sequence[tuple[str, bytes]], asked: Asked) -> list[Answer | Failed]:
        """Return the answer for each image, or why it has none, in their order."""
        return await asyncio.gather(*(self._answer_or_failed(name, content, asked) for name, content in images))

    async def answer(self, name: str, content: bytes, asked: Asked) -> Answer:
        """Return the answer for an image.

        Raises:
            DecodeError: If it cannot be read.
            UserError: If the detector can say nothing of it.
        """
        image = await self._in_pool(self._prepared, content, asked)
        rows = [image.row, *(row for _, _, row in image.changes)]
        first, *others = await asyncio.gather(*(asyncio.wrap_future(self.batcher.submit(row)) for row in rows))
        probability, verdict = self._read(first)
        self.telemetry.verdict(verdict)
        answer = Answer(
            name=name,
            score=first.score,
            probability=probability,
            verdict=verdict,
            width=image.width,
            height=image.height,
            classes=first.classes,
            text=first.text,
            unusual=image.unusual,
            metadata=image.metadata,
        )
        if asked.maps and first.map is not None:
            answer.map, answer.overlay = await self._in_pool(_drawn, *first.map)
        if asked.changes:
            answer.changes = [self._change(*c[:2], o) for c, o in zip(image.changes, others, strict=True)]
        return answer

    async def _answer_or_failed(self, name: str, content: bytes, asked: Asked) -> Answer | Failed:
        try:
            return await self.answer(name, content, asked)
        except (DecodeError, UserError) as error:
            return Failed(name=name, error=reason(error))

    def _prepared(self, content: bytes, asked: Asked) -> _Prepared:
        image = self.scorer.read(content)
        changed = self.scorer.changed(image) if asked.changes else ()
        changes = [(name, about, self.scorer.row(copy, asked.caption)) for name, about, copy in changed]
        row, (height, width) = self.scorer.row(image, asked.caption), image.shape[:2]
        says = metadata_of(content, self._trusted or "") if asked.metadata else None
        says = says and {name: text for name, text in says.items() if text}
        return _Prepared(width, height, row, self.scorer.unusual(content, image, row), says, changes)

    def _read(self, one: Scored) -> tuple[float | None, Literal["real", "fake", "unsure"]]:
        """Return calibrated probability and verdict."""
        probability, verdict = self.rule(one.score, one.logit)
        return None if math.isnan(probability) else probability, verdict

    def _change(self, name: str, about: str, one: Scored) -> Change:
        probability, verdict = self._read(one)
        return Change(name=name, about=about, score=one.score, probability=probability, verdict=verdict)

    async def _in_pool(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)


def reason(error: DecodeError | UserError) -> str:
    """Return in one line why an image has no answer."""
    return error.reason if isinstance(error, DecodeError) else str(error)


def _drawn(prob: Tensor, image: Tensor) -> tuple[str, str]:
    """Return map and overlay in base64."""
    pictures = maps.to_png(prob), maps.to_overlay(prob, image)
    return base64.b64encode(pictures[0]).decode(), base64.b64encode(pictures[1]).decode()
