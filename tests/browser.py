"""A page in headless Chromium: what it logs, asks the network for, measures, and does at the press of a key.

Chromium's debugging protocol goes over two pipes: messages are JSON, with a zero byte at the end of each.
"""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
    "--hide-scrollbars",  # a picture is without them, and would be cut where they stand
)
SECONDS = 60
#: The pipes are to be descriptors 3 and 4 of the browser.
START = """
import os, sys
os.dup2(int(sys.argv[1]), 3), os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """A browser with one page open.

    Args:
        page: The file, or an address.
        profile: An empty folder.
        width: Of the window in CSS pixels, as of a phone.

    Attributes:
        events: What it told on the way: (name, parameters).
    """

    def __init__(self, page: Path | str, profile: Path, width: int = 390) -> None:
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        words = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, str(read), str(write), *words],
            pass_fds=(read, write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._buffer, self._sent, self._session = b"", 0, ""
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{part}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=False)
        self.send("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(name == "Page.loadEventFired" for name, _ in self.events):
            self._receive()

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        # killed, it would leave helpers that go on writing into the profile
        with contextlib.suppress(BrokenPipeError):
            os.write(self._out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], SECONDS)[0], "the browser does not answer"
            part = os.read(self._in, 1 << 16)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer = json.loads(message)
        if "method" in answer:
            self.events.append((answer["method"], answer["params"]))
        return answer

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """Press a key and let it go."""
        code = {"Tab": 9, "Enter": 13}[key]
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def until(self, expression: str) -> None:
        """Wait until an expression of JavaScript is true."""
        asked = f"new Promise(done => {{ const look = () => {expression} ? done(1) : setTimeout(look, 50); look(); }})"
        self.send("Runtime.evaluate", expression=asked, awaitPromise=True)

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in a field."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        field = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", files=[str(file.resolve())], nodeId=field)

    def picture(self, file: Path) -> None:
        """Save the whole page as it looks, PNG."""
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def problems(self) -> list[Any]:
        """Return what was logged as an error or thrown, up to now."""
        self.value("1")  # what came before is here
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [params for name, params in self.events if name in kinds]

    def requests(self) -> list[str]:
        """Return the addresses that the page asked for, without those of data inside it."""
        urls = [params["request"]["url"] for name, params in self.events if name == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith("data:")]
