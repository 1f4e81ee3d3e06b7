"""Captions by the three families: alone as in a batch, within their lengths, from a prompt; what is no captioner."""

import json
import re
import shutil
from pathlib import Path

import captioners
import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from dfl.errors import UserError
from dfl.networks.captioner import Captioner


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("captioners")


def images(n: int = 5) -> list[np.ndarray]:
    """Pictures of different sizes and colours."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 60 + 45 * i, (30 + 7 * i, 44, 3), dtype=np.uint8) for i in range(n)]


@pytest.mark.parametrize("kind", captioners.MAKERS)
def test_an_image_has_the_same_caption_alone_and_in_a_batch(kind: str, folders: Path) -> None:
    captioner = Captioner(str(captioners.captioner(folders, kind)), longest=12)
    together = captioner(images())
    assert together == [captioner([image])[0] for image in images()]
    assert len(set(together)) > 1  # the model looks at the picture
    assert together == Captioner(str(folders / kind), longest=12)(images())
    assert all(" ".join(text.split()) == text for text in together)


def test_a_folder_is_opened_without_bars(folders: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Captioner(str(captioners.captioner(folders)))
    assert "Loading" not in capfd.readouterr().err


def test_beam_search_is_that_of_transformers(folders: Path) -> None:
    """Of BLIP, with the tokens that it began with and those of the end left out."""
    captioner = Captioner(str(captioners.captioner(folders)), beams=2, shortest=3, longest=4)
    pixels = captioner.view(images=images(2), return_tensors="pt")["pixel_values"]
    ids = captioner.model.generate(pixels, num_beams=2, do_sample=False, min_new_tokens=3, max_new_tokens=4)
    assert captioner(images(2)) == [captioner.tokenizer.decode(row[1:], skip_special_tokens=True) for row in ids]
    assert ids.shape[1] <= 5


@pytest.mark.parametrize("kind", ["blip", "git"])
def test_a_prompt_is_gone_on_from_and_left_out(kind: str, folders: Path) -> None:
    """What comes after the prompt is what is most likely after it."""
    captioner = Captioner(str(captioners.captioner(folders, kind)), 1, 1, 1, prompt="a b")
    start = captioner.tokenizer("a b")["input_ids"][:-1]
    if kind == "blip":
        start[0] = captioner.model.config.text_config.bos_token_id
    image = images(1)
    pixels = captioner.view(images=image, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        logits = captioner.model(pixel_values=pixels, input_ids=torch.tensor([start])).logits[0, -1]
    logits[captioner.tokenizer.sep_token_id] = -torch.inf  # one token at least
    assert captioner(image) == [captioner.tokenizer.decode([int(logits.argmax())], skip_special_tokens=True)]


def test_about_tells_weights_and_search_apart(folders: Path) -> None:
    name = str(captioners.captioner(folders))
    about = Captioner(name).about()
    assert about == Captioner(name).about()
    assert json.loads(json.dumps(about)) == about
    assert about != Captioner(name, beams=4).about()
    other = Captioner(name)
    with torch.no_grad():
        next(other.model.parameters()).add_(1)
    assert about["sha256"] != other.about()["sha256"]


def without(folder: Path, place: Path, *names: str) -> str:
    """Return a copy of a folder without some files."""
    shutil.copytree(folder, place)
    for name in names:
        (place / name).unlink()
    return str(place)


def test_what_is_no_captioner_is_one_line(folders: Path, tmp_path: Path) -> None:
    blip = captioners.captioner(folders)
    CLIPModel(
        CLIPConfig(text_config=captioners.LAYER | {"vocab_size": 9}, vision_config=captioners.TOWER, projection_dim=8)
    ).save_pretrained(tmp_path / "clip")
    pickled = without(blip, tmp_path / "pickled", "model.safetensors")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"never opened")
    half = without(blip, tmp_path / "half")
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    config["vision_config"]["num_hidden_layers"] = 2
    (tmp_path / "half" / "config.json").write_text(json.dumps(config))
    (tmp_path / "empty").mkdir()
    cut = Path(without(blip, tmp_path / "cut"), "model.safetensors")
    cut.write_bytes(cut.read_bytes()[:-100])
    for name, line in {
        str(tmp_path / "clip"): "clip is of the type 'clip', and must be blip or git or vision-encoder-decoder",
        pickled: r"pickled holds pickled weights \(pytorch_model.bin\), which are not read.*save_pretrained",
        without(blip, tmp_path / "a", "vocab.txt", "tokenizer.json"): r"no tokenizer at '.*a'.*it has \d tokens, and",
        without(blip, tmp_path / "b", "preprocessor_config.json"): "it needs its preprocessor_config.json",
        half: r"half lacks \d+ weights of its BlipForConditionalGeneration, such as vision_model",
        str(tmp_path / "cut"): r"the weights of .*cut are damaged \(.*\): get them anew",
        str(tmp_path / "empty"): "no weights at '.*empty'",
        "nobody/nothing": "no weights at 'nobody/nothing', neither a folder nor on the hub or in its cache",
    }.items():
        with pytest.raises(UserError, match=line) as error:
            Captioner(name)
        assert str(error.value).startswith("--model: ")
        assert "\n" not in re.sub(r"\s+$", "", str(error.value))
    with pytest.raises(UserError, match="--prompt goes with blip and git"):
        Captioner(str(captioners.captioner(folders, "vit_gpt2")), prompt="a")
    with pytest.raises(UserError, match="0 <= shortest <= longest, not 3, 9, 4"):
        Captioner(str(blip), shortest=9, longest=4)
