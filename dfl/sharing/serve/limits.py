"""What a request must be before it is worked on: from whom, how large, how often. Refusals are one line of JSON."""

import asyncio
import hmac
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Addresses that anybody may ask for: they tell nothing of an image, and cost nothing.
OPEN = ("/", "/health", "/openapi.json")
#: Of every answer.
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
#: Seconds that a client has to send its images.
PATIENCE = 60
#: Clients whose rate is remembered.
MOST_CLIENTS = 10_000


class Guard:
    """Lets requests through that name this server, come from no other site's page, and bring the key.

    A browser sends a request to 127.0.0.1 for any page that asks it to, also under a name that somebody has pointed
    there; hence the first two.

    Args:
        app: What they go to.
        names: By which this server may be called; None for any.
        key: What they must bring; '' for nothing.
    """

    def __init__(self, app: ASGIApp, names: tuple[str, ...] | None, key: str) -> None:
        self.app, self.names, self.key = app, names, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        status, line = self._refusal(scope["path"], Headers(scope=scope))
        app = self.app if status == 200 else JSONResponse({"error": line}, status)
        await app(scope, receive, guarded)

    def _refusal(self, path: str, headers: Headers) -> tuple[int, str]:
        name = _host(headers)
        if name is None or (self.names is not None and name not in self.names):
            return 421, "this server goes by another name (--hosts)"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != headers["host"]:
            return 403, "pages of other sites may not ask"
        scheme, _, given = headers.get("authorization", "").partition(" ")
        # compared in constant time: how long a refusal takes tells nothing of the key
        right = scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode("latin-1"), self.key)
        if self.key and path not in OPEN and not right:
            return 401, "give the key of this server as the header Authorization: Bearer KEY"
        return 200, ""


class Rate:
    """Counts images by client: so many a minute, and as many at once after a minute of rest.

    Args:
        a_minute: Images; 0 for no limit.
        clock: Gives seconds.
    """

    def __init__(self, a_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = a_minute, clock
        self._clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def check(self, client: str) -> None:
        """Raise unless a client has something left.

        Raises:
            HTTPException: 429.
        """
        if self._most and (left := self._left(client)) <= 0:
            wait = str(max(1, round(-left * 60 / self._most) + 1))
            raise HTTPException(
                429, f"more than {self._most} images a minute; wait for {wait} s", {"Retry-After": wait}
            )

    def take(self, client: str, images: int) -> None:
        """Count images that a client has sent, and perhaps more than it had left."""
        if self._most:
            self._clients[client] = self._left(client) - images, self._clock()
            self._clients.move_to_end(client)
            if len(self._clients) > MOST_CLIENTS:  # the one that has asked least recently has most left anyway
                self._clients.popitem(last=False)

    def _left(self, client: str) -> float:
        left, at = self._clients.get(client, (float(self._most), self._clock()))
        return min(self._most, left + (self._clock() - at) * self._most / 60)


class _InMemory(MultiPartParser):
    """Starlette's parser, whose files stay in memory: it would write larger ones to disk."""

    spool_max_size = 1 << 40


async def sent_images(request: Request, most_bytes: int, most_images: int) -> list[tuple[str, bytes]]:
    """Return name and content of the images that a request brings: files of a form, or its whole body as one.

    Raises:
        HTTPException: If there is none, or too much, or it takes too long.
    """
    if int(request.headers.get("content-length") or 0) > most_bytes:
        raise _too_large(most_bytes)
    try:
        async with asyncio.timeout(PATIENCE):
            if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
                images = [("", b"".join([part async for part in _bounded(request, most_bytes)]))]
            else:
                images = await _form(request, most_bytes, most_images)
    except TimeoutError:
        raise HTTPException(408, f"the images did not arrive within {PATIENCE} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the request was cut off") from None
    if not images or images == [("", b"")]:
        raise HTTPException(400, "no image: send its bytes as the body, or files as multipart/form-data")
    return images


async def _form(request: Request, most_bytes: int, most_images: int) -> list[tuple[str, bytes]]:
    parser = _InMemory(request.headers, _bounded(request, most_bytes), max_files=most_images, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise HTTPException(413, f"at most {most_images} files in a form") from None
        words = "a form takes files alone, and this one has a field of text: words go into the address (?maps=true)"
        line = words if "Too many fields" in error.message else f"a broken form: {error.message}"
        raise HTTPException(400, line) from None
    try:
        return [(v.filename or "", await v.read()) for _, v in form.multi_items() if isinstance(v, UploadFile)]
    finally:
        await form.close()


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    """Yield a body part by part, as long as it is not too large; no header is believed."""
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise _too_large(most)
        yield part


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"more than {most:,} bytes (--max_bytes)")


def _host(headers: Headers) -> str | None:
    """Return the name that a request calls this server by, without the port; None for none that makes sense."""
    try:
        return urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return None
