"""``dfl report``: a file of predictions that somebody wrote by hand gives the numbers of scikit-learn."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score, roc_curve

from dfl.__main__ import main
from dfl.benchmark import store

N = 100
DOCS = Path(__file__).parents[2] / "docs" / "benchmark.md"


def rows(seed: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels, the same for every seed, and scores of two decimals, which tie."""
    label = np.arange(N) % 2
    score = np.random.default_rng(seed).normal(0.35 + shift * label, 0.2).clip(0, 1).round(2)
    return label, score


def written(
    folder: Path, name: str, seed: int, shift: float, header: str = "path,label,score,domain,threshold"
) -> Path:
    label, score = rows(seed, shift)
    lines = [f"{i}.png,{y},{s},{'a' if i < 60 else 'b'},0.5" for i, (y, s) in enumerate(zip(label, score, strict=True))]
    (folder / name).write_text("\n".join([header, *lines]) + "\n")
    return folder / name


def test_a_hand_written_file_gives_what_scikit_learn_gives(tmp_path: Path) -> None:
    file = written(tmp_path, "mine.csv", 0, 0.3)
    content = main(["report", str(file), f"--output={tmp_path / 'out'}", "--within=[a]", "--resamples=200"])
    cells = {(one["domain"], one["metric"]): one for one in content["cells"]}
    label, score = rows(0, 0.3)
    for domain, part in (("a", np.s_[:60]), ("b", np.s_[60:])):
        y, s = label[part], score[part]
        fpr, tpr, _ = roc_curve(y, s)
        wanted = {
            "auroc": roc_auc_score(y, s),
            "ap": average_precision_score(y, s),
            "bacc_val": balanced_accuracy_score(y, s >= 0.5),
            "acc_real": float((s[y == 0] < 0.5).mean()),
            "acc_fake": float((s[y == 1] >= 0.5).mean()),
            "tpr_at_1fpr": tpr[fpr <= 0.01].max(),
        }
        for metric, value in wanted.items():
            assert cells[domain, metric]["value"] == pytest.approx(value, abs=1e-12), (domain, metric)
        assert cells[domain, "auroc"]["low"] < wanted["auroc"] < cells[domain, "auroc"]["high"]
        assert "cannot show a rate of 1 %" in cells[domain, "tpr_at_1fpr"]["note"]  # of 30 and 20 reals
    (row,) = (one for one in content["summaries"] if one["metric"] == "auroc")
    assert (row["within"], row["cross"]) == (cells["a", "auroc"]["value"], cells["b", "auroc"]["value"])
    assert row["gap"] == pytest.approx(row["within"] - row["cross"])
    stored = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert stored["cells"][0]["value"] == content["cells"][0]["value"]
    table = DOCS.read_text().split("| `benchmark.json` | what |")[1].partition("\n\n")[0]
    assert sorted(stored) == sorted(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.M))))
    assert (tmp_path / "out" / "report.html").stat().st_size < 5_000_000


def test_detectors_are_compared_on_the_same_images(tmp_path: Path) -> None:
    good, bad = written(tmp_path, "good.csv", 1, 0.5), written(tmp_path, "bad.csv", 2, 0.02)
    content = main(["report", str(good), str(bad), f"--output={tmp_path / 'out'}", "--resamples=200"])
    by_domain = {one["domain"]: one for one in content["differences"]}
    assert by_domain.keys() == {"a", "b", ""}
    for one in by_domain.values():
        assert (one["a"], one["b"]) == ("good", "bad")
        assert 0 < one["low"] < one["value"] < one["high"]
        assert one["p"] <= one["p_holm"] < 0.05
    same = main(["report", str(good), str(written(tmp_path, "copy.csv", 1, 0.5)), f"--output={tmp_path / 'same'}"])
    assert all((one["value"], one["p"]) == (0, 1) for one in same["differences"])


def test_a_row_order_of_its_own_changes_nothing(tmp_path: Path) -> None:
    file = written(tmp_path, "mine.csv", 3, 0.3)
    head, *lines = file.read_text().splitlines()
    (tmp_path / "turned.csv").write_text("\n".join([head, *lines[::-1]]))
    found = []
    for name in ("mine", "turned"):
        content = main(["report", str(tmp_path / f"{name}.csv"), f"--output={tmp_path / name}", "--resamples=200"])
        values = {(one["domain"], one["metric"]): one["value"] for one in content["cells"]}
        found.append({key: value for key, value in sorted(values.items()) if not math.isnan(value)})
    assert found[0] == found[1]


def test_a_folder_is_shown_as_its_benchmark_was(tmp_path: Path) -> None:
    label, score = rows(0, 0.3)
    columns = {"path": [f"{i}.png" for i in range(N)], "label": label, "score": score, "logit": score}
    names = {"generator": ["biggan" if y else "" for y in label]}
    names |= {name: [""] * N for name in ("video", "group", "source")}
    facts = {"method": "vit", "seed": 0, "domain": "a", "variant": "stored", "role": "cross", "threshold": 0.5}
    store.write(tmp_path / "predictions" / "a.parquet", pa.table({**columns, **names}), facts)
    spec = {"years": {"biggan": 2018}, "pictures": False, "means": {"one": ["a"]}}
    published = [{"method": "A", "domain": "a", "metric": "ap", "value": 0.9, "source": "a paper", "protocol": ""}]
    kept = {"spec": spec, "first": ["ap"], "methods": [{"name": "vit", "data_until": 2021}], "reference": published}
    words = ["report", str(tmp_path / "predictions"), f"--output={tmp_path / 'out'}", "--resamples=100"]
    bare = main(words)
    assert (bare["spec_sha256"], bare["first"], [*bare["wrong"]]) == (None, ["auroc"], ["a"])
    (tmp_path / "benchmark.json").write_text(json.dumps(kept))
    content = main(words)
    assert content["spec_sha256"] == store.digest(spec)
    assert (content["first"], content["metrics"][0], content["reference"]) == (["ap"], "ap", published)
    assert "one" in {cell["domain"] for cell in content["cells"]}
    assert content["wrong"] == {}  # whose pictures may not be passed on
    (row,) = content["generators"]
    assert row["year"] == 2018
    assert "may have seen" in row["flag"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["nothing"], "no file nothing; give scores of single images, such as `dfl predict` writes$"),
        (["{folder}"], "no predictions .* in"),
        (["{folder}/mine.csv", "--resamples=10"], "at least 100"),
        (["{folder}/mine.csv", "{folder}/short.csv"], "it has no score of 99.png"),
        (
            ["{folder}/mine.csv", "{folder}/mine.csv"],
            "predictions of mine/0 on a .* are given twice, in .* and .*mine.csv:",
        ),
        (["{folder}/twice.csv"], "twice.csv: 98.png stands in 2 rows of b by twice"),
        (["{folder}/mine.csv", "--within=a"], r"within takes list, not 'a'; a list is written \[a\]"),
        (["{folder}/mine.csv", "--within=[aa]"], "--within names 'aa'; did you mean 'a'"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, "mine.csv", 0, 0.3)
    (tmp_path / "short.csv").write_text("\n".join(file.read_text().splitlines()[:-1]))
    (tmp_path / "twice.csv").write_text(file.read_text() + "98.png,0,0.3,b,0.5")
    given = [word.format(folder=tmp_path) for word in words]
    with pytest.raises(SystemExit):
        main(["report", *given, f"--output={tmp_path / 'out'}"])
    error = capsys.readouterr().err
    assert error.startswith("dfl: ")

    assert re.search(line, error), error
