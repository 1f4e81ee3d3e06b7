"""Weights as other people save them: what does not fit is named, and what is no table says what it is."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from dfl.detectors import Classifier, FairDisentangle, PatchForensics
from dfl.detectors.untrained import untrained
from dfl.errors import UserError
from dfl.losses import SingleCenter
from dfl.networks.weights import read_state

SMALL: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False, "input_size": 32}


def a_file(outputs: int, change: Callable[[dict[str, Any]], Any] = lambda state: state) -> tuple[str, torch.nn.Module]:
    torch.manual_seed(7)
    model = timm.create_model("test_resnet", num_classes=outputs).eval()
    torch.save(change(model.state_dict()), "w.pth")
    return "w.pth", model


def prefixed(*names: str) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {".".join((*names, key)): value for key, value in state.items()}


WHOLE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plain": lambda state: state,
    "of DataParallel": prefixed("module"),
    "of torch.compile under DDP": prefixed("module", "_orig_mod"),
    "of a LightningModule": lambda state: {"state_dict": prefixed("model")(state), "epoch": 3, "hparams": {"lr": 0.1}},
    "with its optimizer": lambda state: {"model": state, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
    "under a name of its own": lambda state: {"ema": state, "step": 9},
    "twice wrapped": lambda state: {"net": {"params": state}},
}


@pytest.mark.parametrize("case", WHOLE)
def test_a_file_that_fits_whole_leaves_nothing_at_random(case: str) -> None:
    file, model = a_file(2, WHOLE[case])
    detector = Classifier(**SMALL, weights=file).eval()
    assert untrained(detector) == []
    image = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(detector(image)["logits"], model(detector.normalize(image)))


def test_safetensors_are_known_by_their_content() -> None:
    _, model = a_file(2)
    save_file(model.state_dict(), "pytorch_model.bin")
    assert untrained(Classifier(**SMALL, weights="pytorch_model.bin")) == []


@pytest.mark.parametrize("change", [WHOLE["plain"], WHOLE["with its optimizer"], WHOLE["of DataParallel"]])
def test_one_output_is_the_log_odds_of_fake(change: Any) -> None:
    file, model = a_file(1, change)
    with pytest.warns(UserWarning, match=r"w.pth has one output, which is taken as the log-odds of fake"):
        detector = Classifier(**SMALL, weights=file).eval()
    assert untrained(detector) == []
    image = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(detector(image)["logit"], model(detector.normalize(image))[:, 0])
    assert torch.equal(detector(image)["logits"][:, 0], torch.zeros(5))


@pytest.mark.parametrize("outputs", [3, 1000])
def test_a_head_of_other_classes_is_named(outputs: int) -> None:
    file, _ = a_file(outputs)
    assert untrained(Classifier(**SMALL, weights=file)) == ["network.fc.weight", "network.fc.bias"]


def test_a_file_without_a_head_and_a_start_at_random_are_named() -> None:
    file, _ = a_file(2, lambda state: {key: value for key, value in state.items() if not key.startswith("fc.")})
    assert untrained(Classifier(**SMALL, weights=file)) == ["network.fc.weight", "network.fc.bias"]
    detector = Classifier(**SMALL, criterion=SingleCenter())
    assert untrained(detector) == [n for n, _ in detector.named_parameters() if not n.startswith("criterion.")]


def test_other_detectors_name_what_a_file_lacks() -> None:
    own = PatchForensics(cut="block1").network.state_dict()
    torch.save({k: v for k, v in own.items() if not k.startswith("convout.")}, "p.pth")
    assert untrained(PatchForensics(cut="block1", weights="p.pth")) == [
        "network.convout.weight",
        "network.convout.bias",
    ]
    torch.save(own, "p.pth")
    assert untrained(PatchForensics(cut="block1", weights="p.pth")) == []
    fair = FairDisentangle(backbone="test_resnet", pretrained=False, input_size=64, dim=32)
    assert len(untrained(fair)) == len([n for n, _ in fair.named_parameters() if not n.startswith("criterion.")])


class Odd:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def write(name: str) -> None:
    model = timm.create_model("test_resnet", num_classes=2)
    made: dict[str, Callable[[], Any]] = {
        "whole.pth": lambda: torch.save(model, "whole.pth"),
        "inside.pth": lambda: torch.save({"state_dict": model.state_dict(), "args": Odd()}, "inside.pth"),
        "numpy.pth": lambda: torch.save({"fc.weight": np.zeros(3)}, "numpy.pth"),
        "pickle.pkl": lambda: Path("pickle.pkl").write_bytes(pickle.dumps({"a": 1})),
        "empty.pth": lambda: Path("empty.pth").touch(),
        "page.pth": lambda: Path("page.pth").write_text("\n <!DOCTYPE html><title>Sign in</title>"),
        "lfs.safetensors": lambda: Path("lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "cut.pth": lambda: (
            torch.save(model.state_dict(), "c"),
            Path("cut.pth").write_bytes(Path("c").read_bytes()[:999]),
        ),
        "two.pth": lambda: torch.save({"g": {"w": torch.ones(1)}, "d": {"w": torch.ones(1)}}, "two.pth"),
        "list.pth": lambda: torch.save([torch.ones(1)], "list.pth"),
        "bare.pth": lambda: torch.save({}, "bare.pth"),
        "script.pt": lambda: torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save("script.pt"),
        "meta.pth": lambda: torch.save(
            {"fc.bias": torch.ones(2), "fc.weight": torch.ones(2, device="meta")}, "meta.pth"
        ),
        "mixed.pth": lambda: torch.save({"w": torch.ones(1), "epoch": 3}, "mixed.pth"),
    }
    made[name]()


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("whole.pth", r"holds a pickled object \(timm.models.resnet.ResNet\)"),
        ("inside.pth", "holds a pickled object"),
        ("numpy.pth", r"holds a pickled object \(numpy"),
        ("pickle.pkl", "is cut off or damaged, or of another kind"),
        ("empty.pth", "is empty"),
        ("page.pth", "is a web page"),
        ("lfs.safetensors", "git lfs pull"),
        ("cut.pth", "is cut off or damaged"),
        ("two.pth", r"holds several tables \(g, d\)"),
        ("list.pth", "no table of tensors"),
        ("bare.pth", "no table of tensors"),
        ("mixed.pth", "no table of tensors"),
        ("script.pt", "is a TorchScript program, which is not run here; save its weights alone"),
        ("meta.pth", "holds the shape of fc.weight and no values: the network that was saved had none$"),
    ],
)
def test_what_is_no_table_of_weights_is_one_whole_sentence(name: str, says: str) -> None:
    write(name)
    with pytest.raises(UserError, match=says) as said:
        read_state(name)
    assert str(said.value).startswith(name)
    assert str(said.value).isprintable()
    assert "two options" not in str(said.value)
    assert not Path("ran").exists()
