"""MesoNet: Keras's files, written here in its layout, give what Keras's layers give; the PyTorch port is refused."""

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from keras_layers import Tables, probability_of_real

from dfl.detectors import Classifier
from dfl.detectors.untrained import untrained
from dfl.errors import UserError
from dfl.networks import create_backbone

#: First number of the convolutions, those of BatchNorm and of the linear layers, and kernels (rows, in, out) in order.
SMALL, BRANCHES = 32, [(1, 1), (1, 1), (3, 1), (1, 1), (3, 2), (1, 1), (3, 3)]
MESO4 = [(3, 3, 8), (5, 8, 8), (5, 8, 16), (5, 16, 16)]


def inception(channels: int, a: int, b: int, c: int, d: int) -> list[tuple[int, int, int]]:
    return [(1, channels, a), *(k for w in (b, c, d) for k in ((1, channels, w), (3, w, w)))]


INCEPTION = [*inception(3, 1, 4, 4, 2), *inception(11, 2, 4, 4, 2), (5, 12, 16), (5, 16, 16)]
CASES = {"meso4": (MESO4, (8, 8, 16, 16), 5), "mesoinception4": (INCEPTION, (11, 12, 16, 16), 1)}


def tables(name: str) -> Tables:
    """Return random layers as Keras numbers them, for images of 32 px."""
    kernels, widths, first = CASES[name]
    rng = np.random.default_rng(0)
    made: Tables = {}
    for i, (size, inner, outer) in enumerate(kernels, first):
        scale = (2 / (size * size * inner)) ** 0.5
        kernel = rng.normal(0, scale, (size, size, inner, outer))
        made[f"conv2d_{i}"] = {"kernel": kernel, "bias": rng.normal(0, 0.1, outer)}
    for i, width in enumerate(widths, first):
        made[f"batch_normalization_{i}"] = {
            **{"gamma": rng.uniform(0.5, 1.5, width), "beta": rng.normal(0, 0.1, width)},
            **{"moving_mean": rng.normal(0, 0.1, width), "moving_variance": rng.uniform(0.5, 1.5, width)},
        }
    for i, shape in enumerate([(16, 16), (16, 1)], 3 if name == "meso4" else 1):
        made[f"dense_{i}"] = {"kernel": rng.normal(0, 0.3, shape), "bias": rng.normal(0, 0.1, shape[1])}
    return {layer: {k: v.astype(np.float32) for k, v in words.items()} for layer, words in made.items()}


def write(path: Path, made: Tables) -> str:
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in sorted(made)]
        for layer, words in made.items():  # HDF5 gives them in the order of their names: conv2d_10 before conv2d_9
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{word}:0".encode() for word in words]
            for word, value in words.items():
                group.create_dataset(f"{layer}/{word}:0", data=value)
        file.create_group("dropout_1").attrs["weight_names"] = np.zeros(0)
    return str(path)


@pytest.mark.parametrize("name", CASES)
def test_a_keras_file_gives_kerass_probability_turned_round(name: str, tmp_path: Path) -> None:
    made = tables(name)
    words: dict[str, Any] = {"backbone": name, "weights": write(tmp_path / "Meso.h5", made), "input_size": SMALL}
    detector = Classifier(**words, timm_args={"num_classes": 1}).eval()
    assert untrained(detector) == []
    images = np.random.default_rng(1).random((3, SMALL, SMALL, 3)).astype(np.float32)
    with torch.no_grad():
        fake = detector(torch.from_numpy(images).permute(0, 3, 1, 2))["logit"].sigmoid()
    real = [probability_of_real(name, made, image) for image in images]
    assert np.ptp(real) > 1e-3
    np.testing.assert_allclose(1 - fake.numpy(), real, atol=1e-5)


def test_features_are_flattened_row_by_row_with_channels_last(tmp_path: Path) -> None:
    model = create_backbone("meso4", pretrained=False, img_size=64).eval()
    maps = torch.rand(1, 16, 2, 2)
    want = model.activation(model.fc1(torch.from_numpy(maps[0].permute(1, 2, 0).numpy().reshape(1, -1))))
    torch.testing.assert_close(model.forward_head(maps, pre_logits=True), want)


def test_the_port_is_named_and_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(8, 3, 3, 3), "bn1.weight": torch.ones(8)}, tmp_path / "best.pth")
    with pytest.raises(UserError, match=r"best.pth holds a PyTorch port of MesoNet .* no biases"):
        create_backbone("meso4", weights=str(tmp_path / "best.pth"))


def test_one_kind_of_net_does_not_open_as_the_other(tmp_path: Path) -> None:
    file = write(tmp_path / "MesoInception_DF.h5", tables("mesoinception4"))
    with pytest.raises(UserError, match=r"MesoInception_DF.h5 does not fit the network: .* of another shape"):
        create_backbone("meso4", weights=file, img_size=SMALL)


def test_a_layer_that_it_has_not_is_named(tmp_path: Path) -> None:
    made = tables("meso4") | {"prelu_1": {"alpha": np.zeros(16, np.float32)}}
    with pytest.raises(UserError, match=r"1 unknown \(prelu_1.alpha\)"):
        create_backbone("meso4", weights=write(tmp_path / "m.h5", made), img_size=SMALL)


@pytest.mark.parametrize("weights", ["broken.h5", "odd.h5"])
def test_a_damaged_or_lying_file_is_one_line(weights: str, tmp_path: Path) -> None:
    whole = Path(write(tmp_path / "whole.h5", tables("meso4"))).read_bytes()
    (tmp_path / "broken.h5").write_bytes(whole[:4000])
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file.create_dataset("conv2d_1/kernel:0", (10**6, 10**6), "f4", chunks=(100, 100))  # promised, never written
    with pytest.raises(UserError, match="cut off or damaged|larger than the file"):
        create_backbone("meso4", weights=str(tmp_path / weights))


def test_without_h5py_the_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "m.h5", tables("meso4"))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match=r"pip install 'dfl\[keras\]'"):
        create_backbone("meso4", weights=file)


def test_no_hub_is_asked_for_weights_that_none_has() -> None:
    with pytest.raises(UserError, match="no weights for meso4 on any hub: set model.weights to a file"):
        create_backbone("meso4", pretrained=True)


def test_images_smaller_than_its_poolings_are_one_line() -> None:
    with pytest.raises(UserError, match="shrinks images by 32"):
        create_backbone("meso4", pretrained=False, img_size=16)
