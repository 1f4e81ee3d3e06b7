"""Ensemble: what members said alone is what it combines, its checkpoint is whole, and brings no code and no file."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dfl import detectors
from dfl.__main__ import main
from dfl.cli.checkpoints import read
from dfl.detectors import Classifier, Detector, Ensemble, Tuned
from dfl.detectors.untrained import note
from dfl.errors import UserError


def save(detector: Detector, path: str) -> dict[str, Any]:
    """Write a checkpoint of a detector, and return what it holds."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(detector)
    trainer.save_checkpoint(path)
    return torch.load(path, weights_only=True)


@pytest.fixture
def members() -> list[Detector]:
    """Two trained detectors of other sizes and normalisations, the runs a and b."""
    a = Classifier("test_resnet", pretrained=False, input_size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5)).eval()
    b = Tuned("test_vit", pretrained=False, input_size=48, tune="layernorm").eval()
    save(a, "checkpoints/a/best.ckpt")
    save(b, "checkpoints/b/last.ckpt")
    return [a, b]


IMAGE = torch.rand(5, 3, 48, 48, generator=torch.Generator().manual_seed(0))


def alone(members: list[Detector], smaller: str) -> torch.Tensor:
    seen = (
        IMAGE[..., 8:40, 8:40] if smaller == "crop" else F.interpolate(IMAGE, (32, 32), mode="bilinear", antialias=True)
    )
    with torch.no_grad():
        return torch.stack([members[0](seen)["logit"], members[1](IMAGE)["logit"]], 1)


@pytest.mark.parametrize("smaller", ["resize", "crop"])
def test_it_combines_what_members_say_alone(members: list[Detector], smaller: Any) -> None:
    mean = Ensemble(["a", "b/last"], smaller=smaller)
    assert mean.input_size == 48
    said = alone(members, smaller)
    assert torch.equal(mean(IMAGE)["feature"], said)
    assert torch.equal(mean(IMAGE)["logit"], said.mean(1))
    largest = Ensemble(["checkpoints/a/best.ckpt", {"path": "b/last"}], "max", smaller)
    assert torch.equal(largest(IMAGE)["logit"], said.max(1).values)
    assert str(note(mean, "test")).startswith("scoring with")  # nothing of it is untrained
    assert note(Ensemble(["a", "b/last"], "logistic"), "test") != note(mean, "test")
    assert not [name for name, p in mean.named_parameters() if p.requires_grad]


def test_its_checkpoint_is_whole_without_the_members(members: list[Detector]) -> None:
    held = save(Ensemble(["a", "b/last"]), "both.ckpt")
    assert [json.loads(one)["class_path"] for one in held["hyper_parameters"]["members"]] == ["Classifier", "Tuned"]
    shutil.rmtree("checkpoints")
    again = detectors.load("both.ckpt")
    assert torch.equal(again(IMAGE)["feature"], alone(members, "resize"))
    assert read(Path("both.ckpt"), Path(".")).all_weights


def test_frozen_weights_that_a_member_leaves_out_are_kept() -> None:
    save_file(timm.create_model("test_vit").state_dict(), "tower.safetensors")
    tuned = Tuned("test_vit", weights="tower.safetensors", tune="svd").eval()
    save(tuned, "tuned.ckpt")
    with pytest.raises(UserError, match="tuned.ckpt holds what was trained on top of .* give weights"):
        Ensemble(["tuned.ckpt", "tuned.ckpt"])
    member = {"path": "tuned.ckpt", "weights": "tower.safetensors"}
    save(Ensemble([member, member]), "both.ckpt")
    Path("tower.safetensors").unlink()
    image = torch.rand(2, 3, tuned.input_size, tuned.input_size)
    assert torch.equal(detectors.load("both.ckpt")(image)["feature"][:, 0], tuned(image)["logit"])


# what a stranger's file may say


def plant(**values: Any) -> Callable[[list[Any]], Any]:
    return lambda members: members[0].update(values)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (plant(class_path="os.system"), "'os.system', and it must be one of"),
        (plant(class_path="evil.Classifier"), "'evil.Classifier', and it must be one of"),
        (plant(class_path="Ensemble"), "'Ensemble', and it must be one of"),
        (plant(class_path=7), "is 7, and it must"),
        (plant(init_args={"optimizer": {"class_path": "evil.Opt"}}), "optimizer is a dict"),
        (plant(init_args={"weights": "evil.pth"}), "gives weights of Classifier, which a file cannot"),
        (plant(init_args={"backbone": "http://127.0.0.1/x"}), "backbone is"),
        (plant(init_args={"criterion": {"class_path": "evil.Loss"}}), "criterion is"),
        (plant(init_args={"timm_args": {"checkpoint_path": "evil.pth"}}), "'checkpoint_path', which a file"),
        (plant(init_args=[1]), "are a list"),
        (plant(init_args={"backbone": "resnet50"}), "does not fit"),
        (lambda members: members.__setitem__(0, "a"), "is 'a', and it must be one of"),
        (lambda members: members.__setitem__(0, {"path": "a"}), "and it must be one of"),
        (lambda members: members.__setitem__(0, "{oops"), "is '{oops', and it must be one of"),
        (lambda members: members.pop(), "must be a list of 2 to 64"),
        (lambda members: members.extend(members * 40), "must be a list of 2 to 64"),
    ],
)
def test_a_member_is_a_class_of_dfl_with_plain_values(
    members: list[Detector], change: Callable[[list[Any]], Any], says: str
) -> None:
    held = copy.deepcopy(save(Ensemble(["a", "b/last"]), "both.ckpt"))
    planted = [json.loads(one) for one in held["hyper_parameters"]["members"]]
    change(planted)
    held["hyper_parameters"]["members"] = [
        json.dumps(one) if isinstance(one, dict) and "path" not in one else one for one in planted
    ]
    torch.save(held, "planted.ckpt")
    for opened in (lambda: detectors.load("planted.ckpt"), lambda: read(Path("planted.ckpt"), Path("."))):
        with pytest.raises(UserError, match=says) as error:
            opened()
        assert str(error.value).startswith("planted.ckpt")
        assert str(error.value).isprintable()


class Mine(Classifier):
    """A class of a user's own."""


def test_what_cannot_be_a_member_is_one_line(members: list[Detector]) -> None:
    save(Mine("test_resnet", pretrained=False, input_size=32), "mine.ckpt")
    save(Ensemble(["a", "b/last"]), "both.ckpt")
    for words, says in (
        (["a"], "has 2 to 64 members, not 1"),
        (["a", "none"], "--model.members none: no such file in .* and no such run"),
        (["a", "http://x/y.ckpt"], "not the URL"),
        (["a", "mine.ckpt"], "mine.ckpt cannot be a member: Mine is none of"),
        (["a", "both.ckpt"], "both.ckpt cannot be a member: Ensemble is none of"),
    ):
        with pytest.raises(UserError, match=says):
            Ensemble(words)


# the command line


def test_fit_weighs_members_on_validation_images(place: Path, faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(Classifier("test_resnet", pretrained=False, input_size=48), "checkpoints/other/best.ckpt")
    data = ["--data=data/folder.yaml", f"--data.train.root={faces}", "--data.batch_size=4", "--data.num_workers=0"]
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--name=both"]
    cli = main(["fit", "--model=Ensemble", "--model.members=[tiny, other]", "--model.combine=logistic", *data, *quiet])
    assert cli.trainer.global_step == 0
    label, logit = (cli.model.metrics["val"].rows("same")[name] for name in ("label", "score"))
    assert len(label) == 6  # all of them were measured, after the fit
    assert float(cli.model.head.weight.detach().abs().sum()) > 0
    assert cli.model.results["val"]["same"]["auroc"] == 1
    weights = {name: value.clone() for name, value in cli.model.state_dict().items()}
    shutil.rmtree("checkpoints/tiny")
    shutil.rmtree("checkpoints/other")
    cli = main(["validate", *data, *quiet, "--ckpt_path=best"])
    rows = cli.model.metrics["val"].rows("same")
    torch.testing.assert_close(rows["score"], logit)
    assert all(torch.equal(value, cli.model.state_dict()[name]) for name, value in weights.items())
    main(["predict", str(faces / "real"), "--name=both", "--output=scores.csv", *quiet[:2]])
    assert len(Path("scores.csv").read_text().splitlines()) == 31
