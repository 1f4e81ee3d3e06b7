"""Folders that verbs fill: whole or not there, going on where they were cut off, and never over anything else."""

import json
from pathlib import Path
from typing import Any

import pytest

from dfl.errors import UserError
from dfl.runs.output_folder import output_folder
from dfl.runs.workers import Workers

CALLS: list[int] = []


def square(folder: Path, fails: set[int], number: int) -> dict[str, Any]:
    CALLS.append(number)
    if number in fails:
        return {"files": [], "reason": "no square"}
    (folder / f"{number}.txt").write_text(str(number**2))
    return {"files": [f"{number}.txt"], "square": number**2}


def fill(cut: int | None = None, fails: set[int] = frozenset(), folder: str = "out", **settings: Any) -> list[Any]:  # type: ignore[assignment]
    """Square six numbers in a folder; raise before one of them."""
    CALLS.clear()
    with output_folder(folder, "squares", {"size": 1, **settings}) as output:
        if output.done:
            return []
        results = []
        with Workers(6, "squares", 1, progress=False) as pool:
            for result in output.results(lambda n: square(output.partial, fails, n), range(6), pool):
                if len(results) == cut:
                    raise KeyboardInterrupt
                results.append(result.get("square"))
        output.finish(sum=sum(filter(None, results)))
        return results


def content(folder: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


def test_a_folder_is_whole_or_not_there_and_goes_on() -> None:
    whole = fill(folder="whole")
    assert whole == [0, 1, 4, 9, 16, 25]
    record = json.loads(Path("whole/squares.json").read_text())
    assert (record["settings"], record["sum"]) == ({"size": 1}, 55)
    assert "pillow" in record["versions"]
    with pytest.raises(KeyboardInterrupt):
        fill(cut=4, fails={1})
    assert CALLS == [0, 1, 2, 3, 4]
    assert not Path("out").exists()
    Path(".out.partial/2.txt").write_text("")  # as after a power cut
    with open(".out.partial/results.jsonl", "a") as log:
        log.write('{"files": ["hal')
    assert fill() == whole
    assert CALLS == [1, 2, 5], "what failed, what is not whole, what was not reached"
    assert content("out") == content("whole")
    assert fill() == []  # there already
    assert sorted(path.name for path in Path().iterdir()) == ["out", "whole"]


def test_a_folder_of_other_content_or_settings_is_left_alone() -> None:
    for name in ("mine", ".partly.partial"):
        Path(name).mkdir()
        Path(name, "thesis.txt").write_text("all")
    for name in ("mine", "partly"):
        with pytest.raises(UserError, match="holds something else; give a new folder"):
            fill(folder=name)
    assert content("mine") == {"thesis.txt": b"all"}
    Path("empty").mkdir()
    fill(folder="empty")
    before = content("empty")
    for settings, differ in (
        ({"size": 2}, "size 1, now 2"),
        ({"more": 3}, "more None, now 3"),
        ({"rows": "a"}, "other"),
    ):
        with pytest.raises(UserError, match=rf"other settings \({differ}.*\); give a new folder, or remove it"):
            fill(folder="empty", **settings)
    assert content("empty") == before


@pytest.mark.parametrize(("beside", "same"), [({}, True), ({"sources": ["a"], "skipped": []}, True), ({"b": 1}, False)])
def test_records_of_earlier_versions_are_read(beside: dict[str, Any], same: bool) -> None:
    Path("out").mkdir()
    Path("out/squares.json").write_text(json.dumps({"size": 1, **beside}))
    if same:
        assert fill() == []
    else:
        with pytest.raises(UserError, match="b 1, now None"):
            fill()
