"""Rows of predictions: what is written is what was scored."""

import csv
import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brightness import Brightness, trainer

from dfl.data import DataModule
from dfl.data.sources import Paths
from dfl.errors import UserError
from dfl.evaluation import predictions
from dfl.evaluation.predictions import COLUMNS, PredictionWriter, encode, rows
from dfl.runs.files import claimed

ODD = 'a "b", c\nd.png'


def batch(score: list[float], index: list[int], path: list[str]) -> dict[str, object]:
    return {"score": torch.tensor(score), "index": torch.tensor(index), "path": path, "domain": "own"}


def test_verdict_at_the_threshold_is_fake_and_padding_is_left_out() -> None:
    threshold = float(torch.tensor(0.3))  # as a checkpoint holds it
    given = batch([0.3, 0.29999998, 0.9], [4, 5, -1], ["a.png", "b.png", "pad.png"])
    assert [(row["path"], row["verdict"]) for row in rows(given, threshold, {}, {})] == [
        ("a.png", "fake"),
        ("b.png", "real"),
    ]


def test_scores_keep_every_bit_of_float32() -> None:
    score = torch.rand(1000, generator=torch.Generator().manual_seed(0)).square()
    given = {"score": score, "index": torch.arange(1000), "path": [""] * 1000, "domain": "own"}
    for name in ("x.csv", "x.jsonl"):
        lines = "".join(encode(row, name) for row in rows(given, 0.5, {}, {}))
        if name == "x.csv":
            back = [float(row[1]) for row in csv.reader(io.StringIO(lines, newline=""))]
        else:
            back = [json.loads(line)["score"] for line in lines.splitlines()]
        assert np.array_equal(np.float32(back), score.numpy())


def test_odd_paths_come_back() -> None:
    (row,) = rows(batch([0.25], [0], [ODD]), 0.5, {}, {})
    assert next(csv.reader(io.StringIO(encode(row, "x.csv"), newline="")))[0] == ODD
    assert tuple(row) == COLUMNS
    in_json = json.loads(encode(row, "x.jsonl"))
    assert in_json == {name: cell for name, cell in row.items() if cell != ""}
    assert list(in_json) == ["path", "score", "verdict", "threshold", "domain"]


def test_what_is_known_of_an_image_is_written_beside_its_score() -> None:
    known = {"label": torch.tensor([1, -1]), "group": torch.tensor([2, -1]), "video": torch.tensor([0, 7])}
    names = {"group": {2: "male,asian"}, "video": {0: "id0_0001"}}
    first, second = rows(batch([0.9, 0.1], [0, 1], ["a.png", "b.png"]), 0.5, known, names)
    assert list(first.values())[5:] == [1, "male,asian", "id0_0001"]
    assert list(second.values())[5:] == ["", "", "7"]
    assert next(csv.reader(io.StringIO(encode(first, "x.csv"), newline="")))[5:] == ["1", "male,asian", "id0_0001"]
    assert json.loads(encode(first, "x.jsonl"))["label"] == 1


class Mapped(Brightness):
    """Its map is as dark as the image."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().forward(image) | {"mask_logit": -image.mean(dim=1)}


def predict(faces: Path, **words: Any) -> None:
    data = DataModule(predict={"images": Paths([str(faces / "real")])}, batch_size=8, num_workers=0, on_bad="skip")
    trainer(Path(), PredictionWriter(**words)).predict(Mapped(), data, return_predictions=False)


def everything() -> set[str]:
    return {str(path) for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_full_disk_leaves_no_part_of_a_table(kind: str, faces: Path) -> None:
    Path(f".s.{kind}.part0").symlink_to("/dev/full")
    Path(f"s.{kind}").write_text("old")
    with pytest.raises(UserError, match=rf"cannot write .*s\.{kind}: No space left on device"):
        predict(faces, output=f"s.{kind}")
    assert everything() == {f"s.{kind}"}
    assert Path(f"s.{kind}").read_text() == "old"


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EFBIG])
@pytest.mark.parametrize("words", [{}, {"maps": "maps"}, {"maps": "maps", "map_format": "npz"}])
def test_a_disk_that_refuses_a_name_leaves_nothing(
    number: int, words: dict[str, str], faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def refuse(old: str | Path, new: str | Path) -> None:
        if not str(new).endswith(".arrow"):  # rows of the table of images, which are no output
            raise OSError(number, "", str(old))
        replace(old, new)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match=rf"cannot write .*(s\.csv|0_00\.(png|npz)): {os.strerror(number)}$"):
        predict(faces, output="s.csv", **words)
    assert everything() == set()


def test_an_output_that_cannot_be_is_told_before_a_batch_is_scored(
    faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("a batch was scored")

    Path("folder.csv").mkdir()
    with claimed(Path("s.csv")), monkeypatch.context() as patch:
        patch.setattr(predictions, "rows", never)
        with pytest.raises(UserError, match="folder.csv: it is there and is no file"):
            predict(faces, output="folder.csv")
        with pytest.raises(UserError, match="another process is writing .*s.csv"):
            predict(faces, output="s.csv")
        with claimed(Path("maps"), inside=True), pytest.raises(UserError, match="another process is writing .*maps"):
            predict(faces, output="other.csv", maps="maps")
    predict(faces, output="s.csv", maps="maps")
    assert len(everything()) == 61
    assert everything() >= {"s.csv", "maps/images/000000_00.png", "maps/images/000000_00_overlay.jpg"}
