"""The compiled JPEG round trip: the codec's pixels, bit for bit, and the same training with and without numba."""

import importlib.util
import sys

import cv2
import numpy as np
import pytest

from dfl.data import degradations, transforms
from dfl.data.degradations import Jpeg
from dfl.data.jpeg_header import quantization_tables
from dfl.data.transforms import Transform

needs_numba = pytest.mark.skipif(
    not degradations._HAS_NUMBA, reason="numba is optional: pip install 'dfl[fast]'; without it the codec does the same"
)
SIZES = [(256, 256), (264, 264), (232, 231), (37, 53), (1, 5), (2, 6), (17, 16), (300, 513), (8, 400)]


def contents(height, width):
    """Noise, pure colours side by side, and something smooth."""
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return noise, noise // 255 * 255, noise // 128 * 255, smooth


def codec(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, quality))[1], 1)[..., ::-1]


@pytest.fixture
def fresh():
    """The question of numba, asked anew."""
    degradations.compiled_jpeg.cache_clear()
    yield
    degradations.compiled_jpeg.cache_clear()


@needs_numba
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pixels_of_the_codec(size):
    from dfl.data.jpeg_round_trip import jpeg_round_trip

    for quality in (1, 2, 10, 30, 50, 75, 90, 96, 100):
        for image in contents(*size):
            kept = image.copy()
            out = jpeg_round_trip(image, quality)
            assert np.array_equal(out, codec(image, quality)), quality
            assert out.dtype == np.uint8
            assert np.array_equal(image, kept)


@needs_numba
def test_a_window_of_a_larger_image():
    from dfl.data.jpeg_round_trip import jpeg_round_trip

    window = contents(300, 280)[3][7:263, 11:267]
    assert np.array_equal(jpeg_round_trip(window, 60), codec(window, 60))


@needs_numba
def test_too_narrow():
    from dfl.data.jpeg_round_trip import jpeg_round_trip

    with pytest.raises(ValueError, match="4 pixels wide, it must be 5"):
        jpeg_round_trip(np.zeros((9, 4, 3), np.uint8), 50)


@needs_numba
def test_division_by_multiplication():
    """Every coefficient that a JPEG can have, by every step."""
    from dfl.data.jpeg_round_trip import inverses

    wave = np.arange(2**15, dtype=np.int32)
    for step in range(1, 256):
        got = ((wave + 4 * step).astype(np.float32) * inverses(np.array([step]))).astype(np.int32)
        assert np.array_equal(got, (wave + 4 * step) // (8 * step)), step


@pytest.mark.parametrize("quality", [1, 50, 75, 100])
def test_quantization_tables(quality):
    """Annex K of the standard, on libjpeg's scale."""
    luma, chroma = quantization_tables(quality)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    for first, table in ((16, luma), (17, chroma)):
        assert table[0] == np.clip((first * scale + 50) // 100, 1, 255)
        assert table.shape == (64,)
    assert luma[63] == np.clip((99 * scale + 50) // 100, 1, 255)
    assert luma[8] == np.clip((12 * scale + 50) // 100, 1, 255)  # second row, first column


@needs_numba
def test_a_step_takes_it_from_a_size_on(monkeypatch):
    calls = []

    def compiled():
        return lambda image, quality: calls.append((image.shape, quality)) or image

    monkeypatch.setattr(degradations, "compiled_jpeg", compiled)
    for height, width in ((192, 192), (191, 400), (400, 191)):
        Jpeg().apply(np.zeros((height, width, 3), np.uint8), quality=40)
    assert calls == [((192, 192, 3), 40)]


def views(policy):
    view = Transform(augment=policy).train(200)
    return [view(image, None, (0, 0, i))[0].numpy() for i, image in enumerate(contents(230, 210) * 3)]


@needs_numba
@pytest.mark.parametrize("policy", ["cnnf", "social"])
def test_training_sees_the_same_without_numba(policy, fresh, monkeypatch):
    fast = views(policy)
    assert degradations.compiled_jpeg() is not None
    degradations.compiled_jpeg.cache_clear()
    monkeypatch.setattr(degradations, "_HAS_NUMBA", False)
    slow = views(policy)
    assert degradations.compiled_jpeg() is None
    assert all(np.array_equal(a, b) for a, b in zip(slow, fast, strict=True))


@needs_numba
def test_a_numba_that_does_not_import(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "dfl.data.jpeg_round_trip", None)
    image = contents(200, 200)[3]
    with pytest.warns(UserWarning, match="numba cannot be used, so that JPEG augmentation takes twice the time"):
        assert np.array_equal(Jpeg().apply(image, quality=50), codec(image, 50))


@needs_numba
def test_nowhere_to_keep_what_was_compiled(monkeypatch):
    import numba

    def njit(*, cache=False, _njit=numba.njit, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available for file")
        return _njit(**options)

    monkeypatch.setattr(numba, "njit", njit)
    spec = importlib.util.find_spec("dfl.data.jpeg_round_trip")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert callable(module._compiled)


@pytest.mark.parametrize(
    ("times", "kind", "size", "spec"),
    [
        (1, "train", 224, {"augment": "cnnf"}),
        (1, "train", 224, {"augment": "social"}),  # inside a OneOf
        (0, "train", 224, {"augment": "dfb"}),  # with albumentations' JPEG
        (0, "train", 224, {"augment": "cnnf", "on_device": True}),
        (0, "train", 64, {"augment": "cnnf"}),
        (0, "eval", 224, {"augment": "cnnf"}),
    ],
    ids=str,
)
def test_compiled_before_workers_are_forked_and_only_where_it_serves(times, kind, size, spec, monkeypatch):
    calls = []
    monkeypatch.setattr(transforms, "compiled_jpeg", lambda: calls.append(1))
    getattr(Transform(**spec), kind)(size)
    assert len(calls) == times
