"""DE-FAKE: embeddings are CLIP's own, captions are read and asked for, CLIP is never changed nor saved."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from test_contract import TINY_CLIP, batch_for, build, shrunk, trainer
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPVisionModelWithProjection

from dfl import detectors
from dfl.__main__ import main
from dfl.detectors import DeFake
from dfl.detectors.de_fake import letters
from dfl.errors import UserError
from dfl.features import FeatureStore
from dfl.networks import without_weights

CAPTIONS = ["a bear", "two men on a horse, who ride to the far end of the world", "", "a bear", "a boat", "a bow"]


def with_captions(detector: DeFake, captions: list[str] = CAPTIONS) -> dict[str, Any]:
    return batch_for(detector) | {"caption": captions}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random CLIP whose weights are large enough to tell inputs apart."""
    folder, tokenizer = tmp_path_factory.mktemp("clip"), letters()
    ids = {"vocab_size": len(tokenizer), "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513}
    torch.manual_seed(0)
    config = CLIPConfig(**{**TINY_CLIP, "text_config": TINY_CLIP["text_config"] | ids})
    config.vision_config.projection_dim = config.text_config.projection_dim = config.projection_dim
    model = CLIPModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_embeddings_are_clips_own_not_normalised(clip: str) -> None:
    """The text's without any padding: what comes after its end does not count, and long ones are cut."""
    detector = DeFake(clip).eval()
    batch = with_captions(detector)
    out = detector.outputs(batch | {"caption": [text or "-" for text in CAPTIONS]})
    own = CLIPModel.from_pretrained(clip).eval()
    mean, std = torch.tensor([0.48145466, 0.4578275, 0.40821073]), torch.tensor([0.26862954, 0.26130258, 0.27577711])
    pixels = (batch["image"] - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    image = own.get_image_features(pixels).pooler_output
    torch.testing.assert_close(out["feature"][:, :16], image)
    tokenizer = detector.tokenizer
    for row, text in zip(out["feature"], CAPTIONS, strict=True):
        ids = tokenizer(text or "-", return_tensors="pt", truncation=True, max_length=32)["input_ids"]
        torch.testing.assert_close(row[16:], own.get_text_features(ids).pooler_output[0])
    assert tokenizer(CAPTIONS[1])["input_ids"][31:] != [513]  # one is longer than CLIP reads
    assert (out["feature"].norm(dim=1) - 1).abs().min() > 0.1
    torch.testing.assert_close(out["logits"], detector.head(out["feature"]))
    torch.testing.assert_close(out["logit"], out["logits"][:, 1] - out["logits"][:, 0])


def test_its_head_has_the_published_size() -> None:
    """1024, 512, 256, 2, and one dropout, after the first layer; half the inputs without captions."""
    full = {
        "projection_dim": 512,
        "text_config": {"vocab_size": 514, "num_hidden_layers": 1},
        "vision_config": {"num_hidden_layers": 1},
    }
    with torch.device("meta"), without_weights():
        both, alone = (DeFake(clip_config=full, image_only=only) for only in (False, True))
    assert [type(layer).__name__ for layer in both.head] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]
    assert sum(p.numel() for p in both.head.parameters()) == 656_642
    assert sum(p.numel() for p in both.parameters() if p.requires_grad) == 656_642
    assert sum(p.numel() for p in alone.head.parameters()) == 656_642 - 512 * 512
    assert not hasattr(alone.clip, "text_model")


def loss_after(detector: DeFake, image: Tensor, caption: list[str], label: Tensor) -> float:
    """Train the head on one batch, and return the mean loss of it."""
    batch = batch_for(detector, len(label)) | {"image": image, "label": label, "caption": caption}
    feature = detector.eval().outputs(batch)["feature"]
    optimizer = torch.optim.Adam(detector.head.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        detector.loss({"logits": detector.head(feature)}, batch)["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        return float(detector.image_loss(detector.outputs(batch), batch).mean())


def test_it_learns_what_only_picture_and_words_together_tell(clip: str) -> None:
    """Fake is where they contradict each other: half of the bright and half of the dark pictures."""
    torch.manual_seed(0)
    dark, says_dark = (torch.arange(16) // k % 2 for k in (1, 2))
    image = torch.rand(3, 32, 32) * (1 - 0.8 * dark.view(-1, 1, 1, 1))
    caption = ["a dark room" if said else "a bright day" for said in says_dark]
    label = (dark != says_dark).long()
    small: dict[str, Any] = {"hidden": (64, 32), "dropout": 0.0}
    assert loss_after(DeFake(clip, **small), image, caption, label) < 0.05
    assert loss_after(DeFake(clip, image_only=True, **small), image, caption, label) > 0.6


def test_an_image_without_a_caption_is_one_line(clip: str) -> None:
    detector = DeFake(clip)
    with pytest.raises(UserError, match="DeFake reads images with captions, and 2.png has none: `dfl data caption"):
        detector.outputs(with_captions(detector))
    empty, alone = DeFake(clip, no_caption="empty").eval(), DeFake(clip, image_only=True).eval()
    out = empty.outputs(with_captions(empty))
    assert torch.equal(out["feature"][2], empty(with_captions(empty)["image"])["feature"][2])  # forward reads no words
    assert not torch.allclose(out["feature"][1, 16:], out["feature"][4, 16:])
    batch = with_captions(alone)
    torch.testing.assert_close(alone.outputs(batch)["feature"], out["feature"][:, :16])
    assert torch.equal(alone.outputs(batch)["logit"], alone(batch["image"])["logit"])


@pytest.mark.parametrize(
    ("normalisation", "training", "after"),
    [("official", "half", "clip"), ("half", "half", "half"), ("none", "none", "none"), ("clip", "clip", "clip")],
)
def test_normalisation_in_training_and_after_it(normalisation: Any, training: str, after: str, clip: str) -> None:
    scale = {"clip": 1 / 0.26862954, "half": 2.0, "none": 1.0}
    detector = DeFake(clip, normalisation=normalisation)
    seen: list[Tensor] = []
    detector.clip.vision_model.register_forward_pre_hook(
        lambda _, args, words: seen.append(words["pixel_values"]), with_kwargs=True
    )
    image = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    for mode, name in ((True, training), (False, after)):
        detector.train(mode)(image)
        assert float(seen[-1][1, 0, 0, 0] - seen[-1][0, 0, 0, 0]) == pytest.approx(scale[name])


def test_clip_is_neither_tuned_nor_in_the_checkpoint(clip: str, tmp_path: Path) -> None:
    detector = DeFake(clip, hidden=(8, 4))
    assert not detector.clip.training
    assert detector.head.training
    run = trainer(tmp_path)
    run.strategy.connect(detector)
    run.save_checkpoint(tmp_path / "a.ckpt")
    held = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in held["state_dict"]} == {"head", "threshold"}
    with pytest.raises(UserError, match="not those frozen weights: give clip to dfl.detectors.load"):
        detectors.load(tmp_path / "a.ckpt")
    shutil.copytree(clip, tmp_path / "moved")
    again, batch = detectors.load(tmp_path / "a.ckpt", clip=str(tmp_path / "moved")), batch_for(detector)
    assert torch.equal(again(batch["image"])["logit"], detector.eval()(batch["image"])["logit"])
    other = CLIPModel.from_pretrained(clip)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    other.save_pretrained(tmp_path / "moved")
    with pytest.raises(UserError, match="this backbone is another one"):
        detectors.load(tmp_path / "a.ckpt", clip=str(tmp_path / "moved"))


def test_an_image_tower_alone_serves_without_captions(clip: str, tmp_path: Path) -> None:
    CLIPVisionModelWithProjection.from_pretrained(clip).save_pretrained(tmp_path / "tower")
    whole, tower = (DeFake(name, image_only=True).eval() for name in (clip, str(tmp_path / "tower")))
    image = batch_for(whole)["image"]
    assert torch.equal(whole(image)["feature"], tower(image)["feature"])
    with pytest.raises(UserError, match="model.clip: .*tower is of the type 'clip_vision_model', and must be clip$"):
        DeFake(str(tmp_path / "tower"))


def test_what_is_no_clip_is_one_line(clip: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model.clip names no model and model.clip_config does not describe one"):
        DeFake(None)
    with pytest.raises(UserError, match="model.clip_config makes no CLIP: vocab_size is at least 514"):
        DeFake(None, TINY_CLIP | {"text_config": {"vocab_size": 9}})
    with pytest.raises(UserError, match="model.input_size is 40, and this CLIP sees 32: leave it out"):
        DeFake(clip, input_size=40)
    with pytest.raises(UserError, match="model.clip: no weights at 'nobody/clip'"):
        DeFake("nobody/clip")
    shutil.copytree(clip, tmp_path / "mute")
    (tmp_path / "mute" / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="model.clip: no tokenizer at .*mute"):
        DeFake(str(tmp_path / "mute"))
    held = {"class_path": "dfl.detectors.DeFake"}
    torch.save({"dfl": held, "hyper_parameters": {"clip_config": {"auto_map": "x"}}, "state_dict": {}}, "b.ckpt")
    with pytest.raises(UserError, match="not to be trusted: .*clip_config has the key 'auto_map'"):
        detectors.load("b.ckpt")


def test_predict_takes_the_captions_of_a_list_and_asks_for_them(
    faces: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["path,label,split,caption"]
    for i in range(20):
        split = ("train", "train", "val", "test")[i // 2 % 4]
        lines.append(f"{faces}/{'fake' if i % 2 else 'real'}/{i:02d}.png,{i % 2},{split},number {i}")
    Path("list.csv").write_text("\n".join(lines))
    words = [word for word in shrunk("DeFake") if "no_caption" not in word]
    data = ["--data.train.file=list.csv", "--data.batch_size=4", "--data.num_workers=0"]
    main(["fit", "--config=de_fake.yaml", "--config=trainer/smoke.yaml", *data, *words, "--name=a"])
    predict = ["--name=a", "--ckpt_path=last", "--config=trainer/smoke.yaml", "--output=scores.csv"]
    main(["predict", "list.csv", *predict])
    assert len(Path("scores.csv").read_text().splitlines()) == 21
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["predict", str(faces / "real"), *predict])
    assert "00.png has none: `dfl data caption SOURCE" in capsys.readouterr().err


def test_words_of_another_image_give_another_score() -> None:
    detector = build("DeFake").eval()
    assert isinstance(detector, DeFake)
    batch = with_captions(detector)
    first, other = (detector.outputs(batch | {"caption": c})["logit"] for c in (CAPTIONS, CAPTIONS[::-1]))
    assert not torch.equal(first, other)


def test_embeddings_of_images_are_taken_from_a_store(
    clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = DeFake(clip, no_caption="empty").eval(), DeFake(clip, no_caption="empty").eval()
    for detector in (first, second):
        detector._store = FeatureStore(tmp_path, detector.stored_weights, detector.stored_settings())
    batch = with_captions(first)
    feature = first.outputs(batch)["feature"]
    first.teardown("fit")
    monkeypatch.setattr(second, "_embedded", lambda values: pytest.fail("an image was encoded again"))
    assert torch.equal(second.outputs(batch)["feature"], feature)
    monkeypatch.undo()
    with torch.no_grad():
        second.clip.visual_projection.weight.mul_(2)  # another encoder, so other keys
    assert torch.equal(second.outputs(batch)["feature"][:, :16], 2 * feature[:, :16])
