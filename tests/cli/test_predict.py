"""`predict` and `info` as their users meet them: words, tables, what is said at the end, what is refused."""

import csv
import io
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import QUIET, fails, run
from conftest import save_image
from forking import exit_code
from PIL import Image

from dfl.__main__ import main, script
from dfl.cli import checkpoints
from dfl.data import DataModule
from dfl.detectors.loading import load
from dfl.runs.plain import Misfit


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
def photos(place: Path) -> Path:
    """Two images as in training, one of another size and quality, one that cannot be read."""
    folder = place / "photos"
    save_image(folder / "a.png", 200, dark=False)
    save_image(folder / "deep" / "b.png", 201, dark=True)
    save_image(folder / "large.png", 202, dark=True, size=400)
    Image.open(folder / "large.png").save(folder / "large.jpg", quality=20)
    (folder / "large.png").unlink()
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder


def test_a_folder_a_pattern_and_standard_input_give_the_same_rows(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("predict", "photos", "--name=tiny", "--output=a.csv", "--fpr=0.2", "--coverage=0.9")
    said = capsys.readouterr().out
    assert "wrote 3 scores to a.csv: " in said
    assert "of 6 real validation images are called fake, of others like them 0" in said
    assert "90 % of validation images have a verdict" in said
    assert "1 images are unlike those that it was trained on (1 in size, 1 in quality" in said
    assert "1 images could not be read and have no score: photos/torn.png" in said
    (found,) = [row for row in rows(Path("a.csv").read_text()) if row["unusual"]]
    assert found["path"] == "photos/large.jpg"
    assert found["unusual"].startswith("size 400 px (trained on 40 px to 40 px); quality 20 (trained on 100 to 100)")
    assert 0 < float(found["probability"]) < 1

    monkeypatch.setattr(sys, "stdin", io.StringIO("photos/a.png\nphotos/deep/b.png\n\nphotos/large.jpg\n"))
    run("predict", "-", "--name=tiny", "--output=-", "--fpr=0.2", "--coverage=0.9")
    streams = capsys.readouterr()
    assert rows(streams.out) == rows(Path("a.csv").read_text())
    assert "wrote 3 scores to standard output" in streams.err

    views = ("--views=five", "--data.transform.resize=shorter")
    run("predict", "photos/**/[a-l]*.??g", "--name=tiny", "--output=b.csv", *views)
    assert "scores are of the mean of the log-odds over 5 views" in capsys.readouterr().out
    paths = [row["path"] for row in rows(Path("b.csv").read_text())]
    assert paths == ["photos/a.png", "photos/deep/b.png", "photos/large.jpg"]


def test_standard_input_is_a_list(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "photos/a.png\nnothere.png\n"
    Path("l.txt").write_text(text)
    found = []
    for word in ("l.txt", "-"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        run("predict", word, "--name=tiny", "--output=-")
        streams = capsys.readouterr()
        assert "1 images could not be read and have no score: nothere.png" in streams.err
        found.append(rows(streams.out))
    assert found[0] == found[1]
    assert [row["path"] for row in found[0]] == ["photos/a.png"]
    for text, line, code in (
        (
            "x.png\ny.png\n",
            "standard input is no list of images: none of its 2 lines names a file, the first 'x.png'",
            2,
        ),
        ("\n", "no image in standard input, which is empty", 1),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert line in fails(capsys, "predict", "-", "--name=tiny", code=code)


def test_what_validation_cannot_know_is_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["predict", "photos", "--name=tiny", "--output=a.csv"]
    assert "--fpr 0.05 needs at least 20 real validation images" in fails(capsys, *words, "--fpr=0.05")
    assert "--coverage 0.5001 is none of" in fails(capsys, *words, "--coverage=0.5001")
    assert "data.views is five, but transform.resize: squash shows all" in fails(capsys, *words, "--views=five")
    assert "nothing in " in fails(capsys, "predict", "photos/*.gif", "--name=tiny")
    assert not list(photos.parent.glob("*a.csv*"))


def test_info_shows_what_a_checkpoint_is(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", "tiny"])
    said = capsys.readouterr().out
    for part in (
        "dfl.detectors.VitScl",
        "epoch 0, step 4",
        "Folder {'root': ",
        "size 40 px to 40 px, quality 100 to 100",
        "of the weights",
        "validation: 6 real and 6 fake images; probability = sigmoid(log-odds / ",
        "     0.2 ",
    ):
        assert part in said
    assert re.search(r"^  rank +2$", said, re.M)
    verdicts = checkpoints.read(Path("checkpoints/tiny/best.ckpt"), Path()).contents.verdicts
    assert verdicts is not None
    table = [line.split() for line in said.splitlines() if re.match(r" +(none|0\.\d+)  ", line)]
    assert [row[:3] for row in table] == [
        [f"{rate:g}" if rate else "none", f"{at:.4g}", f"{odds:.3g}"]
        for rate, at, odds in zip(verdicts.rates, verdicts.thresholds, verdicts.odds, strict=True)
    ]
    assert "no such file" in fails(capsys, "info", "nothing")


def test_numbers_of_a_stranger_are_looked_at(place: Path) -> None:
    from test_checkpoints import write

    from dfl.runs.checkpoint import read_checkpoint

    content = dict(read_checkpoint(place / "checkpoints" / "tiny" / "best.ckpt"))
    assert load(place / "checkpoints" / "tiny" / "best.ckpt").verdicts is not None

    def spoil(c: dict[str, object]) -> None:
        c["dfl"]["verdicts"]["bands"][0][0] = "x"  # type: ignore[index]

    with pytest.raises(Exception, match=r"its numbers of verdicts say that bands is 'x', and it must be a number"):
        load(write(content, spoil))
    with pytest.raises(Exception, match="not complete"):
        load(write(content, lambda c: c["dfl"]["verdicts"].pop("bands")))


@pytest.mark.parametrize("usual", [{"size": [1, 2]}, {"size": [3, 2, 1]}, {"other": [1, 2, 3]}, "x"])
def test_what_is_usual_is_three_rising_numbers(usual: object) -> None:
    from dfl.data.appearance import Usual

    with pytest.raises(Misfit):
        Usual.of_file(usual)


def signalled(verb: str, number: signal.Signals, folder: Path) -> None:
    """Run a command that is sent a signal with its first batch."""
    os.chdir(folder)
    words = [verb, *(["photos", "--output=scores.csv"] if verb == "predict" else ["--ckpt_path=best"]), "--name=tiny"]
    whole = DataModule.on_before_batch_transfer

    def interrupted(*args: Any) -> Any:
        os.kill(os.getpid(), number)
        return whole(*args)

    DataModule.on_before_batch_transfer = interrupted  # type: ignore[method-assign]
    sys.argv = ["dfl", *words, *QUIET]
    script()


@pytest.mark.parametrize(
    ("verb", "number"), [("predict", signal.SIGTERM), ("test", signal.SIGTERM), ("predict", signal.SIGUSR1)]
)
def test_a_signal_ends_a_command_that_does_not_train(photos: Path, verb: str, number: signal.Signals) -> None:
    assert exit_code(signalled, verb, number, Path.cwd()) == 75
    assert not Path("scores.csv").exists()
