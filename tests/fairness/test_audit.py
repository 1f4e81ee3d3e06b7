"""An audit finds what is planted, keeps quiet about noise, and says what it cannot see."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy import stats

from dfl.__main__ import main
from dfl.cli import app
from dfl.data import csv_files
from dfl.errors import UserError
from dfl.evaluation.scores import Scores, read
from dfl.fairness import audit as verb
from dfl.fairness import resample
from dfl.fairness.examine import examine
from dfl.metrics import GroupFairness, attributes
from dfl.metrics import auroc as exact_auroc

GROUPS = ("male,asian", "male,white", "nonmale,asian", "nonmale,white")


def people(n: int = 1200, shift: float = 0.0, seed: int = 0, domain: str = "own") -> Scores:
    """Scores of AUROC 0.9; the real images of the last group look faker by ``shift``."""
    rng = np.random.default_rng(seed)
    label, group = np.arange(n) % 2, np.arange(n) // 2 % 4
    z = rng.normal(size=n) + 2 * label - 1 + shift * ((group == 3) & (label == 0))
    names = np.array([GROUPS[g] for g in group], object)
    return Scores(1 / (1 + np.exp(-z)), label, names, np.full(n, "", object), np.full(n, domain, object))


def texts(found: dict[str, Any], severity: str = "") -> str:
    return "\n".join(f["text"] for f in found["findings"] if severity in ("", f["severity"]))


def test_a_planted_difference_is_found_and_only_that() -> None:
    found = examine(people(shift=1.0), resamples=200)
    planted = [line for line in texts(found, "warning").splitlines() if "more than chance explains" in line]
    assert any(
        "own, intersection" in line and "real images of 'nonmale,white' are called fake" in line for line in planted
    )
    assert not any("'male,asian' are called" in line or "fake images" in line for line in planted)
    assert "nothing of the cause" in planted[0]
    by = found["domains"]["own"]["attributes"]["intersection"]
    gap = by["gaps"]["gap_fpr"]
    assert gap["low"] < gap["value"] < gap["high"]
    assert gap["value"] > 3 * gap["by_chance"] > 0
    assert gap["p"] < 0.001
    assert by["gaps"]["gap_tpr"]["p"] > 0.01


def test_noise_is_no_finding_and_no_proof() -> None:
    alarms = 0
    for seed in range(5):
        found = examine(people(400, seed=seed), resamples=100)
        alarms += "more than chance explains (" in texts(found, "warning")
    assert alarms <= 1  # 5 % each; two of five have a chance of 2 %, and seeds are fixed
    assert "not proof of fairness" in texts(examine(people(400, seed=0), resamples=100), "note")
    assert "could well stay unseen" in texts(found, "note")


def test_values_are_those_of_the_metric() -> None:
    given = people(shift=0.5)
    found = examine(given, threshold=0.4, resamples=100)
    number = {name: i for i, name in enumerate(GROUPS)}
    for attribute, groups in attributes(number).items():
        ids = torch.tensor([number[g] for g in given.group])
        metric = GroupFairness(groups, torch.from_numpy(given.score), torch.from_numpy(given.label), ids, 0.4)
        measured, by = metric.compute(), found["domains"]["own"]["attributes"][attribute]
        for name, gap in by["gaps"].items():
            assert gap["value"] == pytest.approx(float(measured[name if name == "gap_auroc" else f"{name}_val"]))
        assert by["curves"]["gap_fpr"][50] == pytest.approx(float(measured["gap_fpr"]))
        for group, row in metric.rates().items():
            assert by["groups"][group]["fpr"]["value"] == row["fpr_val"]
            assert by["groups"][group]["tpr"]["low"] <= row["tpr_val"] <= by["groups"][group]["tpr"]["high"]


def test_the_same_seed_gives_the_same_audit() -> None:
    one, two, other = (examine(people(200), resamples=100, seed=s) for s in (1, 1, 2))
    assert json.dumps(one) == json.dumps(two)
    assert json.dumps(one) != json.dumps(other)


def test_intervals_are_as_wide_as_the_binomial_says() -> None:
    given = people(2000)
    own = examine(given, resamples=2000)["domains"]["own"]["attributes"]["gender"]["groups"]["male"]["fpr"]
    error = math.sqrt(own["value"] * (1 - own["value"]) / 500)
    assert own["high"] - own["low"] == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_p_is_that_of_the_exact_test() -> None:
    score = np.r_[np.full(12, 0.9), np.full(28, 0.1), np.full(5, 0.9), np.full(35, 0.1)]
    group = np.array(["a"] * 40 + ["b"] * 40, object)
    score, group = np.r_[score, 0.9, 0.9], np.r_[group, np.array(["a", "b"], object)]
    label = np.r_[np.zeros(80, np.int64), 1, 1]
    blank = np.full(82, "", object)
    found = examine(Scores(score, label, group, blank, np.full(82, "x", object)), resamples=100)
    test = next(t for t in found["domains"]["x"]["attributes"]["group"]["tests"] if t["rate"] == "fpr")
    assert test["p"] == pytest.approx(stats.fisher_exact([[12, 28], [5, 35]]).pvalue, abs=0.01)


def test_frames_of_a_video_are_one_unit() -> None:
    frames, rng = 10, np.random.default_rng(0)
    label, group = np.arange(80) % 2, np.arange(80) // 2 % 2
    score = np.clip(rng.normal(0.3 + 0.4 * label, 0.3), 0, 1)
    many = {"score": score, "label": label, "group": np.array(["a", "b"], object)[group]}
    rows = {name: np.repeat(column, frames) for name, column in many.items()}
    domain, blank = np.full(800, "x", object), np.full(800, "", object)
    video = np.repeat(np.array([f"v{i}" for i in range(80)], object), frames)
    tied = examine(Scores(**rows, video=video, domain=domain), resamples=500)
    loose = examine(Scores(**rows, video=blank, domain=domain), resamples=500)
    single = examine(Scores(**many, video=blank[:80], domain=domain[:80]), resamples=500)

    def width(found: dict[str, Any]) -> float:
        own = found["domains"]["x"]["attributes"]["group"]["groups"]["a"]["fpr"]
        return float(own["high"] - own["low"])

    assert width(tied) == pytest.approx(width(single), rel=0.15)  # copies add nothing
    assert width(loose) < 0.5 * width(tied)
    p = [f["domains"]["x"]["attributes"]["group"]["tests"][0]["p"] for f in (tied, loose, single)]
    assert p[0] == pytest.approx(p[2], abs=0.03)
    assert p[1] < p[0]
    assert "frames of a video count as one unit" in texts(tied)


def test_weights_count_like_copies() -> None:
    rng = np.random.default_rng(0)
    score, label = rng.integers(0, 9, 60) / 9, rng.integers(0, 2, 60)
    weight = rng.integers(0, 4, (3, 60)).astype(float)
    for many, area in zip(weight.astype(int), resample.auroc(score, label, weight), strict=True):
        copies = (torch.from_numpy(np.repeat(a, many)) for a in (score, label))
        assert area == pytest.approx(float(exact_auroc(*copies)))


def test_left_out_groups_and_useless_detectors_are_named() -> None:
    given = people(400)
    given.label[given.group == GROUPS[0]] = 0
    found = examine(given, resamples=100)
    assert "own, intersection: 'male,asian' has no fake images and is left out" in texts(found, "warning")
    assert "F_DP and F_OAE would differ" in texts(found)
    assert "too few images" not in texts(found)
    few = examine(people(80), resamples=100)
    assert "own, intersection: too few images for firm rates of 'male,asian' (10 real, 10 fake)" in texts(few)
    assert "all together" not in texts(few)
    turned = people(400)
    turned.score = 1 - turned.score
    assert "upside down; look for inverted labels" in texts(examine(turned, resamples=100), "error")
    assert "every image is called real" in texts(examine(people(400), threshold=1.0, resamples=100), "warning")


def write(file: Path, rows: list[dict[str, Any]]) -> Path:
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with file.open("w", newline="") as out:
            table = csv.DictWriter(out, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return file


def test_files_of_other_detectors_are_read_by_their_names(tmp_path: Path) -> None:
    rows = [
        {"Image_Path": "a", "logit": 0, "Target": "fake", "gender": "male", "race": "asian"},
        {"Image_Path": "b", "logit": -2, "Target": "real", "gender": "nonmale", "race": "white"},
        {"Image_Path": "c", "logit": 3, "Target": "", "gender": "male", "race": "white"},
        {"Image_Path": "d", "logit": 3, "Target": "real", "gender": "", "race": "white"},
        {"Image_Path": "b", "logit": "", "Target": "real", "gender": "male", "race": "white"},
    ]
    found = read(write(tmp_path / "s.csv", rows), attributes="gender,race")
    assert found.score == pytest.approx([0.5, 1 / (1 + math.exp(2))])
    assert found.label.tolist() == [1, 0]
    assert found.group.tolist() == ["gender=male,race=asian", "gender=nonmale,race=white"]
    assert found.left_out == {"no label": 1, "no score": 1, "no group": 1}
    ours = [{"path": "a", "score": 0.9, "threshold": 0.3, "domain": "x", "label": 1, "group": "g"}, {"path": "b"}]
    read_back = read(write(tmp_path / "s.jsonl", ours))
    assert (read_back.threshold, read_back.domain.tolist(), read_back.label.tolist()) == (0.3, ["x"], [1])
    turned = [{"score": 0.9, "label": "0", "group": "g"}, {"score": 0.1, "label": "1", "group": "g"}]
    assert read(write(tmp_path / "t.csv", turned), label_of_fake="0").label.tolist() == [1, 0]


GOOD = {"score": 0.9, "label": 1, "group": "a"}


@pytest.mark.parametrize(
    ("row", "words", "said"),
    [
        ({"score": 0.9, "label": 1}, [], "no column for the group .*--attributes gender,race"),
        ({"label": 1, "group": "a"}, [], "no column for the score"),
        ({**GOOD, "score": 3.5}, [], r"probabilities of fake in \[0, 1\], found 3.5; call the column logit"),
        ({**GOOD, "score": "high"}, [], "the score is no number: 'high'"),
        ({**GOOD, "label": "cat"}, [], "cannot tell real from fake by the labels cat; set label_of_fake"),
        ({**GOOD, "group": ""}, [], "nothing to compare"),
        (GOOD, ["--attributes=age"], "has no column 'age'"),
        (GOOD, ["--resamples=5"], "at least 100"),
        (GOOD, ["--threshold=7"], r"must be a score in \[0, 1\]"),
        (GOOD, ["--treshold=0.5"], "no option --treshold of `dfl audit`; did you mean --threshold?"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, row: dict[str, Any], words: list[str], said: str) -> None:
    file = write(tmp_path / "s.csv", [row])
    with pytest.raises(UserError, match=said):
        verb.main([str(file), *words])
    assert not Path("audit").exists()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("s.csv", "", "is empty: a table begins with a line of names"),
        ("s.csv", "\n\n", "is empty: a table begins"),
        ("s.csv", "path,score,label,group\n", "is empty: there is no score in it"),
        ("s.csv", "path,score,score,label,group\na,.1,.2,1,g\n", "has 2 columns named 'score'"),
        (
            "s.csv",
            "path,score,label,group\nx/real/a,.1,1,g\nx/fake/b,.9,0,g\n",
            "its folder says 'real'.*--label_of_fake 0",
        ),
        (
            "s.csv",
            "score,label,label_str,group\n.1,1,real,g\n.9,0,fake,g\n",
            "makes row 1 fake, and column 'label_str'",
        ),
        ("s.csv", "Score,SCORE,label,group\n.1,.2,1,g\n", "has the columns Score, SCORE: rename or remove all but one"),
        ("s.csv", "score,label,Label,group\n.1,1,0,g\n.9,0,1,g\n", "row 1 fake, and column 'Label' says '0'"),
        ("s.csv", "score,label,generator,group\n.1,1,,g\n.9,0,sdxl,g\n", "column 'generator' says 'nothing'"),
        ("s.jsonl", "", "is empty: there is no score in it"),
        ("s.jsonl", " \n{}\n", "is empty: there is no score in it"),
        ("s.jsonl", "[]\n", "each line must hold an object"),
        ("s.jsonl", '"word"\n', "each line must hold an object"),
        ("s.jsonl", "[" * 100_000, "cannot read"),
        ("s.parquet", "", "cannot read"),
    ],
)
def test_empty_and_odd_files_are_one_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read(tmp_path / name)


def test_scores_without_rows_or_with_bytes(tmp_path: Path) -> None:
    file = tmp_path / "s.parquet"
    columns = {"score": [0.5], "label": [1], "group": [b"\xff\xd8"]}
    pq.write_table(pa.table(columns), file)
    with pytest.raises(UserError, match=r"column 'group' holds binary, where text or numbers belong$"):
        read(file)
    pq.write_table(pa.table(columns).slice(0, 0), file)
    with pytest.raises(UserError, match="is empty: there is no score in it"):
        read(file)


def test_what_a_detector_answered_is_no_second_label(tmp_path: Path) -> None:
    content = "path,score,verdict,class,label,group\na,.1,real,real,1,g\nb,.9,fake,synthetic,0,g\n"
    (tmp_path / "s.csv").write_text(content)
    assert read(tmp_path / "s.csv").label.tolist() == [1, 0]


def test_names_that_a_spreadsheet_would_run_come_back(tmp_path: Path) -> None:
    names = ["=1+1", "-g", "@x", "'=y"]
    lines = [{"path": f"={i}", "score": 0.1, "label": i % 2, "group": name} for i, name in enumerate(names)]
    (tmp_path / "s.csv").write_text(csv_files.whole(["path", "score", "label", "group"], lines))
    assert read(tmp_path / "s.csv").group.tolist() == names


def saved(file: Path, given: Scores) -> Path:
    columns = zip(given.score, given.label, given.group, strict=True)
    return write(file, [{"path": i, "score": s, "label": y, "group": g} for i, (s, y, g) in enumerate(columns)])


def test_the_verb_writes_a_page_and_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = people(400, shift=1.0)
    given.group[given.group == GROUPS[1]] = "<b>,white"
    main(["audit", str(saved(tmp_path / "s.csv", given)), "-o", "out", "--resamples", "100"])
    content = json.loads(Path("out/audit.json").read_text())
    text = Path("out/audit.html").read_text()
    assert set(content["domains"]["all images"]["attributes"]) == {"attribute1", "race", "intersection"}
    assert content["threshold"] == 0.5
    assert content["threshold_from"] == "by default"
    assert "http" not in text.replace("http-equiv", "")
    assert "<b>,white" not in text
    assert text.count("<img") == 4 * 3
    assert "nan" not in text
    out = capsys.readouterr().out
    assert "page: out/audit.html" in out
    assert "nonmale,white" in out


def test_a_checkpoint_is_scored_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def predict(words: list[str]) -> None:
        asked.extend(words)
        file = Path(words[-1].removeprefix("--output="))
        file.parent.mkdir(parents=True)
        saved(file, people(200))

    monkeypatch.setattr(app, "main", predict)
    words = ["--ckpt_path", "best", "--data=toy.yaml", "--seed", "3", "--output", "o", "--resamples=100"]
    found = verb.main([*words, "--threshold=0.4"])
    assert asked == ["predict", "--ckpt_path=best", "--data=toy.yaml", "--output=o/predictions.csv"]
    assert (found["threshold"], found["seed"]) == (0.4, 3)
    with pytest.raises(UserError, match="come from --data"):
        verb.main(["--ckpt_path=best", "photos"])
