"""A mistake on the command line or in a config is one line that says what is meant."""

from pathlib import Path

import pytest
from commands import QUIET, fails

from dfl.__main__ import main

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
    (["--model.optimizer.lr=a"], "model.optimizer.lr takes float, not 'a'"),
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
    (["--trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches is 0: it must be at least 1"),
    (["--trainer.check_val_every_n_epoch=0"], "trainer.check_val_every_n_epoch is 0: it must be at least 1, or null"),
    (["--trainer.val_check_interval=0"], "trainer.val_check_interval is 0: it must be more than 0"),
    (["--trainer.val_check_interval=9999"], "trainer.val_check_interval is 9999 batches, and an epoch has"),
    (["--seed_everything=-7"], "seed_everything is -7: it must be between 0 and 4294967295"),
    (["--seed_everything=1099511627776"], "seed_everything is 1099511627776: it must be"),
    (["--model.input_size=-3"], "model.input_size is -3: it must be at least 1 pixel"),
    (["--model.input_size=0"], "model.input_size is 0: it must be at least 1 pixel"),
    (["--data.size=0"], "data.size is 0: it must be at least 1"),
    (["--trainer.accelerator=cpu", "--trainer.devices=no"], "`devices` selected with `CPUAccelerator` should be"),
    (["--trainer.callbacks+=EarlyStoping"], "did you mean 'EarlyStopping'?"),
    (["--checkpoint.monitr=x"], "did you mean --checkpoint.monitor?"),
    (["--ckpt_pth=best"], "did you mean --ckpt_path?"),
    (["--name=a/b"], "--name a/b must be the name of one folder"),
    (["--model.rank=3", "--model.rank=4"], "--model.rank is given twice, as '3' and as '4'"),
    (["--data.train.root=nowhere"], "no folder at"),
    (["--ckpt_path=nope.ckpt"], "no checkpoint 'nope.ckpt' in"),
    (["--ckpt_path=https://x.org/a.ckpt"], "not the URL"),
    (["--ckpt_path=best", "--name=tyni"], "no best.ckpt of the run 'tyni'"),
    (["--ckpt_path=best", "--model=Classifier"], "holds a VitScl, not a Classifier"),
    (["--ckpt_path=tiny.yaml"], "tiny.yaml"),
    (["--data=tiny.yaml"], "--data takes a file of what stands below `data:`, and this is one of a whole run"),
    (["--model=tiny.yaml"], "--model takes a file of what stands below `model:`"),
    (["--trainer=tiny.yaml"], "--trainer takes a file of what stands below `trainer:`"),
]


@pytest.mark.parametrize(("words", "says"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_one_line(words: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in fails(capsys, "fit", "--config=tiny.yaml", "--overwrite", *words)


WHOLE = "model: VitScl\ndata: data/folder.yaml\n"
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
    ("trainer: {check_val_every_n_epoch: -2}\n" + WHOLE, "trainer.check_val_every_n_epoch is -2: it must be"),
    ("seed_everything: -1\n" + WHOLE, "seed_everything is -1: it must be"),
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


def test_missing_data_and_weights_are_said_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    said = fails(capsys, "fit", "--config", "vit_scl.yaml")
    assert "no folder real_vs_fake/real-vs-fake/train at" in said
    assert "kaggle.com/datasets/xhlulu" in said
    assert "no weights for vit_base_patch16_224" in said
    assert "make demo" in said


@pytest.mark.parametrize("mixin", ["colab", "ddp", "slurm", "smoke"])
def test_trainer_mixins_parse(mixin: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config=vit_scl.yaml", f"--config=trainer/{mixin}.yaml", "--print_config"])
    assert stop.value.code in (0, None)
    assert "accelerator:" in capsys.readouterr().out
