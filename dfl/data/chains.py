"""Degradations that have a name, for measuring how robust a verdict is: families of chains, weakest first.

A chain is a list of steps as an ``augment`` list has them (``dfl/data/augmentation.py``), each with certainty. A
variant is named ``family_strength``, such as ``jpeg_75``, which may be a part of a domain's name: there is no point in
it. The numbers are round ones, ours, where no source is named.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from dfl.errors import UserError, near

Steps = list[dict[str, Any]]


class Family(NamedTuple):
    """Chains of one kind."""

    #: What is done, and what the strengths are, in a line.
    about: str
    #: What the strengths are, in a word or two, for an axis; empty where they are words.
    axis: str
    #: From the weakest to the strongest; numbers that can be drawn along an axis, or words.
    strengths: tuple[int, ...] | tuple[str, ...]
    #: Makes the steps of a strength.
    steps: Callable[[Any], Steps]


def _step(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, **arguments, "p": 1.0}


def _jpeg(quality: int) -> Steps:
    return [_step("Jpeg", quality_range=[quality, quality])]


_JITTER = {
    "brightness": {"brightness": [1.3, 1.3]},
    "contrast": {"contrast": [1.3, 1.3]},
    "saturation": {"saturation": [1.5, 1.5]},
    "hue": {"hue": [10 / 360, 10 / 360]},
}
_SAME = {"brightness": [1.0, 1.0], "contrast": [1.0, 1.0], "saturation": [1.0, 1.0], "hue": [0.0, 0.0]}
_SHARPEN = _step("UnsharpMask", blur_limit=[3, 3], sigma_limit=[0.8, 0.8], alpha=[0.3, 0.3], threshold=0)


def _screenshot(zoom: int) -> Steps:
    gamma, colours = _step("RandomGamma", gamma_limit=[95, 95]), _step("Posterize", num_bits=7)
    return [_step("Resample", scale=zoom / 100), gamma, colours]


def _social(times: int) -> Steps:
    first = [_step("Resample", longest=1080, scale=0.75), _SHARPEN, *_jpeg(75)]
    return first + [_step("Resample", longest=1080, scale=0.9), _SHARPEN, *_jpeg(75)] * (times - 1)


FAMILIES: dict[str, Family] = {
    "jpeg": Family("JPEG, chroma 4:2:0, by quality (libjpeg's scale)", "quality", (95, 90, 75, 50, 30), _jpeg),
    "webp": Family(
        "lossy WebP by quality (libwebp's scale)",
        "quality",
        (90, 75, 50),
        lambda quality: [_step("WebP", quality_range=[quality, quality])],
    ),
    "blur": Family(
        "Gaussian blur as Wang et al. 2020 blur, sigma in tenths of a pixel",
        "sigma, tenths of a pixel",
        (5, 10, 20, 30),
        lambda sigma: [_step("SciPyBlur", sigma_range=[sigma / 10, sigma / 10])],
    ),
    "noise": Family(
        "Gaussian noise, independent for each value, by its standard deviation in grey levels of 255",
        "standard deviation, grey levels",
        (2, 5, 10),
        lambda std: [_step("GaussianNoise", std_range=[std, std])],
    ),
    "resize": Family(
        "shrunk by area averaging to so many percent of each side, and enlarged again (cubic)",
        "% of each side",
        (75, 50, 25),
        lambda share: [_step("Rescale", scale_range=[share / 100, share / 100], enlarge="cubic")],
    ),
    "crop": Family(
        "the middle, so many percent of each side",
        "% of each side",
        (90, 75, 50),
        lambda share: [_step("CropAndPad", percent=[(share - 100) / 200] * 4, keep_size=False)],
    ),
    "colour": Family(
        "one of torchvision's ColorJitter: brightness, contrast x 1.3, saturation x 1.5, hue + 10 degrees",
        "",
        ("brightness", "contrast", "saturation", "hue"),
        lambda what: [_step("ColorJitter", **(_SAME | _JITTER[what]))],
    ),
    "shift": Family(
        "moved by so many pixels: the first row and column are cut off",
        "pixels",
        (1,),
        lambda n: [_step("CropAndPad", px=[-n, 0, 0, -n], keep_size=False)],
    ),
    "screenshot": Family(
        "like a screenshot: shown at so many percent, gamma 0.95, 7 bits a colour, kept without loss",
        "shown at, %",
        (125, 87),
        _screenshot,
    ),
    "social": Family(
        "like so many uploads: at most 1,080 px (or shrunk to 75 %, then 90 %), sharpened, JPEG 75",
        "uploads",
        (1, 2),
        _social,
    ),
}
"""The families that have a name."""


def alike(side: int = 256) -> Steps:
    """Return one resampling and one JPEG for all: what size, format and quality give away of a class is gone after it.

    Args:
        side: Shorter side of all images, in pixels; take less than what they have, so that none stays as it is.
    """
    return [_step("Resample", shortest=side), *_jpeg(90)]


def chain(name: str) -> Steps:
    """Return the steps of a variant, such as ``jpeg_75``, or of ``alike``.

    Raises:
        UserError: If there is none of this name.
    """
    if name == "alike":
        return alike()
    for family, one in FAMILIES.items():
        for strength in one.strengths:
            if name == f"{family}_{strength}":
                return one.steps(strength)
    raise UserError(f"no degradation {name!r}{near(name, [*variants(list(FAMILIES)), 'alike'])}")


def variants(families: Sequence[str]) -> list[str]:
    """Return the names of all variants of some families, in their order.

    Raises:
        UserError: If there is no such family.
    """
    for name in families:
        if name not in FAMILIES:
            raise UserError(f"no family of degradations {name!r}{near(name, list(FAMILIES))}")
    return [f"{name}_{strength}" for name in families for strength in FAMILIES[name].strengths]
