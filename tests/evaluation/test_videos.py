"""Scores of videos: which frames stand for them, and what becomes of the scores of those."""

import csv
import io
import math
from pathlib import Path

import numpy as np
import pytest
from brightness import Brightness, trainer
from conftest import save_image
from PIL import Image

from dfl.data import DataModule
from dfl.data.sources import Paths
from dfl.errors import UserError
from dfl.evaluation import predictions as of_predictions
from dfl.evaluation import videos as of_videos
from dfl.evaluation.predictions import PredictionWriter
from dfl.evaluation.videos import Videos, worst_quarter
from dfl.metrics.verdicts import Rule

LOOKS_AT_FIGURES = True


def film(path: Path, bright: list[int]) -> None:
    """Write a video with a gray frame of each brightness."""
    av = pytest.importorskip("av")
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for value in bright:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 48, 3), value, np.uint8), format="rgb24")))
        out.mux(stream.encode())


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(), newline="")))


def test_even_frames_stand_for_a_video_wherever_it_lies() -> None:
    film(Path("clips/a.mp4"), [0] * 8)
    save_image(Path("clips/b.png"), 0, dark=False)
    found = Paths(["clips"], frames=2).load("test")
    assert found["path"].to_pylist() == ["clips/a.mp4#at=0/2", "clips/a.mp4#at=1/2", "clips/b.png"]
    assert found["video"].to_pylist() == ["clips/a.mp4", "clips/a.mp4", ""]
    assert Paths(["clips/a.mp4"], frames=3).load("test").num_rows == 3
    assert Paths(["clips/a.mp4#frame=5"]).load("test")["video"].to_pylist() == ["clips/a.mp4"]
    left_out = Paths(["clips"])
    assert left_out.load("test")["path"].to_pylist() == ["clips/b.png"]
    assert "predict --frames 16" in str(left_out.left_out)
    with pytest.raises(UserError, match="--frames 0 must be at least 1"):
        Paths(["clips"], frames=0)


def test_a_video_has_the_mean_of_its_frames_and_of_the_worst_quarter() -> None:
    assert worst_quarter(np.array([0.1, 0.9, 0.2, 0.3, 0.8])) == pytest.approx(0.85)
    assert worst_quarter(np.array([0.4])) == 0.4
    videos = Videos()
    for path, score in (("v.mp4#frame=9", 0.2), ("v.mp4#frame=3&xywh=1,1,9,9", 0.1), ("v.mp4#frame=3", 0.7)):
        videos.add({"path": path, "score": score})
    videos.add({"path": "a.png", "score": 1.0})
    file = videos.write(Path("s.csv"), Rule(0.4, -math.inf, 0.0, math.nan, math.nan, ""))
    (row,) = rows(file)
    assert (row["path"], row["frames"], row["verdict"]) == ("v.mp4", "2", "fake")  # the highest of two faces counts
    assert (float(row["mean"]), float(row["worst_quarter"])) == (pytest.approx(0.45), 0.7)
    assert Image.open(row["timeline"]).width > 500


def test_predict_writes_a_table_of_videos_beside_that_of_frames(capsys: pytest.CaptureFixture[str]) -> None:
    film(Path("clips/dark.mp4"), [20] * 8)
    film(Path("clips/bright.mp4"), [240] * 8)
    data = DataModule(predict={"images": Paths(["clips"], frames=4)}, batch_size=4, num_workers=0)
    trainer(Path(), PredictionWriter("s.csv")).predict(Brightness(), data, return_predictions=False)
    bright, dark = rows(Path("s.videos.csv"))
    assert (bright["path"], bright["verdict"], dark["path"], dark["verdict"]) == (
        "clips/bright.mp4",
        "real",
        "clips/dark.mp4",
        "fake",
    )
    assert len(Path("s.csv").read_text().splitlines()) == 9
    assert "wrote scores of 2 videos to s.videos.csv" in capsys.readouterr().out


def test_what_is_not_made_of_videos_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        film(Path(f"clips/{name}.mp4"), [20] * 4)
    data = DataModule(predict={"images": Paths(["clips"], frames=2)}, batch_size=4, num_workers=0)
    trainer(Path(), PredictionWriter("-", stream=io.StringIO())).predict(Brightness(), data, return_predictions=False)
    assert "scores of 2 videos, and their timelines, need a table beside them" in capsys.readouterr().out
    for module in (of_predictions, of_videos):
        monkeypatch.setattr(module, "MOST_TIMELINES", 1)
    trainer(Path(), PredictionWriter("s.csv")).predict(Brightness(), data, return_predictions=False)
    assert "wrote scores of 2 videos to s.videos.csv; timelines of the first 1 alone" in capsys.readouterr().out
    assert [bool(row["timeline"]) for row in rows(Path("s.videos.csv"))] == [True, False]
