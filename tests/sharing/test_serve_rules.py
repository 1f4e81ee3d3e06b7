"""Who may ask the server, how often and how many at once; what goes through the detector together; odd settings."""

import asyncio
import socket
import threading
from typing import Any

import httpx
import pytest
from odd_images import encode, photo
from served import CHECKPOINT, SETTINGS

from dfl.data.appearance import Usual
from dfl.errors import UserError
from dfl.sharing.serve import serve
from dfl.sharing.serve.app import create
from dfl.sharing.serve.batching import Batcher
from dfl.sharing.serve.limits import HEADERS, Rate
from dfl.sharing.serve.scorer import Scored, Scorer
from dfl.sharing.serve.settings import KEY, Settings


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.opened(SETTINGS)


def asked(app: Any, address: str, **words: Any) -> httpx.Response:
    """Ask an app without a network."""

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8000") as client:
            return await client.request(words.pop("method", "POST"), address, **words)

    return asyncio.run(ask())


def test_an_image_unlike_the_training_says_so(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "usual", Usual({"size": [8.0, 8.0, 8.0], "quality": [100.0, 100.0, 100.0]}))
    app = create(scorer, SETTINGS)
    small, large = (asked(app, "/score", content=encode(photo(s, s), "PNG")).json() for s in (40, 256))
    assert small["unusual"] == "size 40 px (trained on 256 px to 256 px)"
    assert "unusual" not in large


# who may ask


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


# what it is started with


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


def test_each_package_that_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfl.sharing.serve.RequirementCache", lambda wanted: "prometheus" not in wanted)
    with pytest.raises(UserError, match=r"needs prometheus-client>=0.21: pip install 'dfl\[serve\]'"):
        serve(Settings(port=0))


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="cannot listen.*in use"):
        serve(Settings(port=taken.getsockname()[1]))


def test_a_detector_that_does_not_open_as_asked_is_one_line() -> None:
    with pytest.raises(UserError, match="gone.ckpt"):
        Scorer.opened(Settings("gone.ckpt"))
    with pytest.raises(UserError, match="--model.cut: a PatchForensics takes none; there are"):
        Scorer.opened(Settings(str(CHECKPOINT), model={"cut": "block2"}))
    with pytest.raises(UserError, match="holds all weights, so those of --model.weights would not be read"):
        Scorer.opened(Settings(str(CHECKPOINT), model={"weights": "a.safetensors"}))
    with pytest.raises(UserError, match="--accelerator abacus: "):
        Scorer.opened(Settings(str(CHECKPOINT), accelerator="abacus"))


def test_a_detector_without_a_validation_has_no_wanted_rate(scorer: Scorer) -> None:
    with pytest.raises(UserError, match="--fpr needs what a validation showed"):
        create(scorer, Settings(str(CHECKPOINT), fpr=0.05))
