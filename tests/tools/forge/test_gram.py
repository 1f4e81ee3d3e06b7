"""Gram distances: golden numbers, thresholds from pairs of photos, and what is said of wrong files and numbers."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dfl.data.decoding import DecodeError
from dfl.errors import UserError
from dfl.networks import without_weights
from dfl.networks.vgg import Vgg
from dfl.tools.forge.gram import GramCheck

GOLDEN = np.load(Path(__file__).parents[2] / "golden" / "gram.npz")
TAPS = [f"relu{i}_1" for i in range(1, 6)]
#: Rows of the golden distances.
ROWS = {"paper": 0, "raw": 1, "hw": 2, "chw": 3}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The golden weights, in a file."""
    with without_weights():
        vgg = Vgg(None)
    convolutions = [layer for layer in vgg.features if isinstance(layer, torch.nn.Conv2d)]
    sums = []
    for k, layer in enumerate(convolutions):
        g = torch.Generator().manual_seed(1000 + k)
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=g) * (2 / (9 * layer.in_channels)) ** 0.5)
        layer.bias.copy_(0.1 * torch.randn(layer.bias.shape, generator=g))
        sums.append(float(layer.weight.double().abs().sum()))
    np.testing.assert_allclose(sums, GOLDEN["weights_sum_abs"][: len(sums)], rtol=1e-6)
    file = tmp_path_factory.mktemp("vgg") / "vgg19.safetensors"
    save_file(vgg.state_dict(), file)
    return str(file)


@pytest.fixture(scope="module")
def check(weights: str) -> GramCheck:
    one = GramCheck(weights, size=48)
    one.open("cpu", torch.float32)
    return one


@pytest.mark.parametrize(
    ("one", "other", "golden", "norms"),
    [
        ("64x64_a", "64x64_b", "64x64_l1", [*ROWS]),
        ("64x64_a", "64x64_c", "64x64_l1_near", ["chw"]),
        ("96x80_a", "96x80_b", "96x80_l1", ["chw"]),
        ("96x80_a", "96x80_c", "96x80_l1_near", ["chw"]),
    ],
)
def test_distances_are_the_golden_ones(
    check: GramCheck, monkeypatch: pytest.MonkeyPatch, one: str, other: str, golden: str, norms: list[str]
) -> None:
    for norm in norms:
        monkeypatch.setattr(check, "norm", norm)
        found = check.between(check.grams(GOLDEN[one]), check.grams(GOLDEN[other]))
        assert found == pytest.approx(GOLDEN[golden][ROWS[norm]].sum(), rel=1e-5)


@pytest.mark.parametrize("image", ["64x64_a", "96x80_a"])
def test_gram_matrices_are_the_golden_ones(check: GramCheck, monkeypatch: pytest.MonkeyPatch, image: str) -> None:
    monkeypatch.setattr(check, "norm", "raw")
    for tap, gram in zip(TAPS, check.grams(GOLDEN[image]), strict=True):
        found = [gram.trace(), gram.double().sum(), gram.double().norm()]
        np.testing.assert_allclose([float(one) for one in found], GOLDEN[f"{image}_{tap}_trace_sum_fro"], rtol=1e-5)
        stride = max(1, len(gram) // len(GOLDEN[f"{image}_{tap}"]))
        golden = GOLDEN[f"{image}_{tap}"]
        np.testing.assert_allclose(gram[::stride, ::stride], golden, rtol=1e-5, atol=1e-6 * golden.max())


def test_distances_are_those_by_the_weights_that_torchvision_draws(
    check: GramCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the state of chance in which it is after building VGG19, whose largest layers are not needed."""
    with without_weights():
        vgg = Vgg(None)
    with torch.random.fork_rng():
        torch.set_rng_state(torch.from_numpy(GOLDEN["tv_state"]))
        for layer in vgg.features:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                torch.nn.init.zeros_(layer.bias)
    assert np.array_equal(vgg.features[0].weight[:4], GOLDEN["tv_weight0"])
    monkeypatch.setattr(check, "network", vgg)
    for norm, row in ROWS.items():
        monkeypatch.setattr(check, "norm", norm)
        found = check.between(check.grams(GOLDEN["64x64_a"]), check.grams(GOLDEN["64x64_b"]))
        assert found == pytest.approx(GOLDEN["tv_l1"][row].sum(), rel=1e-5)


def photos_of(numbers: Sequence[int]) -> list[Callable[[], np.ndarray]]:
    return [partial(GOLDEN["cal_images"].__getitem__, i) for i in numbers]


def test_the_threshold_is_a_quantile_of_pairs_of_photos(check: GramCheck) -> None:
    record = check.calibrate(photos_of(range(12)), [""] * 12, seed=0)
    quantiles = dict(GOLDEN["cal_quantiles"].tolist())
    assert check.threshold == record["threshold"] == pytest.approx(quantiles[0.5], rel=1e-5)
    assert record["n"] == 66
    assert {q: record["quantiles"][str(q)] for q in quantiles} == pytest.approx(quantiles, rel=1e-5)


def test_pairs_are_of_different_people_and_of_files_that_open(check: GramCheck) -> None:
    def cut_off() -> np.ndarray:
        raise DecodeError("0.png", "it is cut off")

    every = dict(zip(map(tuple, GOLDEN["cal_pairs"].tolist()), GOLDEN["cal_distances_chw_sum"], strict=True))
    expected = [every[1, 3], every[2, 3]]  # 1 and 2 are one person
    photos = [cut_off, *photos_of([1, 2, 3])]
    assert check.strangers(photos, ["", "x", "x", "y"], seed=3) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(UserError, match="of its 2 no two can be compared; one .*cut off; give a thr"):
        check.calibrate(photos[:2], ["x", "y"], seed=0)
    for people in ([], ["x"], ["x", "x"]):
        with pytest.raises(UserError, match="no two can be compared; give a threshold"):
            check.check_photos(photos_of(range(len(people))), people)
    for people in (["x", "y"], ["", ""], ["", "x"], ["x", ""]):
        check.check_photos([*photos_of([1, 2]), partial(pytest.fail, "two are enough")], [*people, ""])
    with pytest.raises(UserError, match="of its 3 no two can be compared; one .*cut off; give a thr"):
        check.check_photos([cut_off, *photos_of([1, 2])], ["x", "y", "y"])


def test_pictures_of_any_size_are_compared_at_one(check: GramCheck) -> None:
    a, b = GOLDEN["96x80_a"], GOLDEN["64x64_b"]
    together = check([a, b], [b, b])
    assert together[1] == 0 < together[0]
    assert check([a], [b]) == together[:1]  # alone and in a batch, to the bit


def test_vgg16_of_caffe_sees_blue_first(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with without_weights():
        vgg = Vgg(None, 16)
    torch.save(vgg.state_dict(), tmp_path / "vgg16.pth")
    check = GramCheck(str(tmp_path / "vgg16.pth"), "vgg16_bgr", norm="raw")
    check.open("cpu", torch.float32)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    bgr = picture[..., ::-1].astype(np.float32) - np.float32([104.007, 116.669, 122.679])
    features = vgg(torch.from_numpy(bgr).permute(2, 0, 1)[None])[2][0].flatten(1)
    torch.testing.assert_close(check.grams(picture)[2], features @ features.T, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"weights": "none.pth"}, "no weights file 'none.pth' .*; set weights to"),
        ({"quantile": 1.0}, "quantile within 0 and 1"),
    ],
)
def test_what_is_wrong_is_one_line(words: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        GramCheck(**{"weights": "vgg19.pth"} | words)
