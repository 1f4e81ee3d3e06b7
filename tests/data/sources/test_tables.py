"""Tables from elsewhere: Windows, spreadsheets, Hugging Face."""

import io
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from layouts import refuses
from PIL import Image

from dfl.data import Table
from dfl.data.locators import load_image
from dfl.errors import UserError

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, value, value)).save(file, "png")
    return file.getvalue()


def csv(root: Path, text: str, **given: Any) -> Table:
    (root / "t.csv").write_text(text)
    return Table(str(root / "t.csv"), **given)


def parquet(root: Path, name: str = "t", **columns: Any) -> Table:
    pq.write_table(pa.table(columns), root / f"{name}.parquet", row_group_size=2)
    return Table(str(root / f"{name}.parquet"))


def test_names_stay_as_they_are_written(tmp_path: Path) -> None:
    table = csv(tmp_path, "path,label,identity,video,group,frame\n000,1,007,07,1.0,3.0\n01,0,7,NA,null,\n").load("test")
    assert [Path(p).name for p in table["path"].to_pylist()] == ["000", "01"]
    assert table.select(["identity", "video", "group", "frame"]).to_pylist() == [
        {"identity": "007", "video": "07", "group": "1.0", "frame": 3},
        {"identity": "7", "video": "NA", "group": "null", "frame": -1},
    ]
    with pytest.raises(UserError, match=r"column 'frame' must hold whole numbers: found '3.5'"):
        csv(tmp_path, "path,label,frame\na,1,3.5\n").load("test")


def test_paths_of_windows(tmp_path: Path) -> None:
    for name in ("d/x/a.png", "d/y/b.png", "m/a.png", "we\\ird.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    table = csv(tmp_path, "path,label,mask\nd\\x\\a.png,1,m\\a.png\nd/y/b.png,0,\n").load("test")
    assert table["path"].to_pylist() == [f"{tmp_path}/d/x/a.png", f"{tmp_path}/d/y/b.png"]
    assert table["mask"].to_pylist() == [f"{tmp_path}/m/a.png", ""]
    for start in ("D:\\data\\", "D:/data/", "\\\\server\\share\\"):
        table = csv(tmp_path, f"path,label\n{start}d\\x\\a.png,1\n{start}d\\y\\b.png,0\n").load("test")
        assert table["path"].to_pylist() == [f"{tmp_path}/d/x/a.png", f"{tmp_path}/d/y/b.png"]
    with pytest.raises(UserError, match=r"of another machine, such as E:\\no\\c.png, and nothing .*; set root"):
        csv(tmp_path, "path,label\nE:\\no\\c.png,1\n").load("test")
    # here a backslash may be a part of a name
    assert csv(tmp_path, "path,label\nwe\\ird.png,1\n").load("test")["path"].to_pylist() == [f"{tmp_path}/we\\ird.png"]


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 2 columns named 'label': rename or remove all but one"):
        csv(tmp_path, "path,label,label\na,1,0\n").load("test")
    assert len(csv(tmp_path, ",path,label,\n0,a,1,x\n").load("test")) == 1  # the others say nothing
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([1])], ["path", "path", "label"])
    pq.write_table(twice, tmp_path / "t.parquet")
    refuses(Table(str(tmp_path / "t.parquet")), "test", "has 2 columns named 'path'")


def test_columns_that_differ_in_case_alone(tmp_path: Path) -> None:
    exact = csv(tmp_path, "path,Path,label,LABEL\na,x,0,5\nb,x,1,6\n").load("test")
    assert [Path(p).name for p in exact["path"].to_pylist()] == ["a", "b"]
    assert exact["label"].to_pylist() == [0, 1]
    text = "path,LABEL,Label\na,0,0\nb,1,1\n"
    refuses(csv(tmp_path, text), "test", "has the columns LABEL, Label: rename or remove all but one")
    assert csv(tmp_path, text, columns={"label": "Label"}).load("test")["label"].to_pylist() == [0, 1]


def test_a_row_without_an_image(tmp_path: Path) -> None:
    refuses(csv(tmp_path, "path,label\na,1\n,0\n"), "test", "column 'path': row 2 names no image")
    refuses(parquet(tmp_path, path=["a", None], label=[1, 0]), "test", "column 'path': row 2 names no image")


def test_images_in_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = pa.array([{"bytes": png(50 * i), "path": f"{i}.png"} for i in range(4)], STRUCT)
    label, split = [0, 1, 0, 1], ["train", "test", "train", "test"]
    plain = cells.field("bytes")
    for name, images in (("struct", cells), ("plain", plain), ("large", plain.cast(pa.large_binary()))):
        paths = parquet(tmp_path, name, image=images, label=label, split=split).load("test")["path"].to_pylist()
        assert [load_image(path)[0, 0, 0] for path in paths] == [50, 150]
    monkeypatch.chdir(tmp_path)
    assert load_image(Table("struct.parquet").load("test")["path"][0].as_py())[0, 0, 0] == 50


def test_cells_that_are_empty_or_name_a_file(tmp_path: Path) -> None:
    some = [{"bytes": None, "path": "x.png"}, {"bytes": png(9), "path": None}]
    masks = pa.array([None, {"bytes": png(255), "path": "m"}], STRUCT)
    table = parquet(tmp_path, image=pa.array(some, STRUCT), mask=masks, label=[0, 1]).load("test")
    file = f"{tmp_path}/t.parquet"
    assert table["path"].to_pylist() == [f"{tmp_path}/x.png", f"{file}#column=image&row=1"]
    assert table["mask"].to_pylist() == ["", f"{file}#column=mask&row=1"]
    with pytest.raises(UserError, match="column 'image': row 1 names no image"):
        parquet(tmp_path, "none", image=pa.array([None, some[1]], STRUCT), label=[0, 1]).load("test")


@pytest.mark.parametrize(
    "cells",
    [
        pa.array([1, 2]),
        pa.array([[1, 2], [3]]),
        pa.array([[[1], [2]]] * 2, pa.list_(pa.list_(pa.uint8()))),
        pa.array([{"a": 1}] * 2),
        pa.array([{"bytes": [1, 2], "path": "x"}] * 2),
    ],
)
def test_what_is_no_image_is_named_by_its_type(tmp_path: Path, cells: pa.Array) -> None:
    with pytest.raises(UserError, match=r"column 'image' holds (int64|list|struct).*bytes of image files or structs"):
        parquet(tmp_path, image=cells, label=[0, 1]).load("test")


def test_a_cell_of_bytes_is_never_printed(tmp_path: Path) -> None:
    images = pa.array([{"bytes": png(1), "path": "x"}] * 2, STRUCT)
    # a picture called ``original`` is no name of one
    table = parquet(tmp_path, image=images, label=[0, 1], original=images, caption=[png(1), png(2)]).load("test")
    assert table["source"].to_pylist() == table["caption"].to_pylist() == ["", ""]
    with pytest.raises(UserError, match=r"column 'caption' holds binary, where text belongs$"):
        Table(str(tmp_path / "t.parquet"), columns={"caption": "caption"}).load("test")
    with pytest.raises(UserError, match=r"column 'label' holds binary, where text belongs$"):
        parquet(tmp_path, "label", path=["a", "b"], label=[png(1), png(2)]).load("test")
    # some writers do not say that their text is text
    table = parquet(tmp_path, "text", path=[b"a.png", b"b.png"], label=[b"real", b"fake"]).load("test")
    assert table.select(["path", "label"]).to_pylist() == [
        {"path": f"{tmp_path}/a.png", "label": 0},
        {"path": f"{tmp_path}/b.png", "label": 1},
    ]


def test_odd_parquet_is_one_line(tmp_path: Path) -> None:
    for content in (b"", b"PAR1xxxxPAR1", os.urandom(64)):
        (tmp_path / "t.parquet").write_bytes(content)
        refuses(Table(str(tmp_path / "t.parquet")), "test", "cannot read the table")
    with pytest.raises(UserError, match=r"column 'frame' holds list<.*>, where whole numbers belong"):
        parquet(tmp_path, path=["a"], label=[1], frame=[[1]]).load("test")
