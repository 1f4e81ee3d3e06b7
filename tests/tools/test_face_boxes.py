"""Faces as boxes: from files of boxes and landmarks, from a detector; what has none is counted and named."""

import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dfl.data.locators import load_image
from dfl.data.masks import load_mask
from dfl.errors import UserError
from dfl.tools.faces import faces, grown, read_boxes


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    """Return a table of four pictures of 80x60 with masks, whose pixels tell where they are."""
    lines = ["path,label,mask"]
    y, x = np.mgrid[:60, :80]
    for i in range(4):
        Image.fromarray(np.stack([x, y, np.full_like(x, i)], -1).astype(np.uint8)).save(tmp_path / f"{i}.png")
        Image.fromarray(np.where(x < 30, 255, 0).astype(np.uint8)).save(tmp_path / f"m{i}.png")
        lines.append(f"{i}.png,{i % 2},m{i}.png")
    (tmp_path / "crowd.csv").write_text("\n".join(lines))
    return tmp_path / "crowd.csv"


def test_boxes_of_a_file_cut_image_and_mask(crowd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    boxes = crowd.with_name("boxes.csv")
    boxes.write_text("path,x,y,w,h\n0.png,20,10,10,20\n0.png,50,30,8,8\n1.png,0,0,10,10\n2.png,70,50,10,10\n")
    file = faces([str(crowd)], str(crowd.with_name("f.parquet")), str(boxes), max_missing=0.3, progress=False)
    table = pq.read_table(file)
    assert [p.partition("#")[2] for p in table["path"].to_pylist()] == [
        "xywh=9,4,32,32",  # 20 + 2 x 0.3 x 20 pixels square about the middle (25, 20)
        "xywh=0,0,16,16",  # moved inwards at the edges
        "xywh=64,44,16,16",
    ]
    pixels = load_image(table["path"][0].as_py())
    assert pixels.shape == (32, 32, 3)
    assert pixels[0, 0].tolist() == [9, 4, 0]
    area = load_mask(table["mask"][0].as_py(), "", (32, 32))
    assert area is not None
    assert (area == np.where(np.arange(9, 41) < 30, 255, 0)).all()
    assert "1 of 4 images gave no face (1 no face)" in capsys.readouterr().out
    assert "3.png,no face" in file.with_suffix(".missing.csv").read_text().replace('"', "")
    every = faces(
        [str(crowd)], str(crowd.with_name("f.parquet")), str(boxes), keep="all", max_missing=0.3, progress=False
    )
    assert len(pq.read_table(every)) == 4
    with pytest.raises(UserError, match="--max_missing allows 5%"):
        faces([str(crowd)], str(crowd.with_name("g.parquet")), str(boxes), progress=False)
    assert not crowd.with_name("g.parquet").exists()


def test_other_notations_of_a_box(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("path,frame,x0,y0,x1,y1\nv.mp4,3,1,2,11,22\n")
    assert read_boxes(tmp_path / "a.csv") == {str(tmp_path / "v.mp4"): {3: [(1, 2, 10, 20)]}}
    text = json.dumps([[1, 2], [11, 5], [4, 22]]).replace('"', '""')
    (tmp_path / "b.csv").write_text(f'path,landmarks\ni.png,"{text}"\n')
    assert read_boxes(tmp_path / "b.csv") == {str(tmp_path / "i.png"): {-1: [(1, 2, 10, 20)]}}
    (tmp_path / "c.csv").write_text("path,left\nv.mp4,3\n")
    with pytest.raises(UserError, match="needs the columns x, y, w, h"):
        read_boxes(tmp_path / "c.csv")


@pytest.mark.parametrize(("square", "box"), [(True, (14, 0, 60, 60)), (False, (4, 0, 80, 60))])
def test_a_box_stays_inside(square: bool, box: tuple[int, int, int, int]) -> None:
    assert grown((24, 20, 40, 30), (90, 60), 0.5, square) == box


def test_frames_take_the_nearest_box(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "v.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(8):
            picture = np.full((48, 64, 3), 30 * i, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode())
    (tmp_path / "t.csv").write_text("path,label\nv.mp4#at=0/2,0\nv.mp4#at=1/2,0\nv.mp4#frame=4,0\n")  # frames 2, 6, 4
    (tmp_path / "b.csv").write_text("path,frame,x,y,w,h\nv.mp4,1,0,0,10,10\nv.mp4,7,20,20,10,10\n")
    file = faces(
        [str(tmp_path / "t.csv")], str(tmp_path / "f.parquet"), str(tmp_path / "b.csv"), margin=0, progress=False
    )
    assert [p.partition("#")[2] for p in pq.read_table(file)["path"].to_pylist()] == [
        "at=0/2&xywh=0,0,10,10",
        "at=1/2&xywh=20,20,10,10",
        "frame=4&xywh=0,0,10,10",
    ]
    assert load_image(pq.read_table(file)["path"][1].as_py()).shape == (10, 10, 3)


def test_a_detector_is_asked_at_its_size_and_answers_in_pixels(crowd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights cannot be had here, so OpenCV's class is replaced: it finds one face in the middle half."""
    asked: list[Any] = []

    class Fake:
        def setScoreThreshold(self, value: float) -> None:
            asked.append(value)

        def setInputSize(self, size: tuple[int, int]) -> None:
            asked.append(size)

        def detect(self, image: np.ndarray) -> tuple[int, np.ndarray | None]:
            assert image[0, -1, 2] > 70 > image[0, -1, 0]  # BGR: red counts columns
            h, w = image.shape[:2]
            return 1, np.array([[w / 4, h / 4, w / 2, h / 2, *[0] * 10, 0.9]], np.float32)

    monkeypatch.setattr("dfl.tools.faces._yunet", lambda weights: Fake())
    monkeypatch.setattr("dfl.tools.faces.DETECTOR_SIDE", 40)
    (crowd.parent / "yunet.onnx").write_bytes(b"x")
    file = faces(
        [str(crowd)],
        str(crowd.with_name("f.parquet")),
        weights=str(crowd.parent / "yunet.onnx"),
        margin=0,
        square=False,
        workers=1,
        progress=False,
    )
    assert asked[:2] == [0.8, (40, 30)]
    assert pq.read_table(file)["path"][0].as_py().endswith("#xywh=20,15,40,30")


def test_weights_of_something_else_are_one_line(crowd: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no YuNet"):
        faces([str(crowd)], weights=str(tmp_path / "bad.onnx"), workers=1, progress=False)
