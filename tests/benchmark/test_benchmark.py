"""``dfl benchmark`` end to end on small noise images: what is done is not repeated, and a cut changes no byte."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import painted
import pytest
import yaml
from PIL import Image

from dfl.__main__ import main
from dfl.benchmark import store
from dfl.benchmark.entries import of_store
from dfl.cli import app
from dfl.evaluation.examples import Examples

CONFIG = """
model: {class_path: PatchForensics, init_args: {cut: relu1, supervision: mask, input_size: 16}}
data: {class_path: DataModule, init_args: {transform: {resize: none, augment: []}, batch_size: 4, num_workers: 0}}
trainer:
  {max_epochs: 1, log_every_n_steps: 1, accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
checkpoint: {monitor: val/mean/mask_iou}
"""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("painted")
    return painted.table(root, ("lama", "ldm"), {"train": 4, "val": 3, "test": 6}, 90)


def only(table: Path, generator: str) -> dict[str, Any]:
    source = {"class_path": "Table", "init_args": {"file": str(table)}}
    return {"class_path": "Only", "init_args": {"source": source, "generators": [generator]}}


def spec(table: Path, folder: Path, **changes: Any) -> str:
    (folder / "patches.yaml").write_text(CONFIG)
    content = {
        "runs": {"patches": {"config": "patches.yaml"}},
        "train": only(table, "lama"),
        "within": ["lama"],
        "domains": {"lama": only(table, "lama"), "ldm": only(table, "ldm")},
        "robustness": ["shift"],
        "robustness_domains": ["lama"],
        "resamples": 100,
        **changes,
    }
    (folder / "mini.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return str(folder / "mini.yaml")


@pytest.fixture
def tested(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The loaders of every test that is run."""
    real, seen = app.main, list[list[str]]()

    def watched(words: list[str]) -> Any:
        if words[0] == "test":
            data = next(word.partition("=")[2] for word in words if word.startswith("--data="))
            seen.append(list(yaml.safe_load(Path(data).read_text())["init_args"]["test"]))
        return real(words)

    monkeypatch.setattr(app, "main", watched)
    return seen


def files(folder: Path) -> dict[str, bytes]:
    """Return all files that are promised to be the same."""
    names = ("predictions/*.parquet", "benchmark.json", "*s.csv", "tables.md", "tables.tex")
    return {path.name: path.read_bytes() for name in names for path in sorted(folder.glob(name))}


def test_cut_off_it_goes_on_to_the_same_bytes(
    table: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tested: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["benchmark", spec(table, tmp_path)]
    content = main([*words, "--root=whole"])
    whole = files(tmp_path / "whole/lightning_logs/mini")
    assert tested == [["val"], ["lama", "lama@alike", "lama@shift_1"], ["ldm", "ldm@alike"]]
    assert len(whole) == 6 + 5

    real, left = store.write, [0]

    def until_cut(*arguments: Any) -> None:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(store, "write", until_cut)
    for _ in range(2):
        left[0] = 3
        with pytest.raises(SystemExit):
            main([*words, "--root=cut"])
    monkeypatch.setattr(store, "write", real)
    assert main([*words, "--root=cut"])["cells"] == content["cells"]
    again = files(tmp_path / "cut/lightning_logs/mini")
    commands = ("benchmark.json",)  # it names the command, and so the root
    assert {k: v for k, v in again.items() if k not in commands} == {
        k: v for k, v in whole.items() if k not in commands
    }

    tested.clear()
    main([*words, "--root=cut"])
    assert tested == []  # nothing is left to do
    (tmp_path / "mini.yaml").unlink()
    domains = {"lama": only(table, "lama"), "both": {"class_path": "Table", "init_args": {"file": str(table)}}}
    main(["benchmark", spec(table, tmp_path, domains=domains), "--root=cut"])
    assert tested == [["both", "both@alike"]]  # a new domain costs itself alone


def test_the_numbers_are_those_of_test(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = {"patches": {"config": "patches.yaml"}}
    content = main(["benchmark", spec(table, tmp_path, runs=runs, alike=False, robustness=[])])
    cells = {(one["domain"], one["metric"]): one["value"] for one in content["cells"]}
    data = {"class_path": "DataModule", "init_args": {"test": {"lama": only(table, "lama"), "ldm": only(table, "ldm")}}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))
    flags = ["--ckpt_path=best", "--name=mini-patches-s0", "--data=data.yaml", "--trainer.accelerator=cpu"]
    tested = app.main(["test", *flags, "--data.num_workers=0"])
    measured = tested.model.results["test"]
    for domain in ("lama", "ldm"):
        for metric in ("auroc", "ap", "eer", "bacc_val", "tpr_at_1fpr", "mask_iou", "mask_f1", "mask_ap", "mask_fpa"):
            assert cells[domain, metric] == pytest.approx(measured[domain][metric], abs=1e-12), (domain, metric)
    for one in content["all_fake"]:
        assert one["value"] == pytest.approx(measured[one["domain"]][one["metric"]], abs=1e-12), one
    names = {f"mask_{name}_all_fake" for name in ("iou", "pbca", "f1", "ap")}
    assert {one["metric"] for one in content["all_fake"]} == names
    entry = next(e for e in map(of_store, Path("lightning_logs/mini/predictions").glob("*--ldm--*")))
    assert entry.scored.facts["listed"] == 12
    assert entry.scored.column("generator").to_pylist().count("ldm") == 6
    examples = Examples.of(tested.trainer, tested.model, "test")
    paths = tested.datamodule.sets["test"]["ldm"].table["path"].to_pylist()
    (method,) = content["methods"]
    assert method["learned"] == [json.loads(Path("checkpoints/mini-patches-s0/benchmark.json").read_text())["trained"]]
    shown = content["wrong"]["ldm"]["patches"]
    assert shown
    for one in shown:
        kept = Image.open(io.BytesIO(base64.b64decode(one["map"])))
        drawn = examples.map_of("ldm", paths.index(one["path"]))
        assert kept.size == drawn.shape[::-1]  # smaller than what is kept at most
        assert np.abs(np.asarray(kept) - 255 * drawn.numpy()).max() < 1


def test_a_run_that_fails_is_named_and_the_others_are_compared(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = {"patches": {"config": "patches.yaml"}, "gone": {"checkpoint": "gone.ckpt"}}
    words = ["benchmark", spec(table, tmp_path, runs=runs, alike=False, robustness=[])]
    with pytest.raises(SystemExit):
        main([*words, "--trainer.limit_test_batches=1"])
    assert "val: 4 of 6 images were scored; leave trainer.limit_test_batches" in capsys.readouterr().out
    assert not list(Path("lightning_logs/mini").glob("predictions/*"))
    with pytest.raises(SystemExit):
        main(words)
    assert "dfl: 1 of 2 runs failed: gone/0: checkpoint gone.ckpt: no such file" in capsys.readouterr().err
    content = json.loads(Path("lightning_logs/mini/benchmark.json").read_text())
    assert [one["name"] for one in content["methods"]] == ["patches"]


def test_runs_at_once_are_processes_of_their_own(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    runs = {"patches": {"config": "patches.yaml", "seeds": [0, 1]}}
    content = main(["benchmark", spec(table, tmp_path, runs=runs, alike=False, robustness=[]), "--jobs=2"])
    assert content["methods"][0]["seeds"] == [0, 1]
    assert sorted(path.name for path in Path("lightning_logs/mini/logs").iterdir()) == [
        "patches-s0.txt",
        "patches-s1.txt",
    ]
