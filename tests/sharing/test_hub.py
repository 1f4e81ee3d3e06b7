"""A run on the hub and back, through a stand-in on loopback; its card."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub_constants
import micro  # noqa: F401
import pytest
import torch
from commands import fails
from hub_server import Hub, hub
from test_export import detector, images, save
from transformers import AutoModelForImageTextToText, AutoTokenizer

from dfl.__main__ import main
from dfl.cli import checkpoints
from dfl.detectors import Detector
from dfl.errors import UserError
from dfl.hub import fetch, offline_if_no_network
from dfl.runs.find import resolve, stage
from dfl.sharing.card import markdown
from dfl.sharing.measured import numbers_of

SIDA = Path(__file__).parents[1] / "golden" / "checkpoints" / "Sida.ckpt"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with hub() as running:
        monkeypatch.setattr(hub_constants, "ENDPOINT", running.address)
        pages = f"{running.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", pages)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)  # another protocol, to another server
        monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "token")
        yield running


def test_a_run_is_pushed_with_its_card_and_opened_again(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(detector(), tmp_path / "a.ckpt")
    address: Any = main(["push", "a.ckpt", "me/small", "--license=cc-by-nc-4.0"])
    repository, _, commit = address.removeprefix("hf://").partition("@")
    files = server.files(repository)
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    card = files["README.md"].decode()
    assert "license: cc-by-nc-4.0" in card
    assert "--ckpt_path hf://me/small" in card
    wanted = detector()(images(3) / 255)["logit"]
    for place in ("me/small", f"me/small@{commit}", address):
        again = Detector.from_pretrained(place)
        torch.testing.assert_close(again(images(3) / 255)["logit"], wanted, rtol=1e-5, atol=1e-5)
    opened = resolve("hf://me/small", Path(), None)
    assert opened.name == "model.safetensors"
    assert stage("hf://me/small", Path()) == opened
    fetched = [one for one in server.seen if one.startswith("GET") and "/resolve/" in one]
    assert not [one for one in fetched if "README" in one]
    main(["info", "hf://me/small"])
    assert "Classifier" in capsys.readouterr().out


def test_of_a_sida_the_card_says_how_transformers_opens_its_parts(
    server: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["push", str(SIDA), "me/sida"])
    assert "transformers opens its parts, as the card says" in capsys.readouterr().out
    files = server.files("me/sida")
    assert {"language/config.json", "language/model.safetensors", "heads.safetensors", "config.json"} <= set(files)
    assert "model.safetensors" not in files
    card = files["README.md"].decode()
    assert "hf://" not in card
    assert 'AutoModelForImageTextToText.from_pretrained("me/sida", subfolder="language")' in card
    for name, content in files.items():
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "copy" / name).write_bytes(content)
    words: Any = {"pretrained_model_name_or_path": tmp_path / "copy", "subfolder": "language"}
    assert "[SEG]" in AutoTokenizer.from_pretrained(**words).get_vocab()
    assert AutoModelForImageTextToText.from_pretrained(**words).config.model_type == "llava"
    line = fails(capsys, "predict", "a.png", "--ckpt_path=hf://me/sida")
    assert "hf://me/sida has no model.safetensors: " in line
    assert "or holds a Sida, of which they write parts for transformers alone: see its card" in line


def test_what_the_hub_refuses_is_one_line(
    server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="hf://me/none: http://127"):
        fetch("hf://me/none", ("config.json",))
    server.repositories["me/other"] = [{"pytorch_model.bin": b"pickle"}]
    with pytest.raises(UserError, match=r"has no config\.json and no model\.safetensors: it was not written by dfl"):
        resolve("hf://me/other", Path(), None)
    assert not [one for one in server.seen if "pytorch_model" in one]
    save(detector(), tmp_path / "a.ckpt")
    monkeypatch.setenv("HF_TOKEN", "another")
    refused = fails(capsys, "push", "a.ckpt", "me/small")
    assert "me/small: http://127.0.0.1" in refused
    assert "log in by `hf auth login`, or set HF_TOKEN" in refused
    assert "is no repository" in fails(capsys, "push", "a.ckpt", "small")
    assert "takes a local file or hf://" in fails(capsys, "predict", "a.png", "--ckpt_path=https://x/y.ckpt")


CONTENT = {
    "dfl": {"version": "1", "threshold": 0.5, "input": {"size": 32}},
    "DataModule": {"transform": None},
    "export": {"checkpoint": "c", "weights": "w", "to": "safetensors"},
}


def test_the_card_takes_its_numbers_from_a_test_or_a_benchmark(tmp_path: Path) -> None:
    trained = checkpoints.read(save(detector(), tmp_path / "a.ckpt"), Path())
    rates = {"real": 9, "fake": 8, "fpr_val": 0.25, "tpr_val": None}
    test = {
        "results": {"own": {"n_real": 7, "n_fake": 5, "auroc": 0.9}, "mean": {"n_real": None, "auroc": 0.9}},
        "intervals": {"own": [0.8, 0.95]},
        "groups": {"own": {"group": {"rates": {"female": rates}}}},
        "run": {"date": "2026", "device": "cpu"},
    }
    (tmp_path / "results.json").write_text(json.dumps(test))
    told: Any = {"results": "results.json"}
    card = markdown(trained, CONTENT, numbers_of(trained, Path(), told), told)
    assert "| own | 7 | 5 | 0.900 | 0.800 to 0.950 |" in card
    assert "| own | group | female | 9 | 25 % | 8 | undefined |" in card
    assert "Robustness against re-encoding, resizing and blur: not measured" in card
    assert "Kong et al. 2023" in card
    cell = {"method": "a", "domain": "d", "metric": "auroc", "variant": "stored", "value": 0.7, "low": 0.6, "high": 0.8}
    degraded = {"method": "a", "family": "jpeg", "strength": 50, "value": 0.6, "low": 0.5, "high": 0.7, "stored": 0.7}
    benchmark = {
        "name": "b",
        "methods": [{"name": "a"}, {"name": "other"}],
        "domains": [{"name": "d", "real": 3, "fake": 4}],
        "cells": [cell, cell | {"method": "other", "value": 0.1}, cell | {"variant": "jpeg_50"}],
        "robustness": [degraded],
    }
    (tmp_path / "benchmark.json").write_text(json.dumps(benchmark))
    told = {"results": "benchmark.json", "method": "a"}
    card = markdown(trained, CONTENT, numbers_of(trained, Path(), told), told)
    assert "| d | 3 | 4 | 0.700 | 0.600 to 0.800 |\n\n" in card
    assert "| jpeg 50 | 0.600 | 0.500 to 0.700 | 0.700 |" in card
    assert "Groups of people: not measured" in card
    assert "not stated" in markdown(trained, CONTENT, numbers_of(trained, Path(), {}), {})


@pytest.mark.parametrize(
    ("content", "told", "line"),
    [
        (None, {}, "no file"),
        ("{", {}, "is no JSON"),
        ("[1]", {}, r"neither results\.json of dfl test nor"),
        ('{"cells": [], "methods": [{"name": "a"}, {"name": "b"}]}', {}, "has 2 methods: say which with --method"),
        ('{"cells": [], "methods": [{"name": "abc"}]}', {"method": "abd"}, "did you mean 'abc'"),
    ],
)
def test_results_that_are_none(tmp_path: Path, content: str | None, told: Any, line: str) -> None:
    trained = checkpoints.read(save(detector(), tmp_path / "a.ckpt"), Path())
    if content is not None:
        (tmp_path / "r.json").write_text(content)
    with pytest.raises(UserError, match=line):
        numbers_of(trained, Path(), {"results": "r.json", **told})


@pytest.mark.parametrize("offline", [True, False])
def test_the_name_of_the_hub_is_looked_up_unless_offline(offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def unknown(*words: Any) -> Any:
        asked.append(words)
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", offline)
    with offline_if_no_network():
        assert hub_constants.HF_HUB_OFFLINE
    assert (len(asked), hub_constants.HF_HUB_OFFLINE) == (not offline, offline)
