"""The server, asked by a client on loopback: the same scores as `predict`, and one line for whatever is wrong."""

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
from served import CHECKPOINT, SETTINGS

from dfl.data.chains import variants
from dfl.data.csv_files import read
from dfl.data.decoding import image_size
from dfl.sharing.serve.app import create
from dfl.sharing.serve.scorer import Scorer

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


def test_tags_are_read_without_the_package_of_manifests(client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfl.data.metadata.HAS_C2PA", False)
    told = PngInfo()
    told.add_text("Software", "NovelAI")
    answer = client.post("/score", params={"metadata": True}, content=encode(photo(), "PNG", pnginfo=told)).json()
    assert answer["metadata"]["c2pa"] == "not looked for: no c2pa-python"
    assert answer["metadata"]["generator_tags"] == "Software names NovelAI"
    assert "metadata=true" in client.get("/").text


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
    "a field": (
        "/batch",
        {"files": [("a", b"1")], "data": {"b": "2"}},
        400,
        "files alone, and this one has a field of text",
    ),
    "no boundary": ("/batch", {"content": b"", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
    "a broken form": ("/batch", {"content": b"--y", "headers": FORM}, 400, "broken form"),
    "a cut form": ("/score", {"content": PART + b"abc", "headers": FORM}, 400, "no image"),
    "an odd word": ("/score?maps=perhaps", {"content": b"1"}, 422, "maps: Input should be a valid boolean"),
    "an unknown word": (
        "/score?mapz=true",
        {"content": b"1"},
        422,
        "no word 'mapz' in an address; did you mean 'maps'",
    ),
    "an address": ("/batch?url=http://x", {"content": b"1"}, 422, "no word 'url' .*; there are caption, changes, maps"),
    "an odd name": ("/score?%0a%1b=1", {"content": b"1"}, 422, "no word "),
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
