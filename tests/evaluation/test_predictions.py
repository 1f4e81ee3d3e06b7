"""Rows of predictions: what is written is what was scored."""

import csv
import errno
import io
import json
import math
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
from dfl.evaluation.predictions import PredictionWriter
from dfl.evaluation.rows import COLUMNS, encode, rows
from dfl.metrics.verdicts import Rule
from dfl.runs.files import claimed

ODD = 'a "b", c\nd.png'


def rule(threshold: float = 0.5) -> Rule:
    return Rule(threshold, -math.inf, 0.0, math.nan, math.nan, "")


def batch(score: list[float], index: list[int], path: list[str]) -> dict[str, object]:
    return {"score": torch.tensor(score), "index": torch.tensor(index), "path": path, "domain": "own"}


def test_verdict_at_the_threshold_is_fake_and_padding_is_left_out() -> None:
    threshold = float(torch.tensor(0.3))  # as a checkpoint holds it
    given = batch([0.3, 0.29999998, 0.9], [4, 5, -1], ["a.png", "b.png", "pad.png"])
    assert [(row["path"], row["verdict"]) for row in rows(given, rule(threshold), {}, {})] == [
        ("a.png", "fake"),
        ("b.png", "real"),
    ]


def test_scores_keep_every_bit_of_float32() -> None:
    score = torch.rand(1000, generator=torch.Generator().manual_seed(0)).square()
    given = {"score": score, "index": torch.arange(1000), "path": [""] * 1000, "domain": "own"}
    for name in ("x.csv", "x.jsonl"):
        lines = "".join(encode(row, name) for row in rows(given, rule(), {}, {}))
        if name == "x.csv":
            back = [float(row[1]) for row in csv.reader(io.StringIO(lines, newline=""))]
        else:
            back = [json.loads(line)["score"] for line in lines.splitlines()]
        assert np.array_equal(np.float32(back), score.numpy())


def test_odd_paths_come_back() -> None:
    (row,) = rows(batch([0.25], [0], [ODD]), rule(), {}, {})
    assert next(csv.reader(io.StringIO(encode(row, "x.csv"), newline="")))[0] == ODD
    assert tuple(row) == COLUMNS
    in_json = json.loads(encode(row, "x.jsonl"))
    assert in_json == {name: cell for name, cell in row.items() if cell != ""}
    assert list(in_json) == ["path", "score", "verdict", "threshold", "domain"]


def test_what_is_known_of_an_image_is_written_beside_its_score() -> None:
    known = {"label": torch.tensor([1, -1]), "group": torch.tensor([2, -1]), "video": torch.tensor([0, 7])}
    names = {"group": {2: "male,asian"}, "video": {0: "id0_0001"}}
    first, second = rows(batch([0.9, 0.1], [0, 1], ["a.png", "b.png"]), rule(), known, names)
    assert list(first.values())[7:] == [1, "male,asian", "id0_0001"]
    assert list(second.values())[7:] == ["", "", "7"]
    assert next(csv.reader(io.StringIO(encode(first, "x.csv"), newline="")))[7:] == ["1", "male,asian", "id0_0001"]
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


class Counting(Brightness):
    """Counts the images that it scores, and is interrupted at one of them."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.seen, self.at = 0, at

    def outputs(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        self.seen += len(batch["index"])
        if self.at is not None and self.seen > self.at:
            raise RuntimeError("cut off")
        return super().outputs(batch)


def scored(faces: Path, model: Counting, output: str = "s.csv", **words: Any) -> Counting:
    sources = {name: Paths([str(faces / name), "broken.png"]) for name in ("real", "fake")}
    data = DataModule(predict=sources, batch_size=4, num_workers=0, on_bad="skip", max_bad=1.0)
    trainer(Path(), PredictionWriter(output, **words)).predict(model, data, return_predictions=False)
    return model


def test_a_run_that_is_cut_off_ends_with_the_bytes_of_one_that_is_not(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.png").write_bytes(b"nothing")
    scored(faces, Counting(), "whole.csv")
    last_line = capsys.readouterr().out.splitlines()[-1]
    assert last_line.startswith("1 images could not be read")
    for at in (0, 5, 10, 21, 36):  # each of them goes on behind the one before
        with pytest.raises(RuntimeError, match="cut off"):
            scored(faces, Counting(at))
        assert not Path("s.csv").exists()
    with Path(".s.csv.part0").open("a") as torn:
        torn.write('{"domain": "fake", "ro')
    # all 8 batches of the first domain are there, and 5 of the other; the sixth is scored again
    assert scored(faces, Counting()).seen == 60 - 30 - 5 * 4
    assert capsys.readouterr().out.splitlines()[-1] == last_line
    assert Path("s.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert everything() == {"broken.png", "s.csv", "whole.csv"}


def test_what_another_run_has_left_is_not_gone_on_with(faces: Path) -> None:
    Path("broken.png").write_bytes(b"nothing")
    with pytest.raises(RuntimeError, match="cut off"):
        scored(faces, Counting(40))
    other = Counting()
    other.weight.data *= 2
    assert scored(faces, other).seen == 60


def test_rows_go_to_standard_output_alone(faces: Path) -> None:
    Path("broken.png").write_bytes(b"nothing")
    stream = io.StringIO()
    scored(faces, Counting(), "-", stream=stream)
    scored(faces, Counting())
    assert stream.getvalue() == Path("s.csv").read_bytes().decode()
