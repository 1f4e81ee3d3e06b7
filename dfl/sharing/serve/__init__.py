"""``dfl serve``: a page and an API around one trained detector.

    dfl serve --ckpt_path best --name NAME        then open http://127.0.0.1:8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/score

One process holds the detector, and another one, which starts it, puts a new one in its place when it is killed. Nothing
is written to disk and no address is opened. See docs/serve.md.
"""

import socket
import sys
from functools import partial
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from dfl.cli.verbs import call
from dfl.errors import UserError
from dfl.sharing.serve.settings import Settings
from dfl.sharing.serve.supervise import supervise

WHAT = "Score images that are sent over HTTP: a page for people, and an API."
PACKAGES = ("fastapi>=0.115", "uvicorn>=0.34", "python-multipart>=0.0.20", "prometheus-client>=0.21")


def main(argv: list[str]) -> Any:
    """Run the verb, from the words after ``dfl serve``, until it is stopped.

    Raises:
        UserError: For whatever the user can mend.
    """
    serve(call(Settings, argv, "dfl serve", WHAT, None, __doc__))


def serve(settings: Settings) -> None:
    """Serve until the process is stopped.

    Raises:
        UserError: If a package is missing, the address cannot be had, or the detector does not open.
    """
    if absent := [one for one in PACKAGES if not RequirementCache(one)]:
        raise UserError(f"dfl serve needs {' and '.join(absent)}: pip install 'dfl[serve]'")
    try:
        listener = socket.create_server((settings.host, settings.port), family=settings.family, backlog=256)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot listen on {settings.host}, port {settings.port}: {reason}; give --port") from error
    with listener:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"http://{host}:{listener.getsockname()[1]}"
        begun = partial(print, f"serving at {address}, until Ctrl-C", flush=True)
        sys.exit(supervise(work, (settings, listener), begun))


def work(settings: Settings, listener: socket.socket, ready: Any) -> None:
    """Open the detector and answer, in a process of its own.

    Args:
        settings: What was asked for.
        listener: The socket, bound.
        ready: Called when requests are answered.
    """
    import uvicorn  # these two are an extra

    from dfl.sharing.serve.app import create
    from dfl.sharing.serve.scorer import Scorer

    app = create(Scorer.opened(settings), settings, ready)
    config = uvicorn.Config(
        app,
        lifespan="on",
        ws="none",
        log_level="warning",
        access_log=False,  # who asks about which image is nobody's business
        server_header=False,
        proxy_headers=False,  # or anyone could name another address than their own
        timeout_graceful_shutdown=10,
    )
    uvicorn.Server(config).run(sockets=[listener])
