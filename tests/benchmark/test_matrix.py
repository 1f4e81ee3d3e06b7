"""The domain matrix: which trainings a sweep asks for, on what, and what of it counts as done."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import painted
import pytest
import yaml

from dfl.__main__ import main
from dfl.benchmark import training
from dfl.benchmark.sweeps import merged, only, read
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
seed_everything: 3
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("painted")
    return painted.table(root, GENERATORS, {"train": 4, "val": 2, "test": 3}, 60)


@pytest.fixture
def sweep(table: Path, tmp_path: Path) -> Callable[..., str]:
    """Write a sweep config; what is given replaces its keys, None leaves one out."""
    (tmp_path / "patches.yaml").write_text(CONFIG)

    def write(**given: Any) -> str:
        source = {"class_path": "Table", "init_args": {"file": str(table)}}
        told = {"config": "patches.yaml", "source": source, **given}
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({k: v for k, v in told.items() if v is not None}))
        return "sweep.yaml"

    return write


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The verbs of every training and test."""
    real, made = app.main, list[str]()
    monkeypatch.setattr(app, "main", lambda words: (made.append(words[0]), real(words))[1])
    return made


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["matrix", *words])
    assert stop.value.code == 2
    return next(line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl: "))


def test_it_is_a_benchmark_of_trainings(
    sweep: Callable[..., str], calls: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["matrix", "--config", sweep(generators=["lama", "ldm"], reals=False), *WORDS]
    found = main(words)
    assert calls.count("fit") == 2
    assert found["metrics"][0] == "mask_iou"  # what chose the best checkpoints
    assert {one["name"]: one["trained_on"] for one in found["methods"]} == {"lama": ["lama"], "ldm": ["ldm"]}
    roles = {(one["method"], one["domain"]): one["role"] for one in found["cells"]}
    assert roles == {(m, d): "within" if m == d else "cross" for m in ("lama", "ldm") for d in ("lama", "ldm")}
    assert [(one["real"], one["fake"], one["role"]) for one in found["domains"]] == [(3, 3, "by method")] * 2
    share = {c: 8 * (GENERATORS.index(c) + 5) / 256 for c in ("lama", "ldm")}  # the squares of the fixture
    constant = {(o["domain"], o["variant"], o["metric"]): o["value"] for o in found["all_fake"]}
    assert {c: constant[c, "stored", "mask_iou_all_fake"] for c in share} == pytest.approx(share)
    assert "all fake" in capsys.readouterr().out
    data = yaml.safe_load(Path("checkpoints/sweep-lama/config.yaml").read_text())["data"]["init_args"]
    assert data["train"]["init_args"]["generators"] == ["lama"]
    assert data["train"]["init_args"]["reals"] is False
    assert data["batch_size"] == 4  # the config's own
    # as it was noted before: nothing is trained again
    for name in ("lama", "ldm"):
        note = Path("checkpoints", f"sweep-{name}", "benchmark.json")
        (run,) = (one for one in read("sweep.yaml").runs if one.method == name)
        typed = ["--config=patches.yaml", f"--data=lightning_logs/sweep/runs/sweep-{name}.yaml", *WORDS]
        old = training.digest(training.learned(typed), {"train": run.train, "val": run.val})
        note.with_name("matrix.json").write_text(json.dumps({"trained": old, "complete": True, "results": {}}))
        note.unlink()
    calls.clear()
    assert main([*words, "--metric=auroc,mask_f1"])["metrics"][:2] == ["auroc", "mask_f1"]
    assert calls == []
    assert "holds a run with other settings" in fails(capsys, *words[1:], "--trainer.max_epochs=3")
    file = Path("checkpoints", "sweep-lama", "benchmark.json")
    with pytest.raises(UserError, match="other settings"):
        training.state_of(file, "other")
    for one in file.parent.glob("*.ckpt"):
        one.unlink()
    assert training.state_of(file, "other") == {}  # it failed before its first checkpoint: settings may be mended


def test_generators_of_one_source_and_all_but_one(sweep: Callable[..., str]) -> None:
    spec = read(sweep(leave_one_out=True, reals=False, metric=["ap", "mask_iou"]))
    columns = ["lama", "ldm", "v1_4"]  # dots separate names elsewhere
    assert [*spec.domains] == columns
    assert [one.method for one in spec.runs] == [*columns, *(f"all but {c}" for c in columns)]
    names = [*(f"sweep-{c}" for c in columns), *(f"sweep-without-{c}" for c in columns)]
    assert [one.name for one in spec.runs] == names
    assert (spec.metrics, {one.seed for one in spec.runs}) == (["ap", "mask_iou"], {3})  # that of the config
    run = spec.runs[3]
    assert run.within == run.trained_on == ("ldm", "v1_4")
    assert run.train["init_args"]["generators"] == ["ldm", "v1.4"]  # one source, so that its real images are there once
    assert run.train["init_args"]["reals"] is False
    assert {d: one["init_args"]["generators"] for d, one in run.val.items()} == {"ldm": ["ldm"], "v1_4": ["v1.4"]}
    typed = read("sweep.yaml", name="other", metric="auroc", leave_one_out=False, seed=1)
    assert ([one.name for one in typed.runs], typed.metrics) == ([f"other-{c}" for c in columns], ["auroc"])
    assert {one.seed for one in typed.runs} == {1}
    source = yaml.safe_load(Path("sweep.yaml").read_text())["source"]
    more = read(sweep(test={"whole": source}))
    assert [*more.domains] == [*columns, "whole"]
    assert len(more.runs) == 3
    assert more.metrics == []  # what chooses the best checkpoint


def test_several_sources(table: Path, sweep: Callable[..., str]) -> None:
    whole = {"class_path": "Table", "init_args": {"file": str(table)}}
    one = {"class_path": "Only", "init_args": {"source": whole, "generators": ["lama"]}}
    given = {"first": one, "second": {"train": whole, "val": whole, "test": one}, "third": whole}
    spec = read(sweep(source=None, domains=given, leave_one_out=True))
    runs = {run.method: run for run in spec.runs}
    assert runs["second"].train == whole
    assert spec.domains["second"] == one
    assert runs["all but third"].train == [one, whole]


def test_mistakes_are_named_before_anything_is_trained(
    sweep: Callable[..., str], calls: list[str], capsys: pytest.CaptureFixture[str]
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
    assert "no metric 'apu'; did you mean 'ap'?" in fails(capsys, sweep(metric="apu"))
    assert not calls


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
