"""FerretNet: the official residual, names and shapes, so that published files load; the median against sorting."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dfl.detectors import Classifier
from dfl.networks.median import median_3x3

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "ferretnet.npz")


@pytest.mark.parametrize("centre", [None, 0.0])
@pytest.mark.parametrize("padding", ["constant", "replicate"])
def test_the_median_is_the_fifth_of_nine(centre: float | None, padding: str) -> None:
    image = torch.randn(2, 3, 7, 9).mul(2).round()  # with equal values
    windows = F.unfold(F.pad(image, (1, 1, 1, 1), mode=padding), 3).view(2, 3, 9, 7, 9)
    if centre is not None:
        windows[:, :, 4] = centre
    assert torch.equal(median_3x3(image, centre, padding), windows.sort(2).values[:, :, 4])


def test_the_residual_is_the_official_one() -> None:
    detector = Classifier("ferretnet_s", pretrained=False)
    image = detector.normalize(torch.from_numpy(GOLDEN["input"])[None] / 255)
    residual = (image - median_3x3(image, 0.0))[0, :, ::3, ::3]
    np.testing.assert_allclose(residual, GOLDEN["residual"], atol=1e-6)


def test_names_and_shapes_are_those_of_the_public_file() -> None:
    state = timm.create_model("ferretnet_s").state_dict()
    assert [*state] == [key.decode() for key in GOLDEN["state_keys"]]
    assert [str(tuple(value.shape)) for value in state.values()] == [s.decode() for s in GOLDEN["state_shapes"]]


@pytest.mark.parametrize(("name", "parameters"), [("ferretnet_s", 126_289), ("ferretnet_b", 1_057_777)])
def test_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in timm.create_model(name).parameters()) == parameters


def test_a_published_file_scores_as_it_is(tmp_path: Path) -> None:
    """One output in the file: the same log-odds with one output and with two."""
    torch.manual_seed(1)
    theirs = timm.create_model("ferretnet_s").eval()
    save_file(theirs.state_dict(), tmp_path / "s.safetensors")
    image = torch.rand(2, 3, 40, 40)
    one = Classifier("ferretnet_s", weights=str(tmp_path / "s.safetensors"), timm_args={"num_classes": 1}).eval()
    with pytest.warns(UserWarning, match="1 is fake"):
        two = Classifier("ferretnet_s", weights=str(tmp_path / "s.safetensors")).eval()
    expected = theirs(one.normalize(image))[:, 0]
    assert torch.equal(one(image)["logit"], expected)
    torch.testing.assert_close(two(image)["logit"], expected, atol=1e-5, rtol=0)


def test_flat_pictures_of_the_mean_colour_have_no_residual() -> None:
    """0 is the mean colour: a brighter flat picture has none either, but at its corners, where five of nine are 0."""
    assert median_3x3(torch.zeros(1, 3, 6, 6), 0.0).abs().max() == 0
    residual = 1 - median_3x3(torch.ones(1, 1, 6, 6), 0.0)[0, 0]
    assert residual[1:-1, 1:-1].abs().max() == 0
    assert residual[0, 0] == residual[-1, -1] == 1


def test_dropout_is_before_the_last_layer_in_training_alone() -> None:
    network = timm.create_model("ferretnet_s")
    maps = torch.rand(1, 128, 4, 4)
    assert (network.train().forward_head(maps, pre_logits=True) == 0).any()
    torch.testing.assert_close(network.eval().forward_head(maps, pre_logits=True), maps.mean((2, 3)))
