"""What Prometheus reads at GET /metrics. Nothing in it names a client or an image."""

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128)


class Telemetry:
    """The counters of one server; they begin at 0 with each worker.

    Args:
        waiting: Returns how many images wait for the detector.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        own: Any = {"registry": self._registry}
        self._requests = Counter("dfl_requests", "Requests by path and status.", ["path", "status"], **own)
        self._seconds = Histogram("dfl_request_seconds", "Time to an answer.", ["path"], buckets=SECONDS, **own)
        self._images = Counter("dfl_images", "Images scored, by verdict.", ["verdict"], **own)
        self._batches = Histogram(
            "dfl_batch_images", "Images that went through the detector together.", buckets=IMAGES, **own
        )
        self._busy = Counter("dfl_detector_seconds", "Time that the detector was at work.", **own)
        Gauge("dfl_waiting_images", "Images that wait for the detector.", **own).set_function(waiting)

    def batch(self, images: int, seconds: float) -> None:
        """Count a batch of the detector."""
        self._batches.observe(images)
        self._busy.inc(seconds)

    def verdict(self, word: str) -> None:
        """Count a verdict."""
        self._images.labels(word).inc()

    def text(self) -> bytes:
        """Return all numbers, in Prometheus's format."""
        return generate_latest(self._registry)

    def watching(self, app: ASGIApp, paths: frozenset[str]) -> ASGIApp:
        """Return an app that counts requests; those for other paths than the given ones are one kind."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            path, begun, status = scope["path"] if scope["path"] in paths else "other", time.perf_counter(), 0

            async def noted(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            try:
                await app(scope, receive, noted)
            finally:
                self._requests.labels(path, status).inc()
                self._seconds.labels(path).observe(time.perf_counter() - begun)

        return watched
