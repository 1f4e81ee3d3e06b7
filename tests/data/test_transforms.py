"""Transforms: antialiasing against an independent reference, geometry shared with the mask, randomness by key alone."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from dfl.data.augmentation import POLICIES
from dfl.data.transforms import Transform
from dfl.errors import UserError

EVERY_STEP = [
    {"name": "RandomResizedCrop", "scale": [0.3, 1.0]},
    {"name": "HorizontalFlip", "p": 0.5},
    {"class_path": "albumentations.GaussianBlur", "init_args": {"blur_limit": [3, 7], "p": 0.5}},
    {"name": "OneOf", "p": 0.8, "transforms": [{"name": "ImageCompression", "p": 1}, {"name": "GaussNoise", "p": 1}]},
    {"name": "Affine", "rotate": [-10, 10], "p": 0.5},
    {"name": "CoarseDropout", "p": 0.5},
]
AUGMENTS = [*POLICIES, EVERY_STEP]
NAMES = [*POLICIES, "every"]


def smooth(height, width, seed=0):
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return np.array(coarse.resize((width, height), Image.BICUBIC))


def bright(image):
    """A mask that can be read off the image itself: its red channel above one half."""
    return np.where(image[..., 0] > 127, 255, 0).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "pil"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC), ("lanczos", Image.LANCZOS)]
)
@pytest.mark.parametrize("shape", [(300, 300), (1024, 1024), (100, 100), (225, 225)])
def test_resize_is_pillows_antialiased_one(mode, pil, shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    got, _ = Transform(resize="squash", interpolation=mode).eval(224)(image, None, ())
    want = np.asarray(Image.fromarray(image).resize((224, 224), pil)).astype(int)
    assert np.abs(got.permute(1, 2, 0).numpy() - want).max() <= 1


@pytest.mark.parametrize("side", [100, 225, 300, 342])  # a pixel whose centre is on a border is another one in Pillow
def test_nearest_is_pillows_by_which_keras_resizes(side):
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    got, _ = Transform(resize="squash", interpolation="nearest").eval(256)(image, None, ())
    want = np.asarray(Image.fromarray(image).resize((256, 256), Image.NEAREST))
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), want)


def test_fine_stripes_do_not_alias():
    stripes = np.zeros((1024, 1024, 3), np.uint8)
    stripes[:, ::2] = 255
    got, _ = Transform().eval(200)(stripes, None, ())
    assert got[:, :, 2:-2].float().std() < 3  # gray; a resize that skips pixels gives black and white bands


def test_shorter_side_and_centre_crop():
    image = smooth(300, 400)
    got, _ = Transform(crop_ratio=0.875).eval(224)(image, None, ())
    resized = np.asarray(Image.fromarray(image).resize((341, 256), Image.BILINEAR)).astype(int)
    want = resized[16:240, 59:283]  # one of two middles, an odd remainder of 117
    assert np.abs(got.permute(1, 2, 0).numpy() - want).max() <= 1


def test_none_keeps_native_pixels_and_pads_by_reflection():
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    view = Transform(resize="none", augment="none")
    got, _ = view.eval(4)(image, None, ())
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), image[1:5, 2:6])
    padded, mask = view.eval(10)(image, image[..., 0], ())
    np.testing.assert_array_equal(
        padded.permute(1, 2, 0).numpy(), np.pad(image, ((2, 2), (1, 1), (0, 0)), mode="reflect")
    )
    np.testing.assert_array_equal((mask * 255).round().numpy(), np.pad(image[..., 0], ((2, 2), (1, 1)), mode="reflect"))
    corners = {tuple(view.train(4)(image, None, (0, 0, i))[0][0, 0, :2].tolist()) for i in range(200)}
    want = {tuple(image[top, left : left + 2, 0].tolist()) for top in range(3) for left in range(5)}
    assert corners == want


def test_whole_is_all_of_an_image_in_evaluation_and_none_in_training():
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    whole, none = Transform(resize="whole"), Transform(resize="none")
    got, mask = whole.eval(4)(image, image[..., 0], ())
    np.testing.assert_array_equal(got.permute(1, 2, 0).numpy(), image)
    assert mask.shape == (6, 8)
    assert torch.equal(whole.train(4)(image, None, (0, 0, 1))[0], none.train(4)(image, None, (0, 0, 1))[0])
    with pytest.raises(UserError, match="there are no other views"):
        whole.checked("five")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("augment", AUGMENTS, ids=NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (225, 223), (224, 224), (1, 65_500)])
def test_any_shape_gives_the_promised_tensors(augment, shape):
    image = smooth(*shape)
    for resize in ("shorter", "squash", "pad", "none"):
        if resize in ("pad", "none") and augment in (
            "light",
            EVERY_STEP,
        ):  # their RandomResizedCrop crops and resamples
            continue
        made = Transform(resize=resize, augment=augment)
        for view in (made.train(64), made.eval(64)):
            got, mask = view(image, bright(image), (1, 2, 3))
            assert got.shape == (3, 64, 64)
            assert got.dtype == torch.uint8
            assert got.is_contiguous()
            assert mask.shape == (64, 64)
            assert mask.dtype == torch.float32
            assert set(mask.unique().tolist()) <= {0.0, 1.0}
            assert view(image, None, (1, 2, 3))[1] is None


@pytest.mark.parametrize("resize", ["shorter", "squash", "none"])
@pytest.mark.parametrize("augment", ["flip", [EVERY_STEP[0], EVERY_STEP[1], EVERY_STEP[4]]], ids=["flip", "geometry"])
def test_mask_goes_where_the_image_goes(resize, augment):
    if resize == "none":
        augment = augment if augment == "flip" else augment[1:]
    image = smooth(250, 330)
    view = Transform(resize=resize, augment=augment).train(128)
    for index in range(12):
        got, mask = view(image, bright(image), (0, 0, index))
        assert ((got[0] > 127) != (mask > 0.5)).float().mean() < 0.03


@pytest.mark.parametrize(("height", "width"), [(768, 1024), (1024, 768), (30, 41), (64, 64), (5, 900), (333, 332)])
def test_padding_shows_the_whole_image_in_its_own_shape(height, width):
    image, mask = smooth(height, width), np.zeros((height, width), np.uint8)
    mask[:, : max(1, width // 10)] = 255
    made = Transform(resize="pad", augment="flip")
    fixed = made.eval(64)
    rows, columns = fixed.extent(height, width)
    assert max(rows, columns) == 64
    assert abs(rows / columns - height / width) * columns <= 0.5 * (1 + height / width) or min(rows, columns) == 1
    pixels, area = fixed(image, mask, ())
    whole = np.array(Image.fromarray(image).resize((columns, rows), Image.BILINEAR)).astype(int)
    assert np.abs(pixels[:, :rows, :columns].permute(1, 2, 0).numpy() - whole).max() <= 1
    for plane in (pixels, area):
        assert not plane[..., rows:, :].any()
        assert not plane[..., columns:].any()
    if columns >= 10:
        assert area[:rows, :columns].mean() == pytest.approx(0.1, abs=1 / columns)
    seen = set()
    for index in range(20):  # a flip turns the image and leaves the padding where it is
        flipped, where = made.train(64)(image, mask, (0, 0, index))
        turned = not torch.equal(flipped, pixels)
        seen.add(turned)
        back = flipped[:, :rows, :columns].flip(2) if turned else flipped[:, :rows, :columns]
        assert torch.equal(back, pixels[:, :rows, :columns])
        assert not flipped[:, :, columns:].any()
        assert where.sum() == area.sum()
    assert len(seen) == 2 or torch.equal(pixels[:, :rows, :columns], pixels[:, :rows, :columns].flip(2))


@pytest.mark.parametrize("resize", ["shorter", "squash", "none"])
def test_only_padding_has_an_extent(resize):
    assert Transform(resize=resize).eval(64).extent(30, 50) is None


@pytest.mark.parametrize("augment", AUGMENTS, ids=NAMES)
def test_randomness_is_a_function_of_the_key(augment):
    image, mask = smooth(260, 290), bright(smooth(260, 290))
    made = Transform(augment=augment, crop_ratio=0.8)
    view, other = made.train(64), pickle.loads(pickle.dumps(Transform(**made.spec()).train(64)))
    keys = [(seed, epoch, index) for seed in (0, 7) for epoch in (0, 1) for index in range(5)]
    first = [view(image, mask, key) for key in keys]
    np.random.seed(0)  # noqa: NPY002, the global state must not matter
    for at in np.random.default_rng(0).permutation(len(keys)):
        pixels, area = other(image, mask, keys[at])
        assert torch.equal(pixels, first[at][0])
        assert torch.equal(area, first[at][1])
        other(image, None, (9, 9, 9))
    assert len({pixels.numpy().tobytes() for pixels, _ in first}) > len(keys) // 2


def test_flip_is_fair_and_eval_is_fixed():
    image = smooth(64, 64)
    view = Transform().train(64)
    upright = torch.from_numpy(image).permute(2, 0, 1)
    kept = [torch.equal(view(image, None, (0, 0, index))[0], upright) for index in range(400)]
    assert 150 < sum(kept) < 250
    assert not any(
        same == torch.equal(view(image, None, (0, 0, index))[0], upright.flip(2)) for index, same in enumerate(kept)
    )
    fixed = Transform(augment="light").eval(48)
    assert torch.equal(fixed(image, None, (1,))[0], fixed(image, None, (2,))[0])


def test_jpeg_grid_does_not_always_start_at_the_corner():
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    view = Transform(resize="none", augment=[{"name": "ImageCompression", "quality_range": [10, 10], "p": 1}]).train(64)
    starts = set()
    for index in range(40):
        rows = view(noise, None, (0, 0, index))[0].float().mean(0)
        jumps = (rows[:, 1:] - rows[:, :-1]).abs().mean(0)
        starts.add(int(torch.stack([jumps[phase::8].mean() for phase in range(8)]).argmax()))
    assert len(starts) > 4


@pytest.mark.parametrize("shape", [(1, 65_500), (65_500, 1)])
def test_a_very_long_image_does_not_take_all_memory(shape, monkeypatch):
    sizes, resize = [], torch.nn.functional.interpolate
    monkeypatch.setattr(
        torch.nn.functional, "interpolate", lambda *a, size, **k: sizes.append(size) or resize(*a, size=size, **k)
    )
    for view in (Transform().train(32), Transform().eval(32)):
        view(smooth(*shape), None, (0,))
    assert len(sizes) == 2
    assert max(height * width for height, width in sizes) <= 8 * 32 * 32


def test_spec_is_plain_and_rebuilds():
    made = Transform(resize="squash", crop_ratio=0.9, interpolation="bicubic", augment=EVERY_STEP)
    spec = json.loads(json.dumps(made.spec()))
    assert Transform(**spec).spec() == made.spec()
    spec["augment"].clear()
    assert made.spec()["augment"] == EVERY_STEP


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"augment": "lihgt"}, "did you mean 'light'"),
        ({"augment": [{"name": "GausianBlur"}]}, "did you mean 'GaussianBlur'"),
        ({"augment": [{"name": "GaussianBlur", "blurlimit": 3}]}, "did you mean 'blur_limit'"),
        ({"augment": [{"name": "HorizontalFlip", "p": 7}]}, "HorizontalFlip: "),
        ({"augment": [{"p": 0.5}]}, "needs `name"),
        ({"augment": [{"name": "OneOf", "transforms": [{"name": "Nope"}]}]}, "has 'Nope'"),
        ({"augment": [EVERY_STEP[1], EVERY_STEP[0]]}, "first step"),
        ({"augment": [{"name": "RandomResizedCrop", "size": 9}]}, "no argument 'size'"),
        ({"augment": [{"name": "ImageCompression", "quality_lower": 40}]}, "no argument 'quality_lower'"),
        ({"augment": [{"name": "SciPyBlur", "sigma_limit": [0, 3]}]}, "there are p, sigma_range"),
        ({"augment": [{"name": "SciPyBlur", "sigma_range": [3, 0]}]}, "sigma_range is .3, 0., it must rise"),
        ({"augment": [{"name": "Jpeg", "quality_range": [0, 100]}]}, "within 1 and 100"),
        ({"augment": [{"name": "Jpeg", "quality_range": 40}]}, "two numbers"),
        ({"augment": [{"name": "Rescale", "p": 1.5}]}, "p is 1.5"),
        ({"augment": [{"name": "PcaLighting", "std": -1}]}, "must not be negative"),
        ({"augment": [{"name": "Jpg"}]}, "did you mean 'Jpeg'"),
        ({"augment": "light", "resize": "none"}, "RandomResizedCrop"),
        ({"augment": "light", "resize": "pad"}, "shows a part of the image, which resize: pad forbids"),
        ({"crop_ratio": 0.9, "resize": "pad"}, "crop_ratio has no meaning with resize: pad"),
        ({"on_device": True}, "on_device is gone, take it out: the loader augments"),
        ({"resize": "short"}, "did you mean 'shorter'"),
        ({"interpolation": "cubic"}, "interpolation"),
        ({"crop_ratio": 0.0}, "crop_ratio"),
        ({"crop_ratio": 0.5, "resize": "none"}, "crop_ratio"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        Transform(**arguments)
    assert "\n" not in str(raised.value)


def test_chain_that_changes_the_size_is_refused():
    view = Transform(augment=[{"name": "Resize", "height": 9, "width": 9}]).train(32)
    with pytest.raises(UserError, match="must keep both"):
        view(smooth(40, 40), None, (0,))


def test_soft_masks_keep_borders_that_cut_a_pixel() -> None:
    mask = np.zeros((64, 96), np.uint8)
    mask[:, :25] = 255
    image = np.repeat(mask[..., None], 3, 2)
    for interpolation in ("bilinear", "bicubic"):
        hard, soft = (
            Transform(interpolation=interpolation, soft_masks=s).eval(16)(image, mask, ())[1] for s in (False, True)
        )
        assert set(hard.unique().tolist()) == {0.0, 1.0}
        # 96 columns become 24, of which the middle 16 stay; Pillow's bilinear is the reference
        small = np.array(Image.fromarray(mask).resize((24, 16), Image.Resampling.BILINEAR))[:, 4:20]
        np.testing.assert_allclose(soft.numpy() * 255, small, atol=1)
        assert 0 < soft[0, 2] < 1
    chain = [{"name": "RandomResizedCrop", "scale": [0.3, 0.9]}]
    for augment in ("flip", chain):
        view = Transform(soft_masks=True, augment=augment).train(16)
        pixels, area = view(image, mask, (0, 0, 3))  # the image is its own mask
        np.testing.assert_allclose(area.numpy() * 255, pixels[0].numpy(), atol=1)
