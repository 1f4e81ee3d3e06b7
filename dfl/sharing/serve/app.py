"""The addresses of the server: a page, an API, and what those who run it ask for."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from dfl import __version__
from dfl.data.decoding import DecodeError
from dfl.data.metadata import HAS_C2PA
from dfl.errors import UserError, near, visible
from dfl.sharing.serve.limits import Guard, Rate, sent_images
from dfl.sharing.serve.page import PAGE, POLICY
from dfl.sharing.serve.schema import About, Answer, Error, Failed, Health
from dfl.sharing.serve.scorer import CHANGES, Scorer
from dfl.sharing.serve.service import Asked, Service, reason
from dfl.sharing.serve.settings import Settings

BINARY = {"type": "string", "format": "binary"}
#: How the body is described: FastAPI would read a form of its own accord, and write larger files to disk.
ONE = {"application/octet-stream": {"schema": BINARY}}
FORM = {"type": "object", "properties": {"image": {"type": "array", "items": BINARY}}}
MANY = {"multipart/form-data": {"schema": FORM}}
WHY = {
    400: "No image, or a broken form.",
    401: "No key, or a wrong one.",
    403: "Asked by a page of another site.",
    408: "The images did not arrive in time.",
    413: "Too many bytes or images.",
    421: "Asked under a name that is not this server's.",
    422: "The image cannot be read, or the detector can say nothing of it.",
    429: "Too many images a minute.",
    503: "Too many requests at once.",
}
REFUSED: dict[int | str, dict[str, Any]] = {status: {"model": Error, "description": why} for status, why in WHY.items()}


def asked(
    request: Request,
    maps: Annotated[bool, Query(description="Give the map, of detectors that have one.")] = False,
    metadata: Annotated[bool, Query(description="Give what the file says of itself.")] = False,
    changes: Annotated[bool, Query(description=f"Score {len(CHANGES)} changed copies too.")] = False,
    caption: Annotated[str, Query(max_length=2000, description="What it shows, for detectors that read that.")] = "",
) -> Asked:
    """Return what the words of an address ask for.

    Raises:
        HTTPException: 422, for a word that is none of them: an answer without the map would look as if there were none.
    """
    names = [one.name for one in fields(Asked)]
    if unknown := next((name for name in request.query_params if name not in names), None):
        raise HTTPException(422, visible(f"no word {unknown[:40]!r} in an address{near(unknown, names)}"))
    return Asked(maps, metadata, changes, caption)


def create(scorer: Scorer, settings: Settings, ready: Callable[[], None] = lambda: None) -> ASGIApp:
    """Return the server as an ASGI application.

    Args:
        scorer: The detector.
        settings: Limits and threshold.
        ready: Called when requests are answered.

    Raises:
        UserError: If the detector has no threshold of the kind that is asked for.
    """
    service, rate = Service(scorer, settings), Rate(settings.rate)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ready()
        yield
        service.close()

    app = FastAPI(title="dfl serve", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_errors(app)
    _add_facts(app, service)
    _add_scoring(app, service, rate)
    paths = frozenset(route.path for route in app.routes)  # type: ignore[attr-defined]
    return service.telemetry.watching(Guard(app, settings.names, settings.key), paths)


def _add_scoring(app: FastAPI, service: Service, rate: Rate) -> None:
    settings = service.settings
    Wanted = Annotated[Asked, Depends(asked)]

    async def images(request: Request, most: int, wanted: Asked) -> list[tuple[str, bytes]]:
        client = request.client.host if request.client else ""
        rate.check(client)
        sent = await sent_images(request, settings.max_bytes, most)
        rate.take(client, len(sent) * (1 + wanted.changes * len(CHANGES)))
        return sent

    @app.post(
        "/score",
        responses=REFUSED,
        response_model_exclude_none=True,
        openapi_extra={"requestBody": {"content": ONE | MANY, "required": True}},
    )
    async def score(request: Request, wanted: Wanted) -> Answer:
        """Score one image: its bytes as the body, whatever the content type, or one file of a form."""
        async with service.place():
            ((name, content),) = await images(request, 1, wanted)
            return await service.answer(name, content, wanted)

    @app.post(
        "/batch",
        responses=REFUSED,
        response_model_exclude_none=True,
        openapi_extra={"requestBody": {"content": MANY, "required": True}},
    )
    async def batch(request: Request, wanted: Wanted) -> list[Answer | Failed]:
        """Score the files of a form; the answers are in their order, and those without one say why."""
        async with service.place():
            return await service.answers(await images(request, settings.max_images, wanted), wanted)


def _add_facts(app: FastAPI, service: Service) -> None:
    settings, rule = service.settings, service.rule

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": POLICY})

    @app.get("/about", responses={401: REFUSED[401]}, response_model_exclude_none=True)
    async def about() -> About:
        """Say what serves here: the detector, its threshold, and the limits."""
        return About(
            detector=service.scorer.name,
            version=__version__,
            device=str(service.scorer.device),
            threshold=rule.threshold,
            unsure=service.unsure,
            meaning=rule.meaning,
            metadata=bool(HAS_C2PA),
            max_bytes=settings.max_bytes,
            max_pixels=settings.max_pixels,
            max_images=settings.max_images,
            rate=settings.rate,
        )

    @app.get("/health", responses={503: {"model": Error}})
    async def health() -> Health:
        """Say whether images are scored."""
        if not service.batcher.is_alive:
            raise HTTPException(503, "the thread of the detector has ended")
        return Health(status="ok")

    @app.get("/metrics", response_class=Response, responses={401: REFUSED[401]})
    async def metrics() -> Response:
        """Give the numbers that Prometheus reads."""
        return Response(service.telemetry.text(), media_type=service.telemetry.content_type)


def _add_errors(app: FastAPI) -> None:
    """Make every error one line of JSON; what it came of stays here."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.exception_handler(DecodeError)
    @app.exception_handler(UserError)
    async def unanswered(request: Request, error: DecodeError | UserError) -> JSONResponse:
        return JSONResponse({"error": reason(error)}, 422)

    @app.exception_handler(RequestValidationError)
    async def misspelt(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return JSONResponse({"error": f"{first['loc'][-1]}: {first['msg']}"}, 422)

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "the server failed; its log says why"}, 500)
