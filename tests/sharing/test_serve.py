"""The server, asked by a client on loopback: the same scores as `predict`, and one line for whatever is wrong."""

import asyncio
import base64
import hashlib
import io
import re
import socket
import struct
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from commands import run
from odd_images import chunk, encode, ordinary, photo, png
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dfl.data.appearance import Usual
from dfl.data.chains import variants
from dfl.data.csv_files import read
from dfl.data.decoding import image_size
from dfl.errors import UserError
from dfl.sharing.serve import serve
from dfl.sharing.serve.app import create
from dfl.sharing.serve.batching import Batcher
from dfl.sharing.serve.limits import HEADERS, Rate
from dfl.sharing.serve.scorer import Scored, Scorer
from dfl.sharing.serve.settings import KEY, Settings

#: A detector with maps.
CHECKPOINT = Path(__file__).parents[1] / "golden" / "checkpoints" / "PatchForensics.ckpt"
SETTINGS = Settings(str(CHECKPOINT), max_bytes=2_000_000, max_pixels=100_000, max_images=5, rate=0)
ODD = ("cmyk.jpg", "turn6.jpg", "1x1.png", "rgb16.png", "palette_trns.png", "animated.gif", "rgb.avif", "lzw.tif")


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.opened(SETTINGS)


@pytest.fixture(scope="module")
def client(scorer: Scorer) -> Iterator[httpx.Client]:
    """A client of a server on a free port."""
    ready = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create(scorer, SETTINGS, ready.set), lifespan="on", ws="none", log_level="critical")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(60)
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as made:
        yield made
    server.should_exit = True
    thread.join(60)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    whole = ordinary()
    return {name: whole[name] for name in ODD}


def files(images: dict[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", item) for item in images.items()]


def pixels(picture: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))))


def test_scores_and_maps_are_those_of_predict(client: httpx.Client, images: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, content in images.items():
        (tmp_path / "photos" / name).write_bytes(content)
    run("predict", "photos", f"--ckpt_path={CHECKPOINT}", "--output=scores.csv", "--maps=maps")
    rows = {Path(row["path"]).name: row for row in read(tmp_path / "scores.csv").to_pylist()}
    assert sorted(rows) == sorted(ODD)
    for name, content in images.items():
        answer = client.post("/score", params={"maps": True}, content=content).json()
        assert answer["score"] == pytest.approx(float(rows[name]["score"]), abs=1e-5)
        assert answer["verdict"] == rows[name]["verdict"]
        assert (answer["width"], answer["height"]) == image_size(content)
        want = np.asarray(Image.open(rows[name]["map"])).astype(int)
        assert np.abs(pixels(answer["map"]).astype(int) - want).max() <= 2
        assert pixels(answer["overlay"]).shape == (32, 32, 3)


def test_a_batch_answers_in_order_and_says_what_it_cannot_read(
    client: httpx.Client, images: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(file: Any) -> None:
        pytest.fail("a file was written")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", written)
    large = encode(photo(700, 700), "PPM")
    sent = {name: images[name] for name in ODD[:3]} | {"large.ppm": large, "no.txt": b"nothing"}
    assert len(large) > 1 << 20  # from here on, Starlette would write it to disk
    answers = client.post("/batch", files=files(sent)).json()
    assert [answer["name"] for answer in answers] == list(sent)
    alone = [client.post("/score", content=images[name]).json()["score"] for name in ODD[:3]]
    assert [answer["score"] for answer in answers[:3]] == pytest.approx(alone, abs=1e-5)
    assert "700x700 is more than the 100000 pixels" in answers[3]["error"]
    assert "no known image" in answers[4]["error"]
    assert "score" not in answers[4]


def test_changed_copies_are_the_benchmarks(client: httpx.Client, scorer: Scorer) -> None:
    image = photo(64, 48)
    changes = client.post("/score", params={"changes": True}, content=encode(image, "PNG")).json()["changes"]
    assert [one["name"] for one in changes] == variants(["jpeg", "resize", "crop"])
    by_name = {one["name"]: one["score"] for one in changes}
    jpeg = encode(image, "JPEG", quality=30, subsampling="4:2:0")
    half = np.ascontiguousarray(np.asarray(image)[16:48, 12:36])
    for name, copy in (("jpeg_30", scorer.read(jpeg)), ("crop_50", half)):
        want = scorer.score([scorer.row(copy)])[0].score
        assert by_name[name] == pytest.approx(want, abs=1e-5), name


def test_what_the_file_says_stands_beside_the_score(client: httpx.Client) -> None:
    pytest.importorskip("c2pa")
    told = PngInfo()
    told.add_text("parameters", "a cat, Steps: 20, Sampler: Euler")
    plain, tagged = encode(photo(), "PNG"), encode(photo(), "PNG", pnginfo=told)
    assert client.get("/about").json()["metadata"] is True
    first, second = (client.post("/score", params={"metadata": True}, content=c).json() for c in (plain, tagged))
    assert first["metadata"] == {"c2pa": "none"}
    assert second["metadata"] == {"c2pa": "none", "generator_tags": "parameters (Stable Diffusion web UI)"}
    assert first["score"] == second["score"]
    assert "metadata" not in client.post("/score", content=tagged).json()


def test_an_image_unlike_the_training_says_so(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "usual", Usual({"size": [8.0, 8.0, 8.0], "quality": [100.0, 100.0, 100.0]}))
    app = create(scorer, SETTINGS)
    small, large = (asked(app, "/score", content=encode(photo(s, s), "PNG")).json() for s in (40, 256))
    assert small["unusual"] == "size 40 px (trained on 256 px to 256 px)"
    assert "unusual" not in large


def bomb() -> bytes:
    """10,000 x 10,000 pixels in 12 kB."""
    zeros = zlib.compressobj(9)
    body = b"".join(zeros.compress(bytes(1251)) for _ in range(10_000)) + zeros.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


FORM = {"content-type": "multipart/form-data; boundary=x"}
PART = b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
#: Name -> (address, what is sent, status, line).
WRONG: dict[str, tuple[str, dict[str, Any], int, str]] = {
    "nothing": ("/score", {"content": b""}, 400, "no image"),
    "a form without files": ("/score", {"content": b"--x--\r\n", "headers": FORM}, 400, "no image"),
    "no image": ("/score", {"content": b"<svg onload=alert(1)>"}, 422, "no known image"),
    "a cut image": ("/score", {"content": encode(photo(), "JPEG")[:-200]}, 422, "damaged or cut off"),
    "a bomb": ("/score", {"content": bomb()}, 422, "10000x10000 is more than the 100000 pixels"),
    "float pixels": ("/score", {"content": encode(Image.new("F", (9, 9)), "TIFF")}, 422, "float or 32-bit pixels"),
    "an empty PNG": ("/score", {"content": png(9, 9, 8, 2, b"")}, 422, "damaged or cut off"),
    "too many bytes": ("/score", {"content": bytes(2_000_001)}, 413, "more than 2,000,000 bytes"),
    "and no length": ("/score", {"content": iter([bytes(1_500_000)] * 9)}, 413, "more than 2,000,000 bytes"),
    "two of one": ("/score", {"files": [("a", b"1"), ("b", b"2")]}, 413, "at most 1 files"),
    "too many files": ("/batch", {"files": [(str(i), b"1") for i in range(6)]}, 413, "at most 5 files"),
    "a field": ("/batch", {"files": [("a", b"1")], "data": {"b": "2"}}, 413, "no fields"),
    "no boundary": ("/batch", {"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    "a broken form": ("/batch", {"content": b"--y", "headers": FORM}, 400, "broken form"),
    "a cut form": ("/score", {"content": PART + b"abc", "headers": FORM}, 400, "no image"),
    "an odd word": ("/score?maps=perhaps", {"content": b"1"}, 422, "maps: Input should be a valid boolean"),
    "a long caption": ("/score", {"content": b"1", "params": {"caption": "a" * 2001}}, 422, "caption: "),
    "another method": ("/health", {"content": b"1"}, 405, "Method Not Allowed"),
    "another address": ("/../../etc/passwd", {"content": b"1"}, 404, "Not Found"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(name: str, client: httpx.Client) -> None:
    address, words, status, line = WRONG[name]
    answer = client.post(address, **words)
    said = answer.json()
    assert (answer.status_code, list(said)) == (status, ["error"]), said
    assert re.search(line, said["error"]), said
    assert "\n" not in said["error"]
    assert client.get("/health").json() == {"status": "ok"}


# who may ask


def asked(app: Any, address: str, **words: Any) -> httpx.Response:
    """Ask an app without a network."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000") as client:
            return await client.request(words.pop("method", "POST"), address, **words)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "LOCALHOST:1"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "[::1"}, 421),
        ({"host": ""}, 421),
        ({"origin": "http://localhost:8000"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_other_names_and_other_sites_are_turned_away(headers: dict[str, str], status: int, scorer: Scorer) -> None:
    answer = asked(create(scorer, SETTINGS), "/health", method="GET", headers=headers)
    assert answer.status_code == status
    assert all(answer.headers[name.decode()] == value.decode() for name, value in HEADERS)


def test_a_key_is_asked_for_where_there_is_one(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=f"--host 0.0.0.0 lets other machines in: set {KEY}"):
        Settings(host="0.0.0.0")
    monkeypatch.setenv(KEY, "sesame")
    app = create(scorer, Settings(host="0.0.0.0"))
    content = encode(photo(), "PNG")
    elsewhere = {"host": "scores.example"}
    for wrong in (
        {},
        {"authorization": "Bearer sesam"},
        {"authorization": "sesame"},
        {"authorization": b"Bearer \xe9"},
    ):
        answer = asked(app, "/score", content=content, headers=elsewhere | wrong)
        assert (answer.status_code, "sesam" in answer.text) == (401, False)
    assert asked(app, "/metrics", method="GET").status_code == 401
    assert (
        asked(app, "/score", content=content, headers=elsewhere | {"authorization": "bearer sesame"}).status_code == 200
    )
    assert asked(app, "/health", method="GET").status_code == asked(app, "/", method="GET").status_code == 200


def test_a_rate_is_per_client_and_comes_back_with_time() -> None:
    now = [0.0]
    rate = Rate(60, clock=lambda: now[0])
    rate.take("a", 80)  # a batch may go below nothing
    rate.check("b")
    with pytest.raises(Exception, match="more than 60 images a minute"):
        rate.check("a")
    now[0] = 19.0
    with pytest.raises(Exception, match="wait for 2 s"):
        rate.check("a")
    now[0] = 20.5
    rate.check("a")
    now[0] = 1e6
    rate.take("a", 61)  # no more than a minute's worth is saved up
    with pytest.raises(Exception, match="429"):
        rate.check("a")
    Rate(0).take("a", 10**9)


def test_a_client_above_its_rate_is_told_when_to_come_back(scorer: Scorer) -> None:
    app = create(scorer, Settings(str(CHECKPOINT), rate=2))
    content = encode(photo(), "PNG")
    assert asked(app, "/score?changes=true", content=content).status_code == 200
    answer = asked(app, "/score", content=content)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) == pytest.approx(300, abs=5)  # 12 images at 2 a minute, 2 of them free


# batches


def test_rows_that_wait_go_together_and_one_that_fails_fails_alone() -> None:
    begun, go_on, batches = threading.Event(), threading.Event(), []

    def double(rows: Any) -> list[int]:
        begun.set()
        assert go_on.wait(60)
        batches.append(list(rows))
        if "b" in rows:
            raise UserError("b is odd")
        return [2 * row for row in rows]

    watched: list[int] = []
    batcher: Batcher[Any, int] = Batcher(double, 3, 0.0, lambda rows, seconds: watched.append(rows))
    first = batcher.submit(1)
    assert begun.wait(60)
    others = [batcher.submit(row) for row in (2, 3, 4, 5, "b")]
    assert batcher.waiting == 5
    others[2].cancel()
    go_on.set()
    batcher.close()
    assert not batcher.is_alive
    assert batches == [[1], [2, 3], [5, "b"], [5], ["b"]]
    assert watched == [1, 2, 1]
    assert [one.result() for one in (first, *others[:2], others[3])] == [2, 4, 6, 10]
    with pytest.raises(UserError, match="b is odd"):
        others[4].result()


def test_one_request_too_many_is_told_to_come_again(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    app = create(scorer, Settings(str(CHECKPOINT), max_requests=2))
    content = encode(photo(), "PNG")

    async def ask(asked: int) -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            every = await asyncio.gather(*(client.post("/score", content=content) for _ in range(asked)))
            return sorted(one.status_code for one in every)

    assert asyncio.run(ask(3)) == [200, 200, 503]
    assert asyncio.run(ask(2)) == [200, 200]


def test_an_error_inside_says_nothing_of_the_inside(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rows: Any) -> list[Scored]:
        raise RuntimeError("secret of /home/me")

    monkeypatch.setattr(scorer, "score", broken)
    app = create(scorer, SETTINGS)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/score", content=encode(photo(), "PNG"))

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()) == (500, {"error": "the server failed; its log says why"})


# what is said of the server


def test_the_document_describes_what_is_answered(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/score", "/batch", "/about", "/health", "/metrics"}
    answer = client.post("/score", params={"maps": True, "changes": True}, content=encode(photo(), "PNG")).json()
    described = document["components"]["schemas"]["Answer"]["properties"]
    assert set(answer) <= set(described)
    assert all("description" in one for name, one in described.items() if name != "height")
    for path in ("/score", "/batch"):
        responses = document["paths"][path]["post"]["responses"]
        assert {"400", "401", "408", "413", "421", "422", "429", "503"} < set(responses)
        assert responses["422"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}


def test_metrics_count_requests_images_and_batches(client: httpx.Client) -> None:
    def numbers() -> dict[str, float]:
        lines = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}

    before = numbers()
    verdict = client.post("/score", content=encode(photo(), "PNG")).json()["verdict"]
    client.post("/no/such/../address")
    grown = {name: value - before.get(name, 0) for name, value in numbers().items()}
    assert grown['dfl_requests_total{path="/score",status="200"}'] == 1
    assert grown['dfl_requests_total{path="other",status="404"}'] == 1
    assert grown[f'dfl_images_total{{verdict="{verdict}"}}'] == 1
    assert grown["dfl_batch_images_sum"] == 1
    assert grown['dfl_request_seconds_count{path="/score"}'] == 1
    assert grown["dfl_waiting_images"] == 0


def test_the_page_runs_its_own_script_and_asks_nobody_else(client: httpx.Client) -> None:
    answer = client.get("/")
    policy, page = answer.headers["content-security-policy"], answer.text
    for tag in ("script", "style"):
        (text,) = re.findall(f"<{tag}>(.*)</{tag}>", page, re.S)
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"https?://|//\w", page) == []
    assert re.findall("innerHTML|insertAdjacent|document.write|eval", page) == []
    ids = set(re.findall(r'id="(\w+)"', page))
    assert set(re.findall(r'(?:\$|show)\("(\w+)"', page)) <= ids


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"port": -1}, "--port -1 must be at least 0"),
        ({"batch_size": 0}, "--batch_size 0 must be at least 1"),
        ({"batch_window": float("nan")}, "--batch_window nan must be at least 0"),
        ({"host": "example.org"}, "lets other machines in"),
    ],
)
def test_settings_that_make_no_sense(words: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        Settings(**words)


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen.*in use"):
        serve(Settings(port=taken.getsockname()[1]))


def test_a_detector_that_does_not_open_as_asked_is_one_line() -> None:
    with pytest.raises(UserError, match="no checkpoint 'gone.ckpt'"):
        Scorer.opened(Settings("gone.ckpt"))
    with pytest.raises(UserError, match=r"--model.cut: .*; there are folder, weights"):
        Scorer.opened(Settings(str(CHECKPOINT), model={"cut": "block2"}))
    with pytest.raises(UserError, match="--accelerator abacus: "):
        Scorer.opened(Settings(str(CHECKPOINT), accelerator="abacus"))


def test_a_detector_without_a_validation_has_no_wanted_rate(scorer: Scorer) -> None:
    with pytest.raises(UserError, match="--fpr needs what a validation showed"):
        create(scorer, Settings(str(CHECKPOINT), fpr=0.05))
