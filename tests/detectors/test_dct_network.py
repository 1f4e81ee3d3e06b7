"""Networks on spectra: the official small CNN, spectra of other code, parameter counts, where z-scores come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from scipy.fft import dctn

from dfl.detectors import Dct, DctNetwork
from dfl.errors import UserError
from dfl.networks import LogDct, ZScore
from dfl.networks.spectrum import denoised

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "spectra.npz")
IMAGE = np.load(Path(__file__).parents[1] / "golden" / "dct.npz")["image"]


def small(**words: Any) -> DctNetwork:
    return DctNetwork(**{"input_size": 16} | words)


def images(n: int = 6, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), generator=generator) / 255


def test_the_cnn_is_the_official_one() -> None:
    network = timm.create_model("frank_cnn", img_size=32, num_classes=5)
    convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        for i, layer in enumerate(convolutions):
            layer.weight.copy_(torch.from_numpy(GOLDEN[f"cnn.L{i}_Conv2D_kernel"]).permute(3, 2, 0, 1))
            layer.bias.copy_(torch.from_numpy(GOLDEN[f"cnn.L{i}_bias"]))
        dense = torch.from_numpy(GOLDEN["cnn.L4_Dense_kernel"]).view(8, 8, 32, 5)  # Keras has channels last
        network.head.weight.copy_(dense.permute(3, 2, 0, 1).flatten(1))
        network.head.bias.copy_(torch.from_numpy(GOLDEN["cnn.L4_bias"]))
        found = network(torch.from_numpy(GOLDEN["cnn.x"]).permute(0, 3, 1, 2)).softmax(1)
    np.testing.assert_allclose(found, GOLDEN["cnn.softmax"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "words", "parameters"),
    [
        ("frank_cnn", {"num_classes": 5}, 169_961),
        ("frank_cnn", {"num_classes": 1}, 38_885),
        ("spectrum_mlp", {"img_size": 512}, 512 * (512**2 + 1) + 32 * 513 + 2 * 33),
        ("spectrum_mlp", {"img_size": 512, "in_chans": 2}, 512 * (2 * 512**2 + 1) + 32 * 513 + 2 * 33),
    ],
)
def test_parameters(name: str, words: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in timm.create_model(name, **words).parameters()) == parameters


def test_spectra_of_the_review_and_their_z_scores() -> None:
    """Grey pictures that are no squares, values -1 ... 1."""
    grey = torch.from_numpy(GOLDEN["grey"])[:, None].expand(-1, 3, -1, -1) / 255
    spectrum = LogDct((48, 64), "grey", "signed")
    maps = spectrum(grey)
    found = maps.flatten(1)[:, ::5]
    clear = GOLDEN["review_log"] > np.log(1e-2)  # that code goes through float32
    np.testing.assert_allclose(found[clear], GOLDEN["review_log"][clear], atol=1e-5)
    zscore = ZScore(*spectrum.shape)
    zscore.fit(maps.split(4))
    np.testing.assert_allclose(
        zscore(maps).flatten(1)[:, ::5][:, clear.all(0)], GOLDEN["review_norm"][:, clear.all(0)], atol=1e-3
    )


def test_spectra_of_the_deployed_layer() -> None:
    """TensorFlow's float32 path of the official code, with another epsilon."""
    image = torch.from_numpy(IMAGE).permute(0, 3, 1, 2) / 255
    found = LogDct(64, epsilon=1e-13)(image).permute(0, 2, 3, 1)[:, ::5, ::5]
    clear = np.abs(GOLDEN["deployed_dct"]) > 0.1
    np.testing.assert_allclose(found[clear], GOLDEN["deployed_log"][clear], atol=1e-3)


def test_values_change_the_constant_coefficient_alone() -> None:
    image = images()
    bytes_, signed = LogDct(16)(image).double(), LogDct(16, values="signed")(image).double()
    difference = bytes_ - signed
    rest = torch.ones(16, 16, dtype=torch.bool)
    rest[0, 0] = False
    clear = (bytes_ > np.log(1e-3)) & rest
    assert (difference[clear] - np.log(127.5)).abs().max() < 1e-5
    assert (difference[..., 0, 0] - np.log(127.5)).abs().min() > 0.1


def test_the_centre_of_larger_images_is_looked_at() -> None:
    image = images(2, 21)
    assert torch.equal(LogDct((8, 12))(image), LogDct((8, 12))(image[..., 6:14, 4:16]))
    with pytest.raises(UserError, match="of 32 x 32 px is wanted of images of 21 x 21 px"):
        LogDct(32)(image)


@pytest.mark.parametrize("how", ["median", "nlm"])
def test_noise_is_what_the_denoiser_takes_away(how: Any) -> None:
    image = images(2, 24)
    maps = LogDct(24, "grey", noise=how)(image)
    assert torch.equal(maps[:, :1], LogDct(24, "grey")(image))
    pixels = (255 * image.double()).round()
    residual = (pixels - denoised(pixels, how)).abs()
    assert torch.equal(residual, residual.round())
    assert residual.max() > 0
    torch.testing.assert_close(maps[:, 1:], LogDct(24, "grey")(residual / 255))
    flat = torch.full((1, 3, 24, 24), 77 / 255)
    assert torch.equal(denoised((255 * flat).double().round(), how), (255 * flat).double().round())


def test_dct_with_noise_has_twice_the_coefficients() -> None:
    detector = Dct(16, "grey", noise="median")
    assert detector.features(images()).shape == (6, 512)
    assert detector.head.weight.shape == (1, 512)
    expected = np.log(
        np.abs(dctn((255 * images()[0]).round().numpy().astype(float), axes=(1, 2), norm="ortho")) + 1e-12
    )
    np.testing.assert_allclose(Dct(16).features(images()[:1])[0], expected.ravel(), atol=1e-4)


def test_z_scores_are_those_of_training_images_and_in_the_state() -> None:
    detector, image = small(statistics=6), images()
    image[:, :, :, 8:] = image[:, :, :, :8].flip(3)  # symmetric, so that every other column has coefficients of 0
    asked = []

    def sample(n: int) -> torch.Tensor:
        asked.append(n)
        return image[:n]

    detector.observe(sample, lambda *_, **__: {})
    assert asked == [6]
    maps = LogDct(16)(image).double()
    scores = detector.zscore(maps).double()
    clear = (maps > np.log(1e-3)).all(0)
    assert clear.any()
    assert scores.mean(0)[clear].abs().max() < 1e-4
    assert (scores.std(0, correction=0)[clear] - 1).abs().max() < 1e-4
    assert scores.isfinite().all()
    assert {"zscore.mean", "zscore.std"} <= detector.state_dict().keys()


def test_forward_is_the_network_on_z_scored_maps() -> None:
    detector, image = small(timm_args={"num_classes": 1}).eval(), images()
    detector.observe(lambda n: image, lambda *_, **__: {})
    expected = detector.network(detector.zscore(LogDct(16)(image)))[:, 0]
    torch.testing.assert_close(detector(image)["logit"], expected)


def test_any_timm_network_takes_as_many_maps_as_there_are() -> None:
    detector = DctNetwork("test_resnet", colour="grey", noise="median", input_size=32)
    assert detector.hparams["timm_args"] is None
    assert detector(images(2, 32))["logit"].shape == (2,)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ({"timm_args": {"in_chans": 1}}, "in_chans is 1, and an image has 3 maps here"),
        ({"mean": (0.5, 0.5, 0.5)}, "leave model.mean out"),
        ({"std": (0.5, 0.5, 0.5)}, "leave model.std out"),
    ],
)
def test_contradictions_are_errors(words: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError, match=line):
        small(**words)
