"""The domain matrix: what is trained on what, what is repeated and what is not, and whose numbers it shows."""

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from dfl.__main__ import main
from dfl.benchmark.matrix import Row, lines, summary
from dfl.benchmark.sweep_config import merged, only
from dfl.cli import app
from dfl.data import Table
from dfl.data.sources import Only
from dfl.errors import UserError

GENERATORS = ("v1.4", "lama", "ldm")
WORDS = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
CONFIG = """
model: {class_path: PatchForensics, init_args: {cut: relu1, supervision: mask, input_size: 16}}
data:
  class_path: DataModule
  init_args:
    train: {class_path: Folder, init_args: {root: nowhere}}
    transform: {resize: none}
    batch_size: 4
    num_workers: 0
trainer: {max_epochs: 1, log_every_n_steps: 1}
checkpoint: {monitor: val/mean/mask_iou}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise in which each generator paints a square of its own brightness, with masks."""
    root = tmp_path_factory.mktemp("painted")
    rng, rows = np.random.default_rng(0), []
    for split, number in (("train", 4), ("val", 2), ("test", 3)):
        for at, generator in enumerate(("", *GENERATORS)):
            for i in range(number):
                pixels, mask = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8), np.zeros((16, 16), np.uint8)
                name = f"{split}_{at}_{i}.png"
                if generator:
                    mask[4:12, 4 : 8 + at] = 255
                    pixels[mask > 0] = 60 * at
                    Image.fromarray(mask).save(root / f"mask_{name}")
                Image.fromarray(pixels).save(root / name)
                rows.append([name, int(at > 0), split, f"mask_{name}" if generator else "", generator])
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split", "mask", "generator"], *rows])
    return root / "table.csv"


@pytest.fixture
def sweep(table: Path, tmp_path: Path) -> Callable[..., str]:
    """Write a sweep config; what is given replaces its keys, None leaves one out."""
    (tmp_path / "patches.yaml").write_text(CONFIG)

    def write(**given: Any) -> str:
        source = {"class_path": "Table", "init_args": {"file": str(table)}}
        told = {"config": "patches.yaml", "source": source, "metric": "mask_iou", **given}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({k: v for k, v in told.items() if v is not None}))
        return "--config=sweep.yaml"

    return write


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Verbs and names of runs, in order, of a command line that trains nothing and measures made-up numbers."""
    made: list[tuple[str, str]] = []

    def pretend(words: list[str]) -> Any:
        given = dict(word.removeprefix("--").split("=", 1) for word in words[1:] if "=" in word)
        folder = Path(given["root"], "checkpoints", given["name"])
        made.append((words[0], given["name"]))
        if words[0] == "fit":
            assert given["ckpt_path"] == "last"
            (folder / "last.ckpt").touch()
            return SimpleNamespace(trainer=SimpleNamespace(checkpoint_callback=SimpleNamespace(monitor="val/mean/ap")))
        assert given["ckpt_path"] == "last"
        tested = yaml.safe_load(Path(given["data"]).read_text())["init_args"]["test"]
        found = {d: {"ap": len(d) / 10, "auroc": math.nan, "ap_all_fake": 0.25} for d in tested}
        return SimpleNamespace(model=SimpleNamespace(results={"test": found | {"mean": {"ap": 1.0}}}))

    monkeypatch.setattr(app, "main", pretend)
    return made


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["matrix", *words])
    assert stop.value.code == 2
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl: "))


def data_of(run: str, split: str) -> Any:
    return yaml.safe_load(Path(f"lightning_logs/sweep/runs/{run}.yaml").read_text())["init_args"][split]


def test_a_row_is_what_fit_and_test_give(
    sweep: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, spared = app.main, {"mask_iou": 0.5}

    def main_of_one(words: list[str]) -> Any:  # the second row is spared the time
        if "--name=sweep-lama" in words:
            return real(words)
        return SimpleNamespace(
            trainer=SimpleNamespace(checkpoint_callback=SimpleNamespace(monitor="val/mean/mask_iou")),
            model=SimpleNamespace(results={"test": {"lama": spared, "ldm": spared}}),
        )

    monkeypatch.setattr(app, "main", main_of_one)
    found = main(["matrix", sweep(generators=["lama", "ldm"], reals=False, metric=None), *WORDS])
    assert list(found["matrix"]) == ["mask_iou"]  # what chose the best checkpoint
    own = json.loads(Path("lightning_logs/sweep-lama/version_1/results.json").read_text())
    assert [own["results"][c]["mask_iou"] for c in ("lama", "ldm")] == found["matrix"]["mask_iou"]["lama"][:2]
    assert own["results"]["ldm"]["n_real"] == own["results"]["ldm"]["n_fake"] == 3  # reals are tested on
    held = own["run"]["config"]["data"]["init_args"]
    assert held["train"]["init_args"]["generators"] == ["lama"]
    assert held["train"]["init_args"]["reals"] is False
    assert held["batch_size"] == 4  # the config's own
    share = [8 * (GENERATORS.index(c) + 5) / 256 for c in ("lama", "ldm")]  # the squares of the fixture
    assert found["matrix"]["mask_iou"]["all fake"][:2] == pytest.approx(share)
    assert "all fake" in capsys.readouterr().out


@pytest.mark.parametrize("measured", ["mask_iou", "auroc"])
def test_runs_chosen_by_the_loss_of_validation_are_shown_by_what_tests_measure(
    measured: str, sweep: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = SimpleNamespace(
        trainer=SimpleNamespace(checkpoint_callback=SimpleNamespace(monitor="val/mean/loss")),
        model=SimpleNamespace(results={"test": {"lama": {measured: 0.5}, "ldm": {measured: 0.5}}}),
    )
    monkeypatch.setattr(app, "main", lambda words: told)
    found = main(["matrix", sweep(generators=["lama", "ldm"], metric=None), *WORDS])
    assert list(found["matrix"]) == [measured]


def test_generators_of_one_source_and_all_but_one(
    sweep: Callable[..., str], calls: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["matrix", sweep(leave_one_out=True, reals=False, metric="ap")]
    found = main(words)
    columns = ["lama", "ldm", "v1_4"]  # dots separate names elsewhere
    assert found["tested_on"] == columns
    assert list(found["matrix"]["ap"]) == [*columns, *(f"all but {c}" for c in columns), "all fake"]
    assert found["trained_on"]["all but ldm"] == ["lama", "v1_4"]
    assert found["matrix"]["ap"]["all but lama"] == [0.4, 0.3, 0.4, pytest.approx(0.35), 0.4]
    runs = ["sweep-lama", "sweep-ldm", "sweep-v1_4", "sweep-without-lama", "sweep-without-ldm", "sweep-without-v1_4"]
    assert calls == [(verb, run) for run in runs for verb in ("fit", "test")]
    train, val = (data_of("sweep-without-lama", split) for split in ("train", "val"))
    assert train["init_args"]["generators"] == ["ldm", "v1.4"]  # one source, so that its real images are there once
    assert train["init_args"]["reals"] is False
    assert [val[c]["init_args"]["generators"] for c in ("ldm", "v1_4")] == [["ldm"], ["v1.4"]]
    # files
    content = json.loads(Path("lightning_logs/sweep/matrix.json").read_text())
    assert content["matrix"]["ap"] == {
        k: [None if v != v else v for v in one] for k, one in found["matrix"]["ap"].items()
    }
    with open("lightning_logs/sweep/matrix.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(rows[4][c]) for c in columns] == found["matrix"]["ap"]["all but ldm"][:3]
    html = Path("lightning_logs/sweep/matrix.html").read_text()
    assert html.count("<img") == 1
    assert html.count("src=") == html.count('src="data:image/png') == 1  # nothing is loaded
    drawn = ElementTree.parse("lightning_logs/sweep/matrix_ap.svg").getroot()  # whole on its own
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    assert sum(t.text == "all but ldm" for t in drawn.iter("{http://www.w3.org/2000/svg}text")) == 1
    # again: nothing is trained or tested, and another metric is there
    calls.clear()
    capsys.readouterr()
    again = main([*words, "--metric=auroc,ap", "-o", "elsewhere", "--trainer.devices=1"])
    assert not calls
    assert math.isnan(again["matrix"]["auroc"]["lama"][0])
    assert again["matrix"]["ap"] == {k: pytest.approx(v, nan_ok=True) for k, v in found["matrix"]["ap"].items()}
    assert "run 1 of 6: sweep-lama: complete" in capsys.readouterr().out
    assert Path("elsewhere/matrix.html").read_text().count("<img") == 2
    # one more domain to test on: tested anew, not trained
    source = yaml.safe_load(Path("sweep.yaml").read_text())["source"]
    more = main(["matrix", sweep(leave_one_out=True, reals=False, metric="ap", test={"whole": source})])
    assert {verb for verb, _ in calls} == {"test"}
    assert more["tested_on"] == [*columns, "whole"]


def test_what_was_cut_off_goes_on_and_what_is_complete_is_left(
    sweep: Callable[..., str],
    calls: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [sweep(generators=["lama", "ldm"], metric="ap"), "--trainer.max_epochs=2"]
    pretended = app.main

    def preempted(given: list[str]) -> Any:
        made = pretended(given)
        if given[0] == "fit" and "--name=sweep-ldm" in given:
            raise SystemExit(75)
        return made

    monkeypatch.setattr(app, "main", preempted)
    with pytest.raises(SystemExit) as stop:
        main(["matrix", *words])
    assert stop.value.code == 75
    assert not Path("lightning_logs/sweep/matrix.json").exists()
    monkeypatch.setattr(app, "main", pretended)
    calls.clear()
    main(["matrix", *words, "--data.num_workers=1"])  # of the machine, not of what is learned
    assert calls == [("fit", "sweep-ldm"), ("test", "sweep-ldm")]
    for other in (["--trainer.max_epochs=3"], ["--trainer.max_epochs=2", "--model.cut=relu2"]):
        assert "holds a run with other settings" in fails(capsys, words[0], *other)
    Path("checkpoints/sweep-lama/matrix.json").unlink()  # a run of the same name that no sweep trained
    assert "give the sweep another --name" in fails(capsys, *words)


def test_several_sources(table: Path, sweep: Callable[..., str], calls: list[tuple[str, str]]) -> None:
    whole = {"class_path": "Table", "init_args": {"file": str(table)}}
    one = {"class_path": "Only", "init_args": {"source": whole, "generators": ["lama"]}}
    given = {"first": one, "second": {"train": whole, "val": whole, "test": one}, "third": whole}
    found = main(["matrix", sweep(source=None, domains=given, metric=None, leave_one_out=True)])
    assert list(found["matrix"]) == ["ap"]
    assert data_of("sweep-second", "train") == whole
    assert data_of("sweep-second", "test")["second"] == one
    assert data_of("sweep-without-third", "train") == [one, whole]


def test_mistakes_are_named_before_anything_is_trained(
    sweep: Callable[..., str], calls: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has no fakes of 'lma' in split 'train'; did you mean 'lama'?" in fails(
        capsys, sweep(generators=["lma", "ldm"])
    )
    assert "a matrix needs two" in fails(capsys, sweep(generators=["lama"]))
    assert "leave_one_out needs three" in fails(capsys, sweep(generators=["lama", "ldm"], leave_one_out=True))
    assert "unknown key 'generator'; did you mean 'generators'?" in fails(capsys, sweep(generator=["lama"]))
    assert "needs either source" in fails(capsys, sweep(domains={}))
    assert "no config 'patchs.yaml'" in fails(capsys, sweep(config="patchs.yaml"))
    assert "source: no source 'Tabel'; did you mean 'Table'?" in fails(capsys, sweep(source={"class_path": "Tabel"}))
    assert "--data is not for a matrix" in fails(capsys, sweep(), "--data", "data/toy.yaml")
    assert not calls
    assert "no metric 'apu' was measured; did you mean 'ap'?" in fails(capsys, sweep(metric="apu"))
    assert len(calls) == 6


def test_means_leave_out_what_is_undefined() -> None:
    values = {"a": {"auroc": 0.9}, "b": {"auroc": math.nan}, "c": {"auroc": 0.5, "auroc_all_fake": 0.2}, "d": {}}
    row = Row("a", ("a",), values)
    assert summary(row, "auroc", ["a", "b", "c", "d"]) == (0.9, 0.5)
    found = lines("auroc", ["a", "c"], [row])
    assert found["a"] == [0.9, 0.5, 0.9, 0.5]
    assert found["all fake"][1] == 0.2
    assert "all fake" not in lines("auroc", ["a"], [Row("a", ("a",), {"a": {"auroc": 1.0}})])


def test_only_some_generators(table: Path) -> None:
    source = Table(str(table))
    some = Only(source, ["ldm", "lama"]).load("train")
    assert sorted(set(some["generator"].to_pylist())) == ["", "lama", "ldm"]
    assert len(some) == 12
    fakes = Only(source, reals=False, limit=7).load("train")
    assert fakes["label"].to_pylist() == [1] * 7
    with pytest.raises(UserError, match="did you mean 'ldm'"):
        Only(source, ["ldn"]).load("val")


def test_parts_of_one_source_are_one_part() -> None:
    source = {"class_path": "Table", "init_args": {"file": "t.csv"}}
    a, b = (only(source, [name]) for name in "ab")
    assert merged([a, b]) == [only(source, ["a", "b"])]
    assert only(a, reals=False) == only(source, ["a"], False)
    assert merged([a, source]) == [a, source]
    few = {"class_path": "Only", "init_args": {**b["init_args"], "limit": 5}}
    assert merged([a, few]) == [a, few]
