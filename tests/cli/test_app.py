"""The command line in process, on a small network and sixty images: order of settings, runs by name, mistakes."""

import csv
import json
import os
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from pytorch_lightning.callbacks import EarlyStopping

from dfl.__main__ import main
from dfl.cli import arguments, configs
from dfl.cli.app import CLI
from dfl.errors import UserError
from dfl.runs.claim import claim

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
CONFIG = """# a config
model:
  class_path: VitScl
  init_args: {{backbone: test_vit, pretrained: false, rank: 2, scl_margin: 0.4}}
data:
  class_path: DataModule
  init_args:
    train: {{class_path: Folder, init_args: {{root: {faces}, fractions: {{train: 0.6, val: 0.2, test: 0.2}}}}}}
    test:
      own: {{class_path: Folder, init_args: {{root: {faces}, fractions: {{train: 0.6, val: 0.2, test: 0.2}}}}}}
    transform: {{resize: squash}}
    batch_size: 8
    num_workers: 0
trainer: {{max_epochs: 1, log_every_n_steps: 1}}
"""


def run(*words: str) -> CLI:
    made = main([*words, *QUIET])
    assert isinstance(made, CLI)
    return made


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a command that must end with exit code 2; return its one line."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, faces: Path) -> Path:
    """A folder with ``tiny.yaml`` and the run ``tiny``, trained for one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.yaml").write_text(CONFIG.format(faces=faces))
    run("fit", f"--config={folder / 'tiny.yaml'}", f"--root={folder}")
    return folder


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder, as the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


# runs and checkpoints


def test_a_run_has_its_files_under_its_name(trained: Path) -> None:
    assert {p.name for p in (trained / "checkpoints" / "tiny").iterdir()} == {
        "best.ckpt",
        "config.yaml",
        "last.ckpt",
    }
    assert (trained / "lightning_logs" / "tiny" / "version_0" / "config.yaml").is_file()


def test_the_same_command_starts_afresh_and_then_resumes(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("small.yaml").write_text(CONFIG.format(faces=faces))
    words = ["fit", "--config=small.yaml", "--ckpt_path=last"]
    first = run(*words)
    assert "no checkpoints/small/last.ckpt yet: starting afresh" in capsys.readouterr().out
    second = run(*words, "--trainer.max_epochs=2")
    assert "resuming checkpoints/small/last.ckpt (VitScl, epoch 0, step" in capsys.readouterr().out
    assert second.trainer.global_step == 2 * first.trainer.global_step > 0


def test_a_short_epoch_logs_its_loss_and_fit_begins_with_the_parameters(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--name=short", "--trainer.log_every_n_steps=null", "--trainer.limit_val_batches=0"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        made = main(["fit", "--config=tiny.yaml", *words, *QUIET[:2]])
    assert [str(w.message) for w in caught if "log_every_n_steps" in str(w.message)] == []
    assert made.trainer.log_every_n_steps == 1  # of four batches
    said = capsys.readouterr().out
    assert "loss     64 trainable of 64" in said
    assert "FLOPs" not in said
    typed = run("fit", "--config=tiny.yaml", "--name=typed", words[-1], "--trainer.log_every_n_steps=3")
    assert typed.trainer.log_every_n_steps == 3


def test_last_is_written_even_when_the_score_did_not_rise(place: Path) -> None:
    run("fit", "--config=tiny.yaml", "--name=worse", "--trainer.max_epochs=2", "--model.optimizer.lr=0")
    held = {which: torch.load(f"checkpoints/worse/{which}.ckpt", weights_only=True) for which in ("best", "last")}
    assert held["last"]["epoch"] == 1
    assert held["best"]["epoch"] == 0


def test_a_run_is_resumed_with_its_own_settings_without_a_config(place: Path) -> None:
    again = run("fit", "--ckpt_path=last", "--name=tiny", "--model.criterion.weight=0.25")
    assert again.trainer.max_epochs == 1  # Lightning's own default is 1000
    assert again.datamodule.batch_size == 8
    assert again.model.criterion.weight == 0.25


def test_without_config_or_name_the_newest_run_is_taken(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = place / "checkpoints" / "other"
    shutil.copytree(place / "checkpoints" / "tiny", other)
    os.utime(place / "checkpoints" / "tiny" / "best.ckpt", (1, 1))
    made = run("test", "--ckpt_path=best")
    assert "scoring with checkpoints/other/best.ckpt (VitScl, epoch 0" in capsys.readouterr().out
    assert made.plan.name == "other"


def test_a_config_names_a_packaged_data_config_from_anywhere(place: Path) -> None:
    Path("mine.yaml").write_text("model: {class_path: VitScl, init_args: {rank: 2}}\ndata: data/folder.yaml\n")
    made = run("count", "--config=mine.yaml", "--model.backbone=test_vit")
    assert made.config.count.data.init_args.train.init_args.root == "data/faces"


def test_a_run_that_moved_still_knows_its_best(place: Path, trained: Path) -> None:
    shutil.copytree(place / "checkpoints", place / "elsewhere" / "checkpoints")
    before = torch.load(trained / "checkpoints" / "tiny" / "best.ckpt", weights_only=True)
    words = ["--root=elsewhere", "--config=tiny.yaml", "--ckpt_path=last", "--trainer.max_epochs=2"]
    made = run("fit", *words, "--model.optimizer.lr=0")
    keeper = made.trainer.checkpoint_callback
    state = next(v for k, v in before["callbacks"].items() if "auroc" in k)
    assert float(keeper.best_model_score) >= float(state["best_model_score"])
    assert Path(keeper.best_model_path) == Path("elsewhere/checkpoints/tiny/best.ckpt").absolute()
    assert torch.load(keeper.best_model_path, weights_only=True)["epoch"] == 0


def test_a_run_that_is_there_is_kept_replaced_or_gone_on_with(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p.name: p.read_bytes() for p in Path("checkpoints/tiny").iterdir()}
    said = fails(capsys, "fit", "--config=tiny.yaml", *QUIET)
    assert "checkpoints/tiny holds a run already (best.ckpt, last.ckpt, written" in said
    assert "--name tiny-2" in said
    with claim(Path("checkpoints/tiny"), goes_on=True, overwrite=False):
        pass  # this process may take it again and again: a lock is between processes
    assert "keep one" in fails(capsys, "fit", "--name=tiny", "--overwrite", "--ckpt_path=last", *QUIET)
    fails(capsys, "fit", "--config=tiny.yaml", "--overwrite", "--data.train.root=nowhere", *QUIET)
    assert {p.name: p.read_bytes() for p in Path("checkpoints/tiny").iterdir()} == before
    words = ["--overwrite", "--trainer.limit_val_batches=0", "--trainer.limit_train_batches=1"]
    run("fit", "--config=tiny.yaml", *words)
    assert {p.name for p in Path("checkpoints/tiny").glob("*.ckpt")} == {
        "last.ckpt"
    }  # the best of the other run is gone
    assert torch.load("checkpoints/tiny/last.ckpt", weights_only=True)["global_step"] == 1


def test_what_is_typed_on_resume_is_used_and_recorded(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.load("checkpoints/tiny/last.ckpt", weights_only=True)
    words = ["fit", "--name=tiny", "--ckpt_path=last", "--trainer.max_epochs=2"]
    said = fails(capsys, *words, "--model.optimizer=SGD", "--model.optimizer.lr=0.1", *QUIET)
    assert "the checkpoint holds the state of Adam, which SGD cannot go on from" in said
    run(*words, "--model.optimizer.lr=1e-9", "--model.optimizer.weight_decay=0.3")
    assert "lr: 0.001 -> 1e-09" in capsys.readouterr().out
    after = torch.load("checkpoints/tiny/last.ckpt", weights_only=True)
    group = after["optimizer_states"][0]["param_groups"][0]
    recorded = after["dfl"]["run"]["config"]["model"]["init_args"]["optimizer"]["init_args"]
    assert (group["lr"], group["weight_decay"]) == (recorded["lr"], recorded["weight_decay"]) == (1e-9, 0.3)
    moved = [(after["state_dict"][k] - v).abs().max() for k, v in before["state_dict"].items() if v.is_floating_point()]
    assert 0 < max(float(m.nan_to_num(0.0)) for m in moved) < 1e-6


def test_a_callback_that_is_typed_again_is_the_same_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--config=tiny.yaml", "--name=stops", "--ckpt_path=last", "--trainer.callbacks+=EarlyStopping"]
    words += ["--trainer.callbacks.monitor=val/mean/auroc", "--trainer.limit_train_batches=1"]
    first = run(*words, "--trainer.callbacks.patience=2")
    assert "more val/mean/auroc is better, so mode is max, not min" in capsys.readouterr().out
    second = run(*words, "--trainer.callbacks.patience=5", "--trainer.max_epochs=2")
    assert "from here on: EarlyStopping patience: 2 -> 5" in capsys.readouterr().out
    for made, patience in ((first, 2), (second, 5)):
        (stop,) = (c for c in made.trainer.callbacks if isinstance(c, EarlyStopping))
        assert (stop.patience, stop.mode) == (patience, "max")


def test_weights_of_a_file_are_scored_and_what_they_lack_is_named(
    place: Path, faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--model=Classifier", "--model.backbone=test_resnet", "--model.pretrained=false", "--model.input_size=32"]
    for name, outputs in (("whole.pth", 2), ("many.pth", 1000)):
        torch.save(timm.create_model("test_resnet", num_classes=outputs).state_dict(), name)
    words = ["predict", str(faces / "real"), *small, "--data.num_workers=0"]
    run(*words, "--model.weights=whole.pth", "--output=a.csv")
    said = capsys.readouterr().out
    assert "scoring with the weights of whole.pth" in said
    assert "random" not in said
    assert "wrote 30 scores to a.csv" in said
    run(*words, "--model.weights=many.pth", "--output=a.csv")
    assert (
        "many.pth gives nothing for network.fc.weight, network.fc.bias: they are at random" in capsys.readouterr().out
    )
    assert "no best.ckpt of the run 'Classifier'" in fails(capsys, *words)
    said = fails(capsys, "predict", str(faces), "--name=tiny", "--model.weights=whole.pth", *QUIET)
    assert "best.ckpt holds all weights, so those of --model.weights whole.pth would not be read" in said


def test_what_cannot_be_built_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--trainer.logger=WandbLogger"], "WandbLogger: the package wandb>="),
        (["--trainer.precision=transformer-engine"], "the package transformer_engine>="),
        (["--trainer.callbacks+=Timer", "--trainer.callbacks.interval=hour"], "Timer"),
        (["--model.optimizer.lr=-3"], "model.optimizer: Invalid learning rate: -3.0"),
    ):
        assert says in fails(capsys, "fit", "--config=tiny.yaml", "--name=odd", *words, *QUIET)
    assert not Path("checkpoints/odd").exists()


def test_a_file_of_no_run_gives_its_weights_and_nothing_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy("checkpoints/tiny/last.ckpt", "theirs.ckpt")
    before = torch.load("theirs.ckpt", weights_only=True)
    made = run("fit", "--config=tiny.yaml", "--name=new", "--ckpt_path=theirs.ckpt", "--model.optimizer.lr=0")
    assert "starting from the weights of theirs.ckpt" in capsys.readouterr().out
    after = torch.load("checkpoints/new/last.ckpt", weights_only=True)
    assert before["global_step"] == after["global_step"] == made.trainer.global_step > 0
    trained = [name for name, p in made.model.named_parameters() if p.requires_grad]
    assert all(torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in trained)


def test_a_run_begins_with_another_and_resumes_without_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.load("checkpoints/tiny/best.ckpt", weights_only=True)["state_dict"]
    words = ["fit", "--config=tiny.yaml", "--name=next", "--ckpt_path=last", "--init_from=tiny"]
    made = run(*words, "--model.head=frozen", "--model.optimizer.lr=0")
    said = capsys.readouterr().out
    assert "checkpoints/tiny/best.ckpt gives" in said
    trained = [name for name, p in made.model.named_parameters() if p.requires_grad]
    assert all(torch.equal(before[name], made.model.state_dict()[name]) for name in trained)
    shutil.rmtree("checkpoints/tiny")
    run(*words, "--model.head=frozen", "--trainer.max_epochs=2")
    assert "gives" not in capsys.readouterr().out
    both = ["--name=third", "--init_from=next", "--ckpt_path=theirs.ckpt"]
    shutil.copy("checkpoints/next/last.ckpt", "theirs.ckpt")
    assert "both give weights; keep one" in fails(capsys, "fit", "--config=tiny.yaml", *both)


def test_a_state_of_a_run_that_cannot_be_read_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = torch.load("checkpoints/tiny/last.ckpt", weights_only=True)
    for change in ({"optimizer_states": "x"}, {"loops": {"fit_loop": 7}}, {"lr_schedulers": None}, {"callbacks": [1]}):
        torch.save(whole | change, "checkpoints/tiny/last.ckpt")
        said = fails(capsys, "fit", "--name=tiny", "--ckpt_path=last", "--trainer.max_epochs=2", *QUIET)
        assert "does not hold the state of a run" in said


# order: configs < checkpoint < typed


def test_typed_beats_checkpoint_beats_config(place: Path) -> None:
    text = Path("tiny.yaml").read_text().replace("rank: 2", "rank: 3").replace("scl_margin: 0.4", "scl_margin: 0.1")
    Path("changed.yaml").write_text(text)
    made = run("test", "--config=changed.yaml", "--name=tiny", "--ckpt_path=best", "--model.criterion.margin=0.9")
    assert made.model.hparams.rank == 2
    assert made.model.hparams["criterion"]["init_args"]["margin"] == 0.9


def test_data_may_be_other_but_keep_the_transform_of_training(place: Path, faces: Path) -> None:
    source = {"class_path": "Folder", "init_args": {"root": str(faces)}}
    args = {"test": {"new": source}, "transform": {"resize": "none"}, "num_workers": 0}
    Path("other.yaml").write_text(json.dumps({"class_path": "DataModule", "init_args": args}))
    made = run("test", "--ckpt_path=best", "--data=other.yaml")
    assert made.datamodule.domains("test") == ["new"]
    assert made.datamodule.transform.resize == "squash"
    made = run("test", "--ckpt_path=best", "--data=other.yaml", "--data.transform.resize=shorter")
    assert made.datamodule.transform.resize == "shorter"


def test_a_checkpoint_keeps_plain_settings_of_the_run(trained: Path) -> None:
    held = torch.load(trained / "checkpoints" / "tiny" / "best.ckpt", weights_only=True)["dfl"]["run"]["config"]
    assert json.loads(json.dumps(held)) == held
    assert held["name"] == "tiny"
    assert held["model"]["init_args"]["rank"] == 2
    assert "class_path" in held["model"]["init_args"]["optimizer"]
    assert held["trainer"]["max_epochs"] == 1


# verbs


def test_predict_scores_files_and_folders(place: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = place / "more" / "broken, not a.JPEG"
    bad.parent.mkdir()
    bad.write_text("<html>")
    one = faces / "real" / "00.png"
    run("predict", str(one), str(faces / "fake"), "more", "--output=scores.jsonl")
    out = capsys.readouterr().out
    assert "wrote 31 scores to scores.jsonl" in out
    assert "1 images could not be read and have no score: more/broken, not a.JPEG" in out
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    threshold = torch.load("checkpoints/tiny/best.ckpt", weights_only=True)["dfl"]["threshold"]
    assert rows[0]["path"] == str(one)
    assert {row["domain"] for row in rows} == {"images"}
    assert all(row["threshold"] == pytest.approx(threshold) for row in rows)
    assert all(row["verdict"] == ("fake" if row["score"] >= row["threshold"] else "real") for row in rows)
    made = run("predict", str(one))
    with open(Path(made.trainer.log_dir) / "predictions.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["score"]) == pytest.approx(rows[0]["score"], abs=1e-6)


def test_predict_counts_what_it_did_not_look_at(place: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "phone"
    folder.mkdir()
    shutil.copy(faces / "real" / "00.png", folder / "download")
    shutil.copy(faces / "real" / "01.png", folder / "a.jp2")
    for name in ("phone/clip.MOV", "phone/clip2.mov", "all.zip", "phone/notes"):
        (place / name).write_text("no image")
    (folder / "b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    run("predict", "phone", "all.zip", "--output=s.csv")
    out = capsys.readouterr().out
    assert "wrote 2 scores to s.csv" in out
    assert "1 images could not be read and have no score: phone/b.heic (HEIC" in out
    assert "4 files were left out: 2 .mov (phone/clip.MOV, phone/clip2.mov; video: " in out
    (place / "l.csv").write_text(f"path\nphone/download\n{faces}/fake/00.png\n")
    run("predict", "l.csv", "--output=s.csv")
    assert "wrote 2 scores" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.png", "b.heif", "c.mp4"])
def test_predict_that_scored_nothing_ends_with_1(place: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (place / name).write_text("<html>")
    with pytest.raises(SystemExit) as stop:
        main(["predict", name, "--output=s.csv", *QUIET])
    assert stop.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl: ")]
    assert re.match(rf"dfl: no image (was scored; 1 images could not be read.*|in ){name}", line)
    assert not [p for p in place.iterdir() if "s.csv" in p.name], "nothing half-written"


def test_count_gives_the_numbers_of_the_paper(capsys: pytest.CaptureFixture[str]) -> None:
    run("count", "--config=vit_scl_original")
    out = capsys.readouterr().out
    assert "589,824 trainable of 87,157,480" in out
    assert "1,000 trainable of 1,000" in out


def test_validate_of_an_untrained_detector_warns(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("validate", "--config=tiny.yaml")
    assert "an untrained detector is scored" in capsys.readouterr().out


# mistakes

MISTAKES: list[tuple[list[str], str]] = [
    (["--model.rnak=3"], "model (VitScl) has no option 'rnak'; did you mean 'rank'?"),
    (["--model.rank=three"], "model.rank takes int, not 'three'"),
    (["--model.head=two_wya"], "did you mean 'two_way'?"),
    (["--model.rank"], "--model.rank needs a value"),
    (["--modle.rank=3"], "no option --modle.rank; did you mean --model.rank?"),
    (["--rank=3"], "no option --rank; did you mean --model.rank?"),
    (["--model=VitSlc"], "no detector named 'VitSlc'; did you mean 'VitScl'?"),
    (["--model=nowhere.Mine"], "no class 'nowhere.Mine' can be imported"),
    (["model.rank=3"], "did you mean --model.rank=3?"),
    (["-model.rank=3"], "two dashes: --model.rank"),
    (["vit_scl.yaml"], "did you mean --config vit_scl.yaml?"),
    (["--model.optimizer=AdmaW"], "no optimizer named 'AdmaW'; did you mean 'AdamW'?"),
    (["--model.optimizer=AdamW", "--model.optimizer.lrr=1"], "(AdamW) has no option 'lrr'; did you mean 'lr'?"),
    (["--model.optimizer.lr=fast"], "model.optimizer.lr takes float, not 'fast'"),
    (["--model.scheduler=CosineAnnealing"], "did you mean 'CosineAnnealingLR'?"),
    (["--model.scheduler=CosineAnnealingLR"], "model.scheduler needs T_max (CosineAnnealingLR)"),
    (["--data.batchsize=3"], "data (DataModule) has no option 'batchsize'; did you mean 'batch_size'?"),
    (["--data.train=Fodler"], "no source named 'Fodler'; did you mean 'Folder'?"),
    (["--data.transform.rezise=none"], "did you mean 'resize'?"),
    (["--data=data/fodler.yaml"], "did you mean 'data/folder.yaml'?"),
    (["--trainer.max_epoch=3"], "no option --trainer.max_epoch; did you mean --trainer.max_epochs?"),
    (["--trainer.max_epochs=x"], "trainer.max_epochs takes int, not 'x'"),
    (["--trainer.precision=bf17"], "did you mean 'bf16'?"),
    (["--trainer.accelerator=gpuu"], "gpuu"),
    (["--trainer.accelerator=cpu", "--trainer.devices=no"], "`devices` selected with `CPUAccelerator` should be"),
    (["--trainer.callbacks+=EarlyStoping"], "did you mean 'EarlyStopping'?"),
    (["--checkpoint.monitr=x"], "did you mean --checkpoint.monitor?"),
    (["--ckpt_pth=best"], "did you mean --ckpt_path?"),
    (["--name=a/b"], "--name a/b must be the name of one folder"),
    (["--model.rank=3", "--model.rank=4"], "--model.rank is given twice, as '3' and as '4'"),
    (["--data.train.root=nowhere"], "no folder at"),
    (["--ckpt_path=nope.ckpt"], "no checkpoint 'nope.ckpt' in"),
    (["--ckpt_path=https://x.org/a.ckpt"], "takes a local file, not the URL"),
    (["--ckpt_path=best", "--name=tyni"], "no best.ckpt of the run 'tyni'"),
    (["--ckpt_path=best", "--model=Classifier"], "holds a VitScl, not a Classifier"),
    (["--ckpt_path=tiny.yaml"], "tiny.yaml"),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line(words: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in fails(capsys, "fit", "--config=tiny.yaml", "--overwrite", *words)


def test_a_typed_data_config_leaves_nothing_of_the_sources_it_replaces(tmp_path: Path) -> None:
    data = {"class_path": "DataModule", "init_args": {"batch_size": 4, "train": {"class_path": "Folder"}, "val": None}}
    data["init_args"]["train"]["init_args"] = {"root": "elsewhere", "fractions": {"train": 0.5, "val": 0.5}}
    (tmp_path / "top.yaml").write_text(json.dumps({"data": data}))
    other = {
        "class_path": "DataModule",
        "init_args": {"train": {"class_path": "Table", "init_args": {"file": "t.csv"}}},
    }
    (tmp_path / "d.yaml").write_text(json.dumps(other))
    made = arguments.plan(["fit", "--config=top.yaml", "--data=d.yaml"])
    assert made.layers == [{"data": {"class_path": "DataModule", "init_args": {"batch_size": 4}}}]
    assert yaml.safe_load(arguments.arrange(made)[1].removeprefix("--config=")) == made.layers[0]
    assert arguments.plan(["fit", "--config=top.yaml", "--data.batch_size=3"]).layers == [{"data": data}]


def test_a_config_is_laid_over_those_it_includes() -> None:
    Path("low.yaml").write_text("trainer: {max_epochs: 3, max_steps: 7}\nname: low\n")
    Path("mid.yaml").write_text(
        "include: low.yaml\ntrainer: {max_epochs: 4}\nmodel: {class_path: VitScl, init_args: {rank: 3}}\n"
    )
    Path("top.yaml").write_text(
        "include: [mid.yaml, trainer/smoke.yaml]\ntrainer: {max_steps: 9}\n"
        "model: {class_path: Classifier, init_args: {input_size: 32}}\n"
    )
    made = arguments.plan(["fit", "--config=top.yaml", "--trainer.max_steps=11"])
    (layer,) = made.layers
    assert layer["model"] == {
        "class_path": "Classifier",
        "init_args": {"input_size": 32},
    }  # of another class nothing stays
    assert (layer["trainer"]["max_epochs"], layer["trainer"]["max_steps"]) == (1, 9)
    words = arguments.arrange(made)
    assert yaml.safe_load(words[1].removeprefix("--config=")) == layer
    assert words[-1] == "--trainer.max_steps=11"
    Path("low.yaml").write_text("include: top.yaml\n")
    with pytest.raises(UserError, match="includes itself"):
        arguments.plan(["fit", "--config=top.yaml"])
    Path("low.yaml").write_text("include: botom.yaml\n")
    with pytest.raises(UserError, match="no config 'botom.yaml'"):
        arguments.plan(["fit", "--config=top.yaml"])


FILES: list[tuple[str, str]] = [
    ("model:\n  class_path: VitScl\n  init_args:\n    rnak: 3\n", "did you mean 'rank'? (line 4 of bad.yaml)"),
    ("model:\n  class_path: VitSlc\n", "did you mean 'VitScl'? (line 2 of bad.yaml)"),
    ("trainer:\n  max_epoch: 3\n", "did you mean --trainer.max_epochs? (line 2 of bad.yaml)"),
    ("modle: {class_path: VitScl}\n", "unknown key 'modle'; did you mean 'model'?"),
    ("model:\n  class_path: VitScl\n   init_args: {}\n", "bad.yaml, line 3 is no YAML"),
    (
        "model: {class_path: VitScl, init_arg: {rank: 3}}\n",
        "model takes a class, written as class_path and init_args",
    ),
    ("data: data/fodler.yaml\n", "did you mean 'data/folder.yaml'?"),
    ("class_path: DataModule\n", "give it to the option it is for: --data bad.yaml"),
    ("model: {class_path: VitScl}\n", "fit lacks --data"),
    ("model: [1, 2]\n", "model takes a class, written as class_path and init_args, not '[1, 2]' (line 1 of bad.yaml)"),
    ("trainer: {7: 2}\n", "Key must be a string, got: 7. (line 1 of bad.yaml)"),
]


@pytest.mark.parametrize(("text", "says"), FILES, ids=[says for _, says in FILES])
def test_a_mistake_in_a_config_says_where(text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text(text)
    assert says in fails(capsys, "fit", "--config=bad.yaml")


def test_predict_without_images_or_a_run_says_so(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "name images or folders" in fails(capsys, "predict")
    assert "no run in" in fails(capsys, "predict", "x.png", "--root=elsewhere")
    assert "no file or folder 'x.png'" in fails(capsys, "predict", "x.png", *QUIET)
    assert "must end in .csv or .jsonl" in fails(capsys, "predict", "x.png", "--output=x.txt", *QUIET)


def test_last_without_a_run_or_a_model_is_no_fresh_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no last.ckpt of the run 'tiny'" in fails(capsys, "fit", "--name=tiny", "--ckpt_path=last")


def test_help_of_a_class_and_the_whole_config_are_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, says in (
        (["--config=tiny.yaml", "--print_config"], "margin: 0.4"),
        (["--model.help", "VitScl"], "--model.criterion"),
        (["--help"], "--trainer.max_epochs"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["fit", *words])
        assert stop.value.code == 0
        assert says in capsys.readouterr().out


# hostile checkpoints


@pytest.mark.parametrize("keep", [0, 3000, -2])
def test_a_torn_checkpoint_is_one_line(keep: int, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.ckpt").write_bytes(Path("checkpoints/tiny/best.ckpt").read_bytes()[:keep])
    assert "bad.ckpt" in fails(capsys, "test", "--ckpt_path=bad.ckpt")


def test_a_checkpoint_of_another_program_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": {}}, "bad.ckpt")
    assert "does not say which detector it holds" in fails(capsys, "test", "--ckpt_path=bad.ckpt")


def test_missing_data_and_weights_are_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--config", "vit_scl.yaml"])
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "no folder real_vs_fake/real-vs-fake/train at" in said
    assert "kaggle.com/datasets/xhlulu" in said
    assert "no weights for vit_base_patch16_224" in said
    assert "make demo" in said


@pytest.mark.parametrize("train", ["evil_module.Source", {"class_path": "evil_module.Source"}, ["evil_module.Source"]])
def test_a_checkpoint_cannot_import_strangers(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text("open('ran', 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    data = {"class_path": "dfl.data.DataModule", "init_args": {"train": train}}
    about = {"class_path": "dfl.detectors.VitScl", "run": {"config": {"data": data}}}
    torch.save({"state_dict": {}, "hyper_parameters": {}, "dfl": about}, "a.ckpt")
    with pytest.raises(SystemExit):
        main(["test", "--ckpt_path", "a.ckpt"])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("mixin", ["colab", "ddp", "slurm", "smoke"])
def test_trainer_mixins_parse(mixin: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=vit_scl.yaml", f"--config=trainer/{mixin}.yaml", "--print_config"])
    assert stop.value.code in (0, None)
    assert "accelerator:" in capsys.readouterr().out


def test_predict_takes_a_data_config(faces: Path) -> None:
    words = ["--config=vit_scl.yaml", "--data=data/folder.yaml", f"--data.train.root={faces}", "--name=a"]
    small = ["--model.backbone=test_vit", "--model.pretrained=false", "--model.input_size=32", "--data.num_workers=0"]
    main(["fit", *words, *small, "--config=trainer/smoke.yaml"])
    main(["predict", "--name=a", "--data=data/folder.yaml", f"--data.train.root={faces}", "--output=s.csv"])
    with open("s.csv") as file:
        assert {row["domain"] for row in csv.DictReader(file)} == {"same"}


def test_the_same_command_resumes_without_a_word_of_other_settings(faces: Path) -> None:
    words = ["fit", "--config=demo/fair_pg_fdd.yaml", "--config=trainer/smoke.yaml", "--data=data/folder.yaml"]
    words += [f"--data.train.root={faces}", "--data.num_workers=0", "--data.batch_size=4", "--ckpt_path=last"]
    main([*words, "--model.dim=32"])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        main([*words, "--model.dim=32", "--trainer.max_epochs=2"])
    assert [str(w.message) for w in said if "settings differ" in str(w.message)] == []


def test_an_edited_config_is_named_on_resume(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = Path(configs.find("vit_scl.yaml")).read_text()
    Path("run.yaml").write_text(text)
    small = ["--model.backbone=test_vit", "--model.pretrained=false", "--model.input_size=32", "--data.num_workers=0"]
    words = ["fit", "--config=run.yaml", "--config=trainer/smoke.yaml", "--data=data/folder.yaml", "--ckpt_path=last"]
    words += [f"--data.train.root={faces}"]
    main([*words, *small])
    Path("run.yaml").write_text(text.replace("margin: 0.3", "margin: 0.7").replace("lr: 1.0e-3", "lr: 2.0e-3"))
    main([*words, *small, "--trainer.max_epochs=2"])
    said = capsys.readouterr().out
    assert "optimizer.lr 0.001, not 0.002" in said
    assert "criterion.margin 0.3, not 0.7" in said
