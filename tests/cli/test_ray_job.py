"""`predict --ray`: parts by several workers are the rows of one process, and only parts that are missing are made.

A stand-in for the calls that we make of Ray runs the workers in this process, one after the other.
"""

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pyarrow.parquet as pq
import pytest
from commands import fails, run
from conftest import save_image

from dfl.cli import ray_job

PARTS = ["part-000000.parquet", "part-000001.parquet"]
WORDS = ["predict", "photos", "--name=tiny", "--ray=2", "--output=parts"]


class Items:
    """What ``ray.data.from_items`` gives, its map done in this process."""

    made: ClassVar[list[int]] = []

    def __init__(self, items: list[Any], **words: Any) -> None:
        self.items = items

    def map(self, worker: Callable[..., Any], fn_constructor_args: tuple[Any, ...], **words: Any) -> "Items":
        call = worker(*fn_constructor_args)
        Items.made += [item["number"] for item in self.items]
        return Items([call(item) for item in self.items])

    def take_all(self) -> list[Any]:
        return self.items


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ray as a module of our own; returns the numbers of the parts that were made."""
    whole, data = ModuleType("ray"), ModuleType("ray.data")
    whole.init = lambda **words: None  # type: ignore[attr-defined]
    data.from_items = Items  # type: ignore[attr-defined]
    whole.data = data  # type: ignore[attr-defined]
    for name, module in (("ray", whole), ("ray.data", data)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(ray_job, "_HAS_RAY", True)
    monkeypatch.setattr(ray_job, "PART", 32)
    Items.made = []
    return Items.made


@pytest.fixture
def photos(place: Path) -> None:
    for i in range(39):
        save_image(place / "photos" / f"{i:02d}.png", i, dark=i % 2 == 0)
    (place / "photos" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def parts() -> list[dict[str, Any]]:
    return [row for name in PARTS for row in pq.read_table(f"parts/{name}").to_pylist()]


@pytest.mark.usefixtures("photos")
def test_parts_hold_the_rows_of_one_process(stand_in: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    run(*WORDS)
    said = capsys.readouterr().out
    assert "0 of 2 parts are there" in said
    assert "1 images could not be read and have no score" in said
    assert "wrote 39 scores to 2 parts" in said
    run("predict", "photos", "--name=tiny", "--output=one.csv")
    with open("one.csv", newline="") as file:
        one = list(csv.DictReader(file))
    assert [row["path"] for row in parts()] == [row["path"] for row in one]
    assert [row["score"] for row in parts()] == [float(row["score"]) for row in one]
    assert [row["verdict"] for row in parts()] == [row["verdict"] for row in one]


@pytest.mark.usefixtures("photos")
def test_only_a_missing_part_is_made_again(stand_in: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    run(*WORDS)
    before, stamp = parts(), Path("parts", PARTS[0]).stat().st_mtime_ns
    Path("parts", PARTS[1]).unlink()
    stand_in.clear()
    run(*WORDS)
    assert "1 of 2 parts are there" in capsys.readouterr().out
    assert stand_in == [1]
    assert parts() == before
    assert Path("parts", PARTS[0]).stat().st_mtime_ns == stamp


@pytest.mark.usefixtures("photos")
def test_parts_of_another_job_are_not_mixed(stand_in: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    run(*WORDS)
    save_image(Path("photos", "more.png"), 5, dark=True)
    assert "holds parts of other weights, images or settings" in fails(capsys, *WORDS)
    Path("parts", ray_job.FACTS).unlink()
    assert "holds parts that are not of dfl" in fails(capsys, *WORDS)


@pytest.mark.usefixtures("photos")
def test_what_ray_cannot_do_is_one_line(stand_in: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--ray writes tables alone" in fails(capsys, *WORDS, "--maps=maps")
    assert "--ray 0 must be at least one worker" in fails(capsys, *WORDS[:3], "--ray=0", "--output=parts")
    assert "--output FOLDER" in fails(capsys, *WORDS[:4])
    assert not Path("parts").exists()


@pytest.mark.usefixtures("photos")
def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ray_job, "_HAS_RAY", False)
    assert "pip install 'dfl[ray]'" in fails(capsys, *WORDS)
