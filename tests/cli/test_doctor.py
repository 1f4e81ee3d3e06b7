"""What is there is said, what is missing is named and ends the command with 2, and nothing is made or loaded."""

from pathlib import Path

import pytest
from commands import CONFIG, fails

from dfl.__main__ import main
from dfl.cli import doctor, needs
from dfl.detectors import Fusion


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is missing, whatever this one lacks."""
    monkeypatch.setattr(doctor, "_requirements", lambda: iter(()))


@pytest.mark.usefixtures("machine")
def test_a_run_whose_images_are_there_is_counted(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tiny.yaml").write_text(CONFIG.format(faces=faces))
    main(["doctor", "--config", "tiny.yaml"])
    lines = capsys.readouterr().out.splitlines()
    for line in ("model     VitScl", "data      train: 36 images, 18 of them fake", "data      test/own: 12 images, 6"):
        assert any(one.startswith(line) for one in lines), line
    assert sum("free in" in line for line in lines) == 3
    assert len(lines) <= 16
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.usefixtures("machine")
def test_what_is_missing_is_named_each_with_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config=sida_7b_stage2.yaml", "--model.language=./none", "--data.train.root=nowhere"]
    with pytest.raises(SystemExit) as stop:
        main(["doctor", *words])
    said = capsys.readouterr()
    assert stop.value.code == 2
    for missing in (
        f"weights   MISSING model.language: no {Path('none').absolute()}",
        "weights   MISSING model.mask: facebook/sam-vit-huge: not in ",
        "start     MISSING --init_from sida_7b/last: no such file",
        "data      MISSING train: ",
    ):
        assert missing in said.out
    assert f"dfl: {said.out.count('MISSING')} things are missing" in said.err


def test_a_detector_says_itself_which_of_its_arguments_name_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("there.pth").touch()
    files = [
        "--model.weights=there.pth",
        "--model.beside=[resnet18, resnet34]",
        "--model.beside_weights=[./b.pth, a1_in1k]",
    ]
    plan = needs.planned(["--model=Fusion", "--model.backbone=resnet18", *files])
    found = [need for need in needs.of_run(plan) if need[0] == "weights"]
    place = f"model.beside_weights: no {Path('b.pth').absolute()}"
    assert found == [("weights", True, "model.weights: there.pth"), ("weights", False, place)]
    monkeypatch.setattr(Fusion, "places", ("weights",))
    assert [need for need in needs.of_run(plan) if need[0] == "weights"] == found[:1]


def test_weights_of_timm_are_looked_for_and_not_fetched() -> None:
    assert needs._of_timm("vit_base_patch16_224")[1].startswith("vit_base_patch16_224 of timm: not in ")
    assert "timm has no weights for meso4" in needs._of_timm("meso4")[1]
    Path("w.pth").touch()
    assert needs._place("model.weights", "w.pth") == (True, "model.weights: w.pth")


def test_a_library_of_another_version_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["numpy>=99", 'no-such-thing>=1; extra == "odd"', 'pillow; extra == "fine"']
    monkeypatch.setattr("importlib.metadata.requires", lambda _: lines)
    assert fails(capsys, "doctor") == "dfl: 1 thing is missing, see MISSING above"
    said = dict(doctor._extras())
    assert said["extras"] == "fine"
    assert said["not here"].startswith("odd (no-such-thing): pip install")
    assert any(line.startswith("MISSING numpy>=99: ") for _, line in doctor._versions())


def test_words_that_the_doctor_has_no_use_for_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no option --trainer.max_epochs of `dfl doctor`" in fails(capsys, "doctor", "--trainer.max_epochs=3")
    main(["doctor", "--help"])
    assert "usage: dfl doctor" in capsys.readouterr().out
