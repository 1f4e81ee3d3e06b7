"""Captions of a source as a table: what is kept, what is left out, what is not mixed."""

import json
import shutil
from pathlib import Path
from typing import Any

import captioners
import pyarrow.parquet as pq
import pytest

from dfl.data import Table
from dfl.data.locators import load_image
from dfl.data.sources.paths import Paths
from dfl.errors import UserError
from dfl.networks.captioner import Captioner
from dfl.tools import caption as module
from dfl.tools.caption import caption

FAST: dict[str, Any] = {"beams": 1, "shortest": 2, "longest": 4, "device": "cpu", "workers": 1, "progress": False}


@pytest.fixture
def model(faces: Path) -> str:
    return str(captioners.captioner(faces.parent))


@pytest.fixture
def few(faces: Path) -> str:
    """A table of seven images, one of them cut off, with what is known of them."""
    lines = ["path,label,split,group,caption"]
    for i in range(7):
        lines.append(f"set/{i}.png,{i % 2},{'train' if i < 5 else 'test'},g{i},{'a prompt' if i % 2 else ''}")
        Path("set").mkdir(exist_ok=True)
        shutil.copy(faces / ("fake" if i % 2 else "real") / f"0{i}.png", f"set/{i}.png")
    Path("set/4.png").write_bytes(Path("set/4.png").read_bytes()[:100])
    Path("few.csv").write_text("\n".join(lines))
    return "few.csv"


def test_a_table_of_captions_is_a_source(few: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = caption([few], model, "out/t.parquet", batch=2, max_bad=0.2, **FAST)
    assert "1 of 7 images gave no caption" in capsys.readouterr().out
    assert "set/4.png" in file.with_suffix(".missing.csv").read_text()
    train, test = (Table(str(file)).load(split) for split in ("train", "test"))  # paths lead there from another folder
    writer = Captioner(model, 1, 2, 4, device="cpu")
    for row in [*train.to_pylist(), *test.to_pylist()]:
        number = int(Path(row["path"]).stem)
        assert row["caption"] == writer([load_image(row["path"])])[0] != ""
        assert (row["group"], row["label"]) == (f"g{number}", number % 2)
    assert [Path(path).stem for path in train["path"].to_pylist()] == ["0", "1", "2", "3"]
    settings = json.loads(pq.read_schema(file).metadata[module.KEY])
    assert settings["sha256"] == writer.about()["sha256"]


def test_prompts_of_the_source_are_kept_if_asked(few: str, model: str) -> None:
    written, kept = (
        pq.read_table(caption([few], model, f"{keep}.parquet", keep=keep, max_bad=0.2, **FAST))["caption"].to_pylist()
        for keep in (False, True)
    )
    assert "a prompt" not in written
    assert kept == ["a prompt" if i % 2 else written[i] for i in range(4)] + ["a prompt", written[5]]


def test_too_many_images_without_a_caption_are_an_error(few: str, model: str) -> None:
    with pytest.raises(UserError, match="1 of 7 images gave no caption .*; --max_bad allows 1%"):
        caption([few], model, **FAST)
    assert not Path("captions.parquet").exists()
    caption([few], model, max_bad=0.2, **FAST)  # goes on with what was captioned
    assert not Path(".captions.parquet.parts").exists()


def test_what_was_begun_with_other_settings_is_not_mixed(
    few: str, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="--max_bad"):
        caption([few], model, "t.parquet", **FAST)
    with pytest.raises(UserError, match=r"\.t\.parquet\.parts holds .* other settings \(prompt\): finish it"):
        caption([few], model, "t.parquet", prompt="a", **FAST)
    shutil.copy("set/0.png", "set/4.png")  # mended, so its part is captioned anew
    caption([few], model, "t.parquet", **FAST)
    assert len(pq.read_table("t.parquet")) == 7
    calls: list[Any] = []
    monkeypatch.setattr(Captioner, "__call__", lambda self, images: calls.append(1) or ["other"] * len(images))
    caption([few], model, "t.parquet", **FAST)
    assert not calls  # it is there
    caption([few], model, "t.parquet", prompt="a", **FAST)
    assert set(pq.read_table("t.parquet")["caption"].to_pylist()) == {"other"}


def test_an_image_of_which_nothing_is_written_has_no_caption(
    few: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Captioner, "__call__", lambda self, images: [""] + ["a"] * (len(images) - 1))
    file = caption([few], model, max_bad=0.5, **FAST)
    assert len(pq.read_table(file)) == 5
    assert "the model wrote nothing" in file.with_suffix(".missing.csv").read_text()


def test_predict_reads_captions_of_a_list(faces: Path, model: str) -> None:
    """Images without labels, as predict takes them."""
    file = caption([str(faces / "real")], model, **FAST)
    rows = Paths([str(file)]).load("test")
    assert rows["caption"].to_pylist() == pq.read_table(file)["caption"].to_pylist()
    assert set(Paths([str(faces / "real")]).load("test")["caption"].to_pylist()) == {""}
