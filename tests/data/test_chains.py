"""Named degradations: each does what its line says, to image and mask alike, and the same every time."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from torchvision.transforms.v2 import functional

import dfl
from dfl.data.chains import FAMILIES, chain, variants
from dfl.data.decoding import DecodeError
from dfl.data.degrading import degraded
from dfl.data.resize import Pair
from dfl.errors import UserError

NAMES = [*variants(list(FAMILIES)), "alike"]


def photo(height: int = 90, width: int = 120) -> Pair:
    """Return a smooth coloured picture with some detail, and a mask of a box."""
    y, x = np.mgrid[:height, :width]
    planes = [120 + 60 * np.sin(x / 9 + c) + 40 * np.cos(y / 7 - c) + 8 * ((x + y) % 2) for c in range(3)]
    mask = np.zeros((height, width), np.uint8)
    mask[height // 4 : height // 2, width // 4 : width // 2] = 255
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8), mask


def under(name: str, pair: Pair, row: int = 0, seed: int = 0) -> Pair:
    return degraded(pair, json.dumps({"seed": seed, "steps": chain(name)}), row, "a.png")


@pytest.mark.parametrize("name", NAMES)
def test_every_chain_changes_the_image_and_keeps_its_mask_on_it(name: str) -> None:
    assert "." not in name
    assert "/" not in name
    image, mask = photo()
    pixels, area = under(name, (image, mask))
    assert area is not None
    assert area.shape == pixels.shape[:2]
    assert set(np.unique(area)) == {0, 255}
    assert not np.array_equal(pixels, image)
    alone, none = under(name, (image, None))
    assert none is None
    assert np.array_equal(alone, pixels)
    if not name.startswith("crop"):  # the box lies where it lay, to a pixel
        (top, left), (old_top, old_left) = (np.argwhere(m)[0] / m.shape for m in (area, mask))
        assert abs(top - old_top) * len(area) <= 1.01
        assert abs(left - old_left) * area.shape[1] <= 1.01


@pytest.mark.parametrize("family", ["jpeg", "webp", "blur", "noise", "resize"])
def test_strengths_rise(family: str) -> None:
    image = photo()[0].astype(float)
    errors = [np.abs(under(name, photo())[0] - image).mean() for name in variants([family])]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]


def test_chains_are_what_their_names_say() -> None:
    image, mask = photo()
    stored = io.BytesIO()
    Image.fromarray(image).save(stored, "JPEG", quality=75)
    assert np.array_equal(under("jpeg_75", (image, mask))[0], np.array(Image.open(stored)))
    blurred = np.stack([gaussian_filter(image[..., c].astype(float), 2.0) for c in range(3)], -1)
    assert np.abs(under("blur_20", (image, mask))[0] - blurred).max() <= 0.51
    noise = under("noise_5", (np.full((200, 200, 3), 128, np.uint8), None))[0].astype(float) - 128
    assert noise.std() == pytest.approx(5, rel=0.02)
    for name, size in (("crop_50", (46, 60)), ("shift_1", (89, 119)), ("alike", (256, 341)), ("social_1", (68, 90))):
        assert under(name, (image, mask))[0].shape[:2] == size
    pixels, area = under("shift_1", (image, mask))
    assert np.array_equal(pixels, image[1:, 1:])
    assert np.array_equal(area, mask[1:, 1:])
    assert np.array_equal(under("crop_50", (image, mask))[0], image[22:68, 30:90])


@pytest.mark.parametrize("what", ["brightness", "contrast", "saturation", "hue"])
def test_colours_are_torchvisions(what: str) -> None:
    image = photo()[0]
    amount = {"brightness": 1.3, "contrast": 1.3, "saturation": 1.5, "hue": 10 / 360}[what]
    expected = getattr(functional, f"adjust_{what}")(functional.pil_to_tensor(Image.fromarray(image)), amount)
    mine = under(f"colour_{what}", (image, None))[0]
    off = np.abs(mine.astype(int) - expected.permute(1, 2, 0).numpy())
    assert off.mean() < 1
    assert off.max() <= 6
    assert np.abs(mine.astype(int) - image).mean() > 3


def test_what_is_drawn_depends_on_the_row_and_the_seed_alone() -> None:
    one = under("noise_5", photo(), 3)[0]
    for other in range(3):
        under("noise_5", photo(), other)
    assert np.array_equal(under("noise_5", photo(), 3)[0], one)
    assert not np.array_equal(under("noise_5", photo(), 4)[0], one)
    assert not np.array_equal(under("noise_5", photo(), 3, seed=1)[0], one)


def test_alike_makes_one_size_of_very_long_and_very_small_images() -> None:
    sizes = [under("alike", photo(*size))[0].shape[:2] for size in ((16, 24), (700, 400), (8, 4000), (3, 1))]
    assert sizes == [(256, 384), (448, 256), (4, 2048), (768, 256)]


def test_a_social_upload_has_at_most_1080_pixels() -> None:
    sizes = [under("social_1", photo(*size))[0].shape[:2] for size in ((40, 1600), (40, 1080), (100, 40))]
    assert sizes == [(27, 1080), (30, 810), (75, 30)]


def test_an_image_that_a_codec_refuses_is_unreadable() -> None:
    with pytest.raises(DecodeError, match=r"cannot be degraded: .*16383"):
        under("webp_50", (np.zeros((2, 16384, 3), np.uint8), None))


def test_the_page_lists_every_family() -> None:
    page = (Path(dfl.__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    for name, family in FAMILIES.items():
        variants_of = " ".join(map(str, family.strengths[1:]))
        assert f"| `{name}` | `{name}_{family.strengths[0]}`{' ' * bool(variants_of)}{variants_of} |" in page


def test_unknown_names_come_with_what_is_near() -> None:
    with pytest.raises(UserError, match="no degradation 'jpg_75'; did you mean 'jpeg_75'"):
        chain("jpg_75")
    with pytest.raises(UserError, match="no family of degradations 'blurr'; did you mean 'blur'"):
        variants(["jpeg", "blurr"])
    assert variants(["resize", "shift"]) == ["resize_75", "resize_50", "resize_25", "shift_1"]
