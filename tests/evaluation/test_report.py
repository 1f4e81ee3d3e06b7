"""What a report says is what was measured, for every domain, and it hides nothing."""

import base64
import csv
import json
import math
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from brightness import ODD, Brightness, data, trainer
from conftest import save_image

import dfl
from dfl.data import DataModule
from dfl.data.sources.table import Table
from dfl.evaluation import results
from dfl.evaluation.report import Report
from dfl.metrics.names import METRICS

pytestmark = pytest.mark.filterwarnings("ignore:domain ")
LOOKS_AT_FIGURES = True


class Page(HTMLParser):
    """Table cells, pictures and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.images: dict[str, str] = {}
        self.links: list[str] = []
        self.text, self._in_cell = "", False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True
        if tag == "img":
            self.images[attributes["alt"] or ""] = attributes["src"] or ""
        self.links += [v or "" for k, v in attrs if k in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, text: str) -> None:
        self.text += text
        if self._in_cell:
            self.rows[-1][-1] += text.strip()


def run(faces: Path, folder: Path, threshold: float = 0.5) -> Brightness:
    detector = Brightness()
    detector.threshold.fill_(threshold)
    data_folder = folder / "data"
    data_folder.mkdir()
    trainer(folder, Report()).test(detector, data(faces, data_folder), verbose=False)
    return detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tested")


@pytest.fixture(scope="module")
def tested(faces: Path, folder: Path) -> Brightness:
    return run(faces, folder)


def test_files_hold_every_digit_of_every_domain(tested: Brightness, folder: Path) -> None:
    measured = tested.results["test"]
    written = json.loads((folder / "results.json").read_text())["results"]
    with (folder / "results.csv").open(newline="") as file:
        sheet = {row["domain"]: row for row in csv.DictReader(file)}
    assert list(written) == list(sheet) == list(measured) == ["own", "odd", "lone", "mean"]
    for domain, values in measured.items():
        for name, value in values.items():
            assert float(sheet[domain][name]) == pytest.approx(value, abs=0, nan_ok=True)
            assert written[domain][name] == (None if math.isnan(value) else value)
    counts = {d: (row["n_real"], row["n_fake"]) for d, row in sheet.items()}
    assert counts == {"own": ("6", "6"), "odd": ("2", "3"), "lone": ("1", "0"), "mean": ("", "")}
    assert sheet["lone"]["auroc"] == "nan"
    assert sheet["own"]["n"] == ""
    assert [p.name for p in folder.iterdir() if p.name.startswith(".")] == []


def test_page_shows_the_table_and_needs_no_other_file(tested: Brightness, folder: Path) -> None:
    page = Page((folder / "report.html").read_text())
    head, *rows = page.rows
    names = list(tested.results["test"]["own"])
    assert head == ["domain", "real", "fake", *(METRICS[name].label for name in names)]
    for row, (domain, values) in zip(rows, tested.results["test"].items(), strict=True):
        cells = ["n/a" if math.isnan(values[n]) else f"{values[n]:.4f}" for n in names]
        assert [cell.split("of ")[0] for cell in (row[0], *row[3:])] == [domain, *cells]
    assert rows[-1][0] == "meanof 2"  # the domain of one class has no AUROC
    assert rows[-1][head.index("log loss")].endswith("of 3")
    assert all(link.startswith("data:image/") for link in page.links)
    for link in page.links:
        assert base64.b64decode(link.split(",")[1])[:3] in (b"\x89PN", b"\xff\xd8\xff")
    assert "ROC curves" in page.images


def test_page_begins_with_its_headline_and_folds_what_explains_it(tested: Brightness, folder: Path) -> None:
    page, area = (folder / "report.html").read_text(), {d: v["auroc"] for d, v in tested.results["test"].items()}
    marks = ["<div class=cards>", 'alt="AUROC by domain"', 'alt="ROC curves"', 'alt="Histogram of the scores: own"']
    places = [page.index(mark) for mark in (*marks, "<h2>Results", "<details class=part>", "Most wrong images")]
    assert places == sorted(places)
    best, worst = ("own", "odd") if area["own"] > area["odd"] else ("odd", "own")
    cards = re.findall(r"<div><b>([^<]*)</b><span>([^<]*)</span>", page)
    assert cards[:3] == [
        (f"{area[best]:.4f}", f"best AUROC: {best}"),
        (f"{area[worst]:.4f}", f"worst AUROC: {worst}"),
        (f"{area['mean']:.4f}", "mean AUROC of 2 domains"),
    ]
    assert cards[3] == ("18", "images in 3 test domains: 9 real, 9 fake")


def test_page_shows_the_worst_image_first_and_odd_names_as_they_are(tested: Brightness, folder: Path) -> None:
    text = (folder / "report.html").read_text()
    assert ODD not in text  # escaped, or it would be read as markup
    section = text.split("odd: fake, with the lowest scores")[1].split("<h3>")[0]
    own = tested.metrics["test"].rows("odd")
    scores = sorted(own["score"][own["label"] == 1].tolist())
    assert re.findall(r"<b>([\d.]+)</b>", section) == [f"{score:.4f}" for score in scores]
    assert Page(section).text.startswith(f"{scores[0]:.4f}{ODD}")


def test_unreadable_and_repeated_images_are_listed(tested: Brightness, folder: Path) -> None:
    note = json.loads((folder / "results.json").read_text())["images"]["odd"]
    assert (note["listed"], note["scored"]) == (6, 5)
    assert [Path(path).name for path in note["unreadable"]] == ["broken.png"]
    assert [Path(path).name for path in note["duplicates"]] == ["real.png"]
    text = Page((folder / "report.html").read_text()).text
    assert "5 of 6 images were scored" in text
    assert "odd: 1 images could not be read" in text


def test_unknown_threshold_is_said_and_null(faces: Path, tmp_path: Path) -> None:
    run(faces, tmp_path, math.nan)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["run"]["threshold"] is None
    assert written["results"]["own"]["bacc_val"] is None
    assert "No threshold was chosen" in (tmp_path / "report.html").read_text()


def test_trial_run_prints_and_writes_nothing(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    source: DataModule = data(faces, tmp_path / "data")
    trainer(tmp_path, Report(), fast_dev_run=True).test(Brightness(), source, verbose=False)
    assert "AUROC" in capsys.readouterr().out
    assert list(tmp_path.rglob("results.*")) == []


def test_run_info_tells_code_data_and_settings(tested: Brightness, folder: Path) -> None:
    written = json.loads((folder / "results.json").read_text())["run"]
    sets = tested.trainer.datamodule.sets["test"]
    assert written["data"] == {f"test/{domain}": one.sha256 for domain, one in sets.items()}
    assert written["versions"]["dfl"] == dfl.__version__
    assert written["threshold"] == 0.5


def test_git_state_is_of_the_package_only(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    package, guest = tmp_path / "package", tmp_path / "venv"
    for folder in (package, guest):
        folder.mkdir()
        (folder / "__init__.py").touch()
    assert results.git_state(package) is None
    git("init")
    git("add", "package")
    git("commit", "-m", "a")
    (tmp_path / "other.txt").touch()
    state = results.git_state(package)
    assert state is not None
    assert (len(state["commit"]), state["dirty"]) == (40, False)
    (package / "new.py").touch()
    assert results.git_state(package) == {**state, "dirty": True}
    assert results.git_state(guest) is None


def test_json_has_no_number_that_is_none() -> None:
    given = {"a": math.nan, "b": [math.inf, 1, True, None], "c": SimpleNamespace}
    assert json.loads(results.to_json(given)) == {"a": None, "b": ["inf", 1, True, None], "c": str(SimpleNamespace)}


def test_groups_are_compared_without_a_word_in_the_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    groups = ("male,asian", "male,white", "nonmale,asian", "nonmale,white")
    with (tmp_path / "people.csv").open("w", newline="") as out:
        lines = [("path", "label", "group")]
        for i in range(32):
            # the fakes of the last group are as bright as its real images, so it alone has a low TPR
            dark = bool(i % 2) and i // 2 % 4 != 3
            save_image(tmp_path / f"{i}.png", i, dark=dark)
            lines.append((f"{i}.png", str(i % 2), groups[i // 2 % 4] if i else ""))
        csv.writer(out).writerows(lines)
    table = Table(str(tmp_path / "people.csv"))
    detector = Brightness()
    detector.threshold.fill_(0.45)
    words: dict[str, Any] = {"batch_size": 8, "num_workers": 0, "allow_overlap": True}
    run = trainer(tmp_path, Report(pictures=0))
    run.test(detector, DataModule(table, {"own": table}, {"own": table}, **words), verbose=False)
    own = detector.results["test"]["own"]
    by_attribute = {name.split("/")[1] for name in own if name.startswith("fairness/")}
    assert by_attribute == {"gender", "race", "intersection"}
    rows = detector.metrics["test"].rows("own")
    verdict, fake = rows["score"] >= 0.5, rows["label"] == 1
    tpr = [float(verdict[fake & (rows["group"] == g)].float().mean()) for g in range(4)]
    assert own["fairness/intersection/gap_tpr"] == pytest.approx(max(tpr) - min(tpr))
    assert own["fairness/intersection/gap_tpr"] > 0.5
    assert run.callback_metrics["test/own/fairness/gender/F_FPR"] == pytest.approx(own["fairness/gender/F_FPR"])
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["results"]["own"]["fairness/race/F_MEO_val"] == own["fairness/race/F_MEO_val"]
    rates = written["groups"]["own"]["intersection"]["rates"]
    assert [rates[g]["tpr"] for g in groups] == pytest.approx(tpr)
    assert rates["all together"]["real"] == 15  # one image has no group
    with (tmp_path / "results.csv").open(newline="") as file:
        assert float(next(csv.DictReader(file))["fairness/gender/F_DP"]) == own["fairness/gender/F_DP"]
    page = Page((tmp_path / "report.html").read_text())
    assert [row[:3] for row in page.rows if row[0] == "nonmale,white"] == [["nonmale,white", "4", "4"]]
    assert "groups by" in page.rows[3]
    out = capsys.readouterr().out
    assert "F_FPR" not in out  # the terminal shows the domains alone, and where the rest is
    assert f"report: {tmp_path / 'report.html'} (curves, rates by groups of people" in out
