"""Sources as one: each image once, and labels that contradict each other are an error."""

import json
from pathlib import Path

import pytest
from PIL import Image

from dfl.data import Table
from dfl.data.sources import Joined, Only
from dfl.data.sources.written import built
from dfl.errors import UserError


def listed(folder: Path, name: str, rows: dict[str, int]) -> Table:
    for path in rows:
        Image.new("RGB", (8, 8)).save(folder / path)
    lines = [f"{path},{label},test,{'gan' if label else ''}" for path, label in rows.items()]
    (folder / name).write_text("\n".join(["path,label,split,generator", *lines]))
    return Table(str(folder / name))


def test_fakes_of_one_beside_reals_of_another(tmp_path: Path) -> None:
    one = listed(tmp_path, "one.csv", {"a.png": 0, "b.png": 0, "c.png": 1})
    other = listed(tmp_path, "other.csv", {"a.png": 0, "d.png": 1})
    table = Joined([Only(one, generators=[]), other]).load("test")
    assert [Path(path).name for path in table["path"].to_pylist()] == ["a.png", "b.png", "d.png"]
    assert table["label"].to_pylist() == [0, 0, 1]


def test_a_spec_that_is_built_stays_as_it_was_written(tmp_path: Path) -> None:
    listed(tmp_path, "one.csv", {"a.png": 0})
    one = {"class_path": "Table", "init_args": {"file": str(tmp_path / "one.csv")}}
    spec = {"class_path": "Joined", "init_args": {"sources": [{"class_path": "Only", "init_args": {"source": one}}]}}
    before = json.dumps(spec)
    assert built(spec, "a test").load("test")["label"].to_pylist() == [0]
    assert json.dumps(spec) == before


def test_an_image_is_real_or_fake(tmp_path: Path) -> None:
    one, other = listed(tmp_path, "one.csv", {"a.png": 0}), listed(tmp_path, "other.csv", {"a.png": 1})
    with pytest.raises(UserError, match="a.png is real in one source and fake in another"):
        Joined([one, other]).load("test")
    with pytest.raises(UserError, match="names none"):
        Joined([])
