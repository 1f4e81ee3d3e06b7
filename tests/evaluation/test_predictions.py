"""Rows of predictions: what is written is what was scored."""

import csv
import io
import json

import numpy as np
import torch

from dfl.evaluation.predictions import COLUMNS, encode, rows

ODD = 'a "b", c\nd.png'


def batch(score: list[float], index: list[int], path: list[str]) -> dict[str, object]:
    return {"score": torch.tensor(score), "index": torch.tensor(index), "path": path, "domain": "own"}


def test_verdict_at_the_threshold_is_fake_and_padding_is_left_out() -> None:
    threshold = float(torch.tensor(0.3))  # as a checkpoint holds it
    given = batch([0.3, 0.29999998, 0.9], [4, 5, -1], ["a.png", "b.png", "pad.png"])
    assert [(path, verdict) for path, _, verdict, *_ in rows(given, threshold)] == [
        ("a.png", "fake"),
        ("b.png", "real"),
    ]


def test_scores_keep_every_bit_of_float32() -> None:
    score = torch.rand(1000, generator=torch.Generator().manual_seed(0)).square()
    given = {"score": score, "index": torch.arange(1000), "path": [""] * 1000, "domain": "own"}
    for name in ("x.csv", "x.jsonl"):
        lines = "".join(encode(row, name) for row in rows(given, 0.5))
        if name == "x.csv":
            back = [float(row[1]) for row in csv.reader(io.StringIO(lines, newline=""))]
        else:
            back = [json.loads(line)["score"] for line in lines.splitlines()]
        assert np.array_equal(np.float32(back), score.numpy())


def test_odd_paths_come_back() -> None:
    (row,) = rows(batch([0.25], [0], [ODD]), 0.5)
    assert next(csv.reader(io.StringIO(encode(row, "x.csv"), newline="")))[0] == ODD
    told = {k: v for k, v in zip(COLUMNS, row, strict=True) if v != ""}
    assert json.loads(encode(row, "x.jsonl")) == told
    assert list(told) == ["path", "score", "verdict", "threshold", "domain"]


def test_what_is_known_of_an_image_is_written_beside_its_score() -> None:
    known = {"label": torch.tensor([1, -1]), "group": torch.tensor([2, -1]), "video": torch.tensor([0, 7])}
    names = {"group": {2: "male,asian"}, "video": {0: "id0_0001"}}
    first, second = rows(batch([0.9, 0.1], [0, 1], ["a.png", "b.png"]), 0.5, known, names)
    assert first[5:] == (1, "male,asian", "id0_0001")
    assert second[5:] == ("", "", "7")
    assert next(csv.reader(io.StringIO(encode(first, "x.csv"), newline="")))[5:] == ["1", "male,asian", "id0_0001"]
    assert json.loads(encode(first, "x.jsonl"))["label"] == 1
