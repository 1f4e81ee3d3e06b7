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
from dfl.cli.buckets import Bucket

PARTS = ["part-000000.parquet", "part-000001.parquet"]
OWN = "own photos #1"
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


def said_at_the_end(text: str) -> list[str]:
    """Return counts of verdicts, and the lines behind them, which are those of one process."""
    lines = text.splitlines()
    at = max(i for i, line in enumerate(lines) if line.startswith("wrote "))  # workers of the stand-in print too
    assert "real validation images are called fake" in lines[at + 1]
    return [lines[at].rpartition(": ")[2], *lines[at + 1 :]]


def parts() -> list[dict[str, Any]]:
    return [row for name in PARTS for row in pq.read_table(f"parts/{name}").to_pylist()]


@pytest.mark.usefixtures("photos")
def test_parts_hold_the_rows_of_one_process(stand_in: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    run(*WORDS)
    said = capsys.readouterr().out
    assert "0 of 2 parts are there" in said
    assert "1 images could not be read and have no score: photos/torn.png (no known image" in said
    assert "wrote 39 scores to 2 parts" in said
    run("predict", "photos", "--name=tiny", "--output=one.csv")
    assert said_at_the_end(said) == said_at_the_end(capsys.readouterr().out)
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
def test_what_was_found_in_earlier_parts_is_said_again(stand_in: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    run(*WORDS)
    first = said_at_the_end(capsys.readouterr().out)
    Path("parts", PARTS[0]).unlink()
    for made in ([0], []):
        stand_in.clear()
        run(*WORDS)
        assert stand_in == made
        again = capsys.readouterr().out
        assert "1 images could not be read and have no score: photos/torn.png" in again
        assert said_at_the_end(again) == first


def test_a_part_without_a_score_has_the_columns_of_the_others(place: Path, stand_in: list[int]) -> None:
    for i in range(32):
        (place / "photos").mkdir(exist_ok=True)
        (place / "photos" / f"{i:02d}.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save_image(place / "photos" / "whole.png", 5, dark=True)
    run(*WORDS, "--data.max_bad=1.0")
    assert [pq.read_metadata(f"parts/{name}").num_rows for name in PARTS] == [0, 1]
    whole = pq.read_table("parts")  # the folder, as one
    assert whole["path"].to_pylist() == ["photos/whole.png"]
    assert whole.column_names == pq.read_schema(f"parts/{PARTS[1]}").names


def test_nothing_to_score_is_an_error_and_leaves_no_part(
    place: Path, stand_in: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "photos").mkdir()
    (place / "photos" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    line = fails(capsys, *WORDS, "--data.max_bad=1.0", code=1)
    assert "no image was scored; 1 images could not be read and have no score: photos/torn.png" in line
    assert not list(Path("parts").iterdir())


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


def address(*parts: str) -> str:
    return "/".join([Path.cwd().as_uri(), *parts])


def of_bucket(where: str, output: str = "parts") -> list[str]:
    return ["predict", where, "--name=tiny", "--ray=2", f"--output={output}"]


@pytest.mark.usefixtures("photos")
def test_a_bucket_gives_the_scores_of_its_files(stand_in: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos", "notes.md").write_text("no image")
    Path("photos", ".hidden.png").write_bytes(b"no image")
    Path("photos").rename(OWN)
    run(*of_bucket(address(OWN)))
    said = capsys.readouterr().out
    assert f"could not be read and have no score: {address(OWN, 'torn.png')} (no known image" in said
    assert f"1 .md ({address(OWN, 'notes.md')})" in said
    run("predict", OWN, "--name=tiny", "--output=one.csv")
    with open("one.csv", newline="") as file:
        one = list(csv.DictReader(file))
    assert [row["path"] for row in parts()] == [address(row["path"]) for row in one]
    assert [row["score"] for row in parts()] == [float(row["score"]) for row in one]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_a_list_in_a_bucket(stand_in: list[int], suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("lists").mkdir()
    named = ["../photos/03.png", address("photos", "01.png"), f"{Path.cwd()}/photos/02.png", "none.png"]
    lines = [*(["path"] if suffix == "csv" else []), *named]
    Path("lists", f"some.{suffix}").write_text("\n".join(lines))
    run(*of_bucket(address("lists", f"some.{suffix}")))
    assert f"1 images could not be read and have no score: {address('lists', 'none.png')}" in capsys.readouterr().out
    found = [row["path"] for row in pq.read_table(f"parts/{PARTS[0]}").to_pylist()]
    assert found == [address("photos", f"0{i}.png") for i in (3, 1, 2)]


@pytest.mark.usefixtures("photos")
def test_what_a_bucket_cannot_do_is_one_line(stand_in: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos", "list.csv").write_text("path\ns3://other/a.png\n")
    Path("photos", "folder.csv").write_text("path\n../photos\n00.png\n")
    assert "s3://other/a.png, and a list leads to images" in fails(capsys, *of_bucket(address("photos", "list.csv")))
    assert f"nothing is at {address('none')}" in fails(capsys, *of_bucket(address("none")))
    assert "does not open" in fails(capsys, *of_bucket(address("none.csv")))
    assert "nosuch://a/b does not open" in fails(capsys, *of_bucket("nosuch://a/b"))
    assert "an address stands alone" in fails(capsys, *of_bucket(address("photos")), "photos")
    assert "an address stands alone" in fails(capsys, *of_bucket(address("photos")), "--frames=2")
    assert "predict --ray reads addresses" in fails(capsys, "predict", address("photos"), "--name=tiny")
    assert not Path("parts").exists()
    line = fails(capsys, *of_bucket(address("photos", "folder.csv")))
    assert "1 of 1 parts were not made, the first: " in line
    assert f"{address('photos')} cannot be read" in line


def test_keys_of_access_are_in_no_path() -> None:
    bucket = Bucket("s3://name:secret@photos/a%20b/?region=eu-west-1")
    assert (bucket.bucket, bucket.where) == ("s3://photos", "s3://photos/a b")
    assert Bucket("abfs://box@account.dfs.core.windows.net/a").where == "abfs://box@account.dfs.core.windows.net/a"
