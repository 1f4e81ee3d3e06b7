"""The files of a benchmark hold its numbers, in forms that their readers take, and with the same bytes each time."""

import copy
import csv
import json
import math
from pathlib import Path

import pytest
from content import content

from dfl.benchmark import sections, tables
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
    cells = [look.cell(look.methods[0], d, "alike", "auroc") for d in look.domains("auroc")]
    values = [f"{one['value']:.3f} ({one['low']:.3f}-{one['high']:.3f})" for one in cells]
    assert f"| {best} | re-encoded alike | {' | '.join(values)} |" in parts["AUROC"]
    leaks = "0.520 (0.470-0.570) | 0.990 (0.970-1.000) | 0.520 (0.470-0.570)"
    assert f"| metadata alone | as stored | {leaks} |" in parts["AUROC"]
    assert text.count("CNNDetection") == 1
    assert any("CNNDetection" in line for line in parts["Published numbers, in no mean"])
    for lines in parts.values():
        rows = [line for line in lines if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_tables_hold_shifts_ranks_gaps_and_the_crop_rule(folder: Path) -> None:
    made = content()
    look = Lookup(made)
    text, latex = ((folder / f"tables.{kind}").read_text() for kind in ("md", "tex"))
    assert text.splitlines()[2] == "Images: resize shorter, crop centre, 224 pixels, centre view."
    assert latex.splitlines()[1] == "% Images: resize shorter, crop centre, 224 pixels, centre view."
    parts = {part.splitlines()[0]: part for part in text.split("\n## ")[1:]}
    moved = made["shifts"][0]
    line = f"| progan | {moved['real']:+.3f} | {moved['fake']:+.3f} |"
    assert line in parts["Mean score of each class, re-encoded alike minus as stored"]
    for way in ("as stored", "re-encoded alike"):
        ranks = parts[f"Average rank by AUROC, {way}, and p of each pair (Nemenyi)"]
        assert "Over 2 domains. Friedman: statistic 12.30, p 0.015. Critical difference of ranks" in ranks
        assert ranks.count(" 0.050 |") == 6
    gaps = parts["Gaps between groups of people"].splitlines()
    assert gaps[2] == "| method | domain | groups by | images | F\\_FPR | F\\_EO | gap AUROC |"
    for way in ("as stored | 0.100 | 0.200", "re-encoded alike | 0.100 | 1.200"):
        assert sum(f"| progan | gender | {way} | n/a |" in line for line in gaps) == len(look.methods)
    made["methods"][0]["transform"] = {"resize": "none"}
    assert "Methods resize and crop images differently: see Methods" in tables.markdown(Lookup(made))
    for one in made["methods"][1:]:
        one |= {"transform": {}, "size": None}
    assert "Images: resize none, 224 pixels, centre view; not known of vit\\_lora, linear\\_probe." in tables.markdown(
        Lookup(made)
    )


def test_a_rate_that_reals_cannot_show_is_marked() -> None:
    made = content()
    for one in made["cells"]:
        if (one["domain"], one["metric"]) == ("stylegan", "tpr_at_1fpr"):
            one["note"] = "60 reals cannot show a rate of 1 %"
    text = tables.markdown(Lookup(made)).split("## TPR@1%")[1].split("\n## ")[0]
    assert text.count("†") == 6 + 1
    assert text.rstrip().endswith("\n\n95 % intervals are in cells.csv. † stylegan: 60 reals cannot show a rate of 1 %")
    assert tables.latex(Lookup(made)).count(r"\dag{} stylegan: 60 reals cannot") == 1
    made["first"] = ["auroc", "tpr_at_1fpr"]  # a mean over such a domain is marked too
    made["summaries"] += [one | {"metric": "tpr_at_1fpr"} for one in made["summaries"]]
    look = Lookup(made)
    text = tables.markdown(look).split("## TPR@1%: summary")[1].split("\n## ")[0]
    row = look.summary_row("vit_scl", "stored", "tpr_at_1fpr")
    assert f"| vit\\_scl | as stored | {row['within']:.3f} | {row['cross']:.3f}† |" in text
    assert text.count("† |") == 6
    assert text.rstrip().endswith("\n\n† stylegan: 60 reals cannot show a rate of 1 %")
    assert sections.summary(look, "tpr_at_1fpr").count("†</small>") == 6


def test_each_metric_that_is_asked_for_has_a_summary() -> None:
    made = content()
    made["first"] = ["auroc", "ap", "fpr"]
    made["summaries"] += [one | {"metric": "ap", "worst": "ldm"} for one in made["summaries"]]
    titles = [one.title for one in tables.tables(Lookup(made))]
    assert titles[:6] == ["AUROC: summary", "AUROC", "AP: summary", "AP", "FPR", "EER"]
    assert len(titles) == len(set(titles))


def test_statistics_hold_what_is_of_more_than_one_cell(folder: Path) -> None:
    made = content()
    with (folder / "statistics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    count = {part: sum(row["part"] == part for row in rows) for part in dict.fromkeys(row["part"] for row in rows)}
    assert count == {"summary": 6 * 5, "shift": 9 * 2, "difference": 2 * 3 * 4, "rank": 2 * (2 + 3 + 6)} | {
        "calibration": 2 * 3 * 4,
        "fairness": 3 * 3 * 2,
    }
    minimum = next(row for row in rows if row["what"] == "minimum")
    assert (minimum["domain"], float(minimum["value"])) == tuple(made["summaries"][0][k] for k in ("worst", "minimum"))
    friedman = next(row for row in rows if row["what"] == "Friedman")
    assert (friedman["value"], friedman["p"]) == ("12.3", "0.015")


def test_every_table_of_the_page_is_in_the_files_as_stored_and_re_encoded(folder: Path) -> None:
    made = content()
    text = (folder / "tables.md").read_text()
    parts = {part.splitlines()[0]: part.splitlines()[4:] for part in text.split("\n## ")[1:]}
    twice = ["as stored", "re-encoded alike"]
    for title, rows, at in (
        ("AUROC a - b, mean over the cross domains", 3, 2),
        ("Share called fake at the validation threshold, before and after", 3, 3),
        ("Calibration", 3, 1),
    ):
        ways = [line.split(" | ")[at] for line in parts[title] if line.startswith("|")]
        assert ways == twice * rows, title
    one = made["differences"][0]
    numbers = " | ".join(f"{one[name]:+.3f}" for name in ("value", "low", "high"))
    assert parts["AUROC a - b, mean over the cross domains"][0].startswith(
        f"| vit\\_scl | vit\\_lora | as stored | {numbers}"
    )
    assert len(parts["AUROC by generator"]) == 3  # one for each, in two lines only where both are there
    curves = parts["Area under each curve of AUROC over strength"]
    assert curves[0] == "| vit\\_scl | 0.900 | 0.900 | 0.900 |"
    assert parts["Verdicts that change under degradations"][0] == "| jpeg\\_95 | 4.0 % | 4.0 % | 4.0 % |"
    assert parts["AUROC under degradations"][1] == "| jpeg\\_75 | 0.840 | 0.820 | 0.800 |"
    wanted, unresolved = parts["Thresholds for a wanted false positive rate"][:2]
    assert wanted == "| vit\\_scl | 5 % | 60 | 0.900 | 0.000 | 0.125 | 0.045 | 0.150 |"
    assert unresolved == "| vit\\_scl | 0.1 % | 60 | not resolved |  |  |  |  |"


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
