"""The files of a benchmark hold its numbers, in forms that their readers take, and with the same bytes each time."""

import copy
import csv
import json
import math
from pathlib import Path

import pytest
from content import content

from dfl.benchmark import tables
from dfl.benchmark.lookup import Lookup


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    tables.save(content(), folder)
    return folder


def test_cells_are_in_long_form_with_every_digit(folder: Path) -> None:
    wanted = content()["cells"]
    with (folder / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(wanted)
    for row, cell in zip(rows, wanted, strict=True):
        assert (row["method"], row["variant"], row["seeds"]) == (cell["method"], cell["variant"], "0 1")
        assert float(row["value"]) == pytest.approx(cell["value"], abs=0, nan_ok=True)


def test_markdown_has_the_tables_and_published_numbers_apart(folder: Path) -> None:
    text = (folder / "tables.md").read_text()
    parts = {part.splitlines()[0]: part.splitlines()[2:] for part in text.split("\n## ")[1:]}
    assert list(parts)[:2] == ["AUROC: summary", "AUROC"]
    look = Lookup(content())
    best = look.methods[0].replace("_", "\\_")
    values = [f"{look.value(look.methods[0], d, 'alike', 'auroc'):.3f}" for d in look.domains("auroc")]
    assert f"| {best} | re-encoded alike | {' | '.join(values)} |" in parts["AUROC"]
    assert "| metadata alone | as stored | 0.520 | 0.990 | 0.520 |" in parts["AUROC"]
    assert text.count("CNNDetection") == 1
    assert any("CNNDetection" in line for line in parts["Published numbers, in no mean"])
    for lines in parts.values():
        rows = [line for line in lines if line]
        assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_hostile_names_stay_in_their_cell() -> None:
    made = content(2, 2)
    for one in (*made["methods"], *made["cells"], *made["summaries"]):
        for key in ("name", "method"):
            if one.get(key) == "vit_scl":
                one[key] = "a|b_\n& {50 %}\\"
    look = Lookup(made)
    assert "| a\\|b\\_ & \\{50 %\\}\\\\ |" in tables.markdown(look)
    assert r"a|b\_ \& \{50 \%\}\textbackslash{} & as stored" in tables.latex(look)


def test_latex_is_balanced(folder: Path) -> None:
    text = (folder / "tables.tex").read_text()
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") > 3
    for part in text.split("\\begin{tabular}")[1:]:
        columns = len(part.split("}")[0].strip("{"))
        rows = [line for line in part.split("\\end{tabular}")[0].splitlines() if line.endswith("\\\\")]
        assert {row.replace("\\&", "").count("&") for row in rows} == {columns - 1}


def test_only_the_cost_changes_with_date_and_machine(folder: Path, tmp_path: Path) -> None:
    later = copy.deepcopy(content())
    later["created"] = "2027-01-01"
    for one in later["methods"]:
        one |= {"images_per_s": 1.0, "memory_mb": math.nan}
    tables.save(later, tmp_path)
    differ = [
        file.name for file in sorted(folder.iterdir()) if file.read_bytes() != (tmp_path / file.name).read_bytes()
    ]
    assert differ == ["cost.csv"]
    written = json.loads((folder / "benchmark.json").read_text())
    assert "created" not in written
    assert written["summaries"] == json.loads(json.dumps(later["summaries"]))
    assert Lookup(written).methods == Lookup(later).methods
