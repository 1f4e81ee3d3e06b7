"""The command line in process: order of settings, runs by name, prediction."""

import csv
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import pytest
import timm
import torch
from commands import CONFIG, QUIET, fails, run
from pytorch_lightning.callbacks import EarlyStopping

from dfl.__main__ import main
from dfl.cli import arguments
from dfl.runs.claim import claim

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
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        second = run(*words, "--trainer.max_epochs=2")
    assert [str(w.message) for w in said if "settings differ" in str(w.message)] == []
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
    changed = "rank: 3, optimizer: {class_path: Adam, init_args: {lr: 2.0e-3}}"
    text = Path("tiny.yaml").read_text().replace("rank: 2", changed).replace("scl_margin: 0.4", "scl_margin: 0.1")
    Path("changed.yaml").write_text(text)
    resumed = arguments.plan(["fit", "--config=changed.yaml", "--name=tiny", "--ckpt_path=last"])
    says = "criterion.margin 0.4, not 0.1, optimizer.lr 0.001, not 0.002, rank 2, not 3; a typed flag wins"
    assert any(says in note for note in resumed.notes)
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
    run("predict", "--name=tiny", "--data=data/folder.yaml", f"--data.train.root={faces}", "--output=s.csv")
    with open("s.csv") as file:
        assert {row["domain"] for row in csv.DictReader(file)} == {"same"}


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
    line = fails(capsys, "predict", name, "--output=s.csv", *QUIET, code=1)
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
