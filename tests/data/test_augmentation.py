"""Augmentation: the official numbers, the parameters that the policies promise, and mistakes that name themselves."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

import dfl
from dfl.data.augmentation import build
from dfl.data.degradations import GaussianNoise, Jpeg, OpenCvBlur, PcaLighting, Rescale, SciPyBlur, WebP
from dfl.data.transforms import Transform
from dfl.errors import UserError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "cnndetection_augmentation.npz")
OURS = ["SciPyBlur", "OpenCvBlur", "Jpeg", "WebP", "Rescale", "PcaLighting", "GaussianNoise"]


def picture(height=120, width=150, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6, 3), dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.BICUBIC))


def off(image, other):
    return np.abs(image.astype(float) - other.astype(float))


# Wang et al. 2020


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_blur_of_cnndetections_code(sigma):
    """Bit for bit what its call gives here; the order in which a processor sums decides flat areas by a grey level."""
    out, theirs = SciPyBlur(uint8_passes=True).apply(GOLDEN["img"], sigma), GOLDEN["img"].copy()
    for channel in range(3):
        gaussian_filter(theirs[:, :, channel], output=theirs[:, :, channel], sigma=sigma)
    assert np.array_equal(out, theirs)
    assert off(out, GOLDEN[f"blur_{sigma}"]).max() <= 1
    assert off(out, GOLDEN[f"blur_{sigma}"]).mean() < 0.1


@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_blur_without_the_darkening(sigma):
    image = GOLDEN["img"]
    exact = GOLDEN[f"blur_float_{sigma}"]
    assert off(SciPyBlur().apply(image, sigma), exact).max() < 0.6  # rounding, and the golden file's float16
    assert 0.9 < (exact - GOLDEN[f"blur_{sigma}"].astype(float)).mean() < 1.1


@pytest.mark.parametrize("quality", [30, 75, 100])
def test_jpeg_of_cnndetection(quality):
    assert np.array_equal(Jpeg().apply(GOLDEN["img"], quality), GOLDEN[f"piljpg_{quality}"])


def test_chain_of_cnndetection():
    blur, jpeg = SciPyBlur(uint8_passes=True), Jpeg()
    for draws, want in zip(json.loads(str(GOLDEN["pipe_draws"])), GOLDEN["pipe"], strict=True):
        image = GOLDEN["img"]
        image = blur.apply(image, draws["sigma"]) if draws["u_blur"] < 0.5 else image
        image = jpeg.apply(image, draws["q"]) if draws["u_jpg"] < 0.5 else image
        assert off(image, want).mean() < 1e-2 * off(GOLDEN["img"], want).mean()


# albumentations 1, so DeepfakeBench


def test_blur_of_deepfakebench():
    image = picture()
    for size, sigma in [(3, 0.8), (5, 1.1), (7, 1.4)]:
        assert off(OpenCvBlur().apply(image, size), cv2.GaussianBlur(image, (size, size), sigma)).max() <= 2
    drawn = draws(OpenCvBlur([3, 7], p=1))
    assert {size: round(drawn.count(size) / len(drawn), 1) for size in sorted(set(drawn))} == {3: 0.2, 5: 0.4, 7: 0.4}


def test_lighting_shifts_all_pixels_along_the_axes():
    image = np.clip(picture(), 40, 210)
    shift = PcaLighting().apply(image, 0.5).astype(int) - image
    assert (np.ptp(shift.reshape(-1, 3), axis=0) == 0).all()
    variance, axes = np.linalg.eigh(np.cov(image.reshape(-1, 3).T / 255.0))
    want = 0.5 * 255 * (axes * np.where(axes.sum(0) < 0, -1, 1)) @ variance
    assert np.abs(shift[0, 0] - np.floor(want)).max() <= 1
    assert np.array_equal(PcaLighting().apply(image, 0.0), image)


def draws(step, count=4000):
    """The one parameter that a step draws, many times."""
    step.set_random_seed(0)
    return [next(iter(step.get_params().values())) for _ in range(count)]


def steps_of(policy):
    """Every step of a policy, those inside OneOf too, by class name."""
    found = {}
    for step in build(policy).compose.transforms:
        for inner in getattr(step, "transforms", [step]):
            found.setdefault(type(inner).__name__, inner)
    return found


def test_policies_draw_what_they_promise():
    jpeg = steps_of("dfb")["ImageCompression"]
    jpeg.set_random_seed(0)
    assert {jpeg.get_params()["quality"] for _ in range(4000)} == set(range(40, 101))
    assert set(draws(steps_of("cnnf")["Jpeg"])) == set(range(30, 101))
    sigmas = draws(steps_of("cnnf")["SciPyBlur"])
    assert 0 <= min(sigmas) < 0.01
    assert 2.99 < max(sigmas) <= 3
    assert 1.4 < np.mean(sigmas) < 1.6
    assert not steps_of("cnnf")["SciPyBlur"].uint8_passes
    assert steps_of("cnnf_official")["SciPyBlur"].uint8_passes
    rotate = steps_of("dfb")["Rotate"]
    assert (rotate.limit, rotate.border_mode, rotate.p) == ((-10, 10), cv2.BORDER_REFLECT_101, 0.5)
    assert steps_of("dfb").keys() - steps_of("dfb_norotate").keys() == {"Rotate"}
    for policy in ("cnnf", "cnnf_official", "dfb", "dfb_norotate"):
        assert all(step.p == 0.5 for step in build(policy).compose.transforms)


# our own steps


def test_rescale_and_webp_lose_detail_but_not_the_picture():
    image = picture()
    for out in (Rescale().apply(image, 0.5), WebP().apply(image, 60)):
        assert out.shape == image.shape
        assert 0 < off(out, image).mean() < 12
    assert off(WebP().apply(image, 95), image).mean() < off(WebP().apply(image, 20), image).mean()
    assert np.array_equal(Rescale().apply(image, 1.0), image)
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert Rescale().apply(stripes, 0.5, cv2.INTER_LINEAR).std() < 1  # gray: no aliasing


def test_noise_is_gaussian_and_keyed():
    gray = np.full((128, 128, 3), 128, np.uint8)
    noise = GaussianNoise().apply(gray, 6.0, 5).astype(float) - 128
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - np.sqrt(36 + 1 / 12)) < 0.1
    assert 0.30 < (np.abs(noise) > 6.5).mean() / 0.9 < 0.35
    assert np.array_equal(GaussianNoise().apply(gray, 6.0, 5), GaussianNoise().apply(gray, 6.0, 5))
    other = GaussianNoise().apply(gray, 6.0, 6).astype(float) - 128
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (17, 3)])
def test_our_steps_stand_in_a_list_and_take_any_shape(name, shape):
    for step in ({"name": name, "p": 1}, {"class_path": f"dfl.data.degradations.{name}", "init_args": {"p": 1}}):
        chain = build([step]).compose
        out = chain(image=np.full((*shape, 3), 90, np.uint8), mask=np.ones(shape, np.uint8))
        assert out["image"].shape == (*shape, 3)
        assert out["image"].dtype == np.uint8
        assert (out["mask"] == 1).all()


def test_mask_of_a_resizing_step_is_nearest_exact():
    image = picture(61, 61)
    mask = np.where(image[..., 0] > 127, 255, 0).astype(np.uint8)
    chain = build([{"name": "RandomSizedCrop", "min_max_height": [31, 31], "size": [61, 61], "p": 1}]).compose
    step = chain.transforms[0]
    assert step.mask_interpolation == cv2.INTER_NEAREST_EXACT
    step.interpolation = cv2.INTER_NEAREST_EXACT  # so that the image shows where each pixel of the mask must be from
    out = chain(image=image, mask=mask)
    assert np.array_equal(out["mask"], np.where(out["image"][..., 0] > 127, 255, 0))


def test_a_warning_of_albumentations_is_an_error(monkeypatch):
    def warns(**_):
        warnings.warn("Argument(s) 'x' are not valid for transform GaussianBlur", stacklevel=2)

    monkeypatch.setitem(build.__globals__["_KINDS"], "GaussianBlur", warns)
    with pytest.raises(UserError, match="GaussianBlur: Argument.* not valid"):
        Transform(augment=[{"name": "GaussianBlur"}])
    assert A.GaussianBlur is not warns


def test_a_config_may_say_that_the_device_does_not_augment():
    assert Transform(on_device=False).spec() == Transform().spec()


def test_albumentations_asks_no_package_index() -> None:
    """It does when it is imported, unless it is told not to before; so ``dfl.data`` itself tells it."""
    code = "import os, sys, dfl.data; print(os.environ['NO_ALBUMENTATIONS_UPDATE'], 'albumentations' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "NO_ALBUMENTATIONS_UPDATE"}
    root = Path(dfl.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=root, check=False
    )
    assert (done.stdout, done.stderr) == ("1 False\n", "")
