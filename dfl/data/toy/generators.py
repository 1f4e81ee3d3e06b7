"""Makes a photograph of a scene, and fakes of a photograph by the mechanisms that real generators leave traces of.

The camera: optics blur, a Bayer mosaic whose missing colours are interpolated, and noise that grows with the light. So
the noise of a real picture is correlated between neighbours and stronger where it is bright.

The fakes:

* gan: the picture goes through half its size and back, as in the last layer of a decoder. ``zero_insertion`` spreads
  the pixels out and smooths (a transposed convolution), ``nearest`` repeats them; both copy the spectrum around half
  the sampling rate (Odena et al. 2016; Zhang et al. 2019; Frank et al. 2020). ``bilinear`` loses the high frequencies
  instead (Durall et al. 2020).
* diffusion: ``denoise`` takes the noise away and adds white noise of the same strength, which no camera makes.
* edit: ``swap`` blends another face into the inner face, with its own colour, light and noise (Li et al., Face X-ray,
  2020); ``inpaint`` makes one region anew through a decoder, ``repaint`` denoises it and adds white noise.

Every fake then has its spectrum brought near that of the photo, or the size of the file would tell.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dfl.data.toy.faces import Array, Person, Pose, Rng, draw, inner_face, texture


@dataclass(frozen=True)
class Camera:
    """One camera: blur in pixels, noise of the dark and of the light, in values of [0, 1], and JPEG qualities."""

    blur: tuple[float, float]
    read_noise: tuple[float, float]
    shot_noise: tuple[float, float]
    quality: tuple[int, int]


#: The camera of training, and another one: more noise, more blur, stronger compression.
CAMERAS = {
    "first": Camera((0.3, 1.0), (0.006, 0.016), (0.008, 0.024), (88, 97)),
    "other": Camera((0.6, 1.2), (0.014, 0.026), (0.016, 0.034), (75, 88)),
}

#: Family and explanation of each generator.
GENERATORS = {
    "zero_insertion": ("gan", "The whole picture carries a fine checkerboard, as transposed convolutions leave it."),
    "nearest": ("gan", "The whole picture is built of small repeated blocks, as nearest up-sampling leaves them."),
    "bilinear": ("gan", "The whole picture lacks its finest detail, as smooth up-sampling does."),
    "denoise": ("diffusion", "The whole picture carries white noise that no camera makes, over a smoothed image."),
    "swap": ("edit", "The inner face was replaced: its colour and noise do not match the rest of the picture."),
    "inpaint": ("edit", "One region was made anew: its grain is built of small repeated blocks."),
    "repaint": ("edit", "One region was painted over: its grain is white noise, that of the rest is not."),
}


def blurred(image: Array, sigma: float) -> Array:
    """Return the image under a Gaussian of ``sigma`` pixels, edges mirrored."""
    radius = max(1, round(3 * sigma))
    weight = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    return _filtered(image, weight / weight.sum())


def _filtered(image: Array, weight: Array) -> Array:
    """Correlate columns and rows with an odd number of weights, edges mirrored."""
    radius = len(weight) // 2
    for axis in (0, 1):
        pad = [(radius, radius) if a == axis else (0, 0) for a in range(image.ndim)]
        wide, n = np.pad(image, pad, mode="reflect"), image.shape[axis]
        image = sum(w * np.take(wide, range(k, k + n), axis) for k, w in enumerate(weight))
    return image


def photograph(scene: Array, camera: Camera, rng: Rng) -> Array:
    """Return what the camera makes of the light, (S, S, 3) float32 in about [0, 1]."""
    light = blurred(scene, rng.uniform(*camera.blur))
    read, shot = rng.uniform(*camera.read_noise), rng.uniform(*camera.shot_noise)
    noise = rng.standard_normal(light.shape, dtype=np.float32) * np.sqrt(read**2 + shot**2 * np.clip(light, 0, 1))
    return _demosaiced(light + noise)


def _demosaiced(image: Array) -> Array:
    """Keep one colour per pixel (RGGB) and interpolate the other two linearly."""
    keep = np.zeros_like(image)
    keep[0::2, 0::2, 0] = keep[0::2, 1::2, 1] = keep[1::2, 0::2, 1] = keep[1::2, 1::2, 2] = 1
    weight = np.array([0.25, 0.5, 0.25], np.float32)
    return np.where(keep > 0, image, _filtered(image * keep, weight) / _filtered(keep, weight))


def _halved(image: Array) -> Array:
    return (image[0::2, 0::2] + image[1::2, 0::2] + image[0::2, 1::2] + image[1::2, 1::2]) / 4


#: A kernel that weighs the phases of a zero-inserted image unequally, as a trained one does.
_KERNEL = np.outer([0.26, 0.75, 0.73, 0.26], [0.25, 0.73, 0.75, 0.27]).astype(np.float32)


def _zero_insertion(small: Array) -> Array:
    n = 2 * small.shape[0]
    wide = np.zeros((n + 4, n + 4, 3), np.float32)
    wide[::2, ::2] = np.pad(small, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return np.sum([_KERNEL[i, j] * wide[i : i + n, j : j + n] for i in range(4) for j in range(4)], 0)


def _nearest(small: Array) -> Array:
    image = small.repeat(2, 0).repeat(2, 1)
    return 0.8 * image + 0.2 * blurred(image, 0.6)


def _bilinear(small: Array) -> Array:
    for axis in (0, 1):
        n = small.shape[axis]
        wide = np.pad(small, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, here, after = (np.take(wide, range(k, k + n), axis) for k in (0, 1, 2))
        shape = [2 * m if a == axis else m for a, m in enumerate(small.shape)]
        small = np.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], axis + 1).reshape(shape)
    return small


UPSAMPLERS: dict[str, Callable[[Array], Array]] = {
    "zero_insertion": _zero_insertion,
    "nearest": _nearest,
    "bilinear": _bilinear,
}


def _radial(image: Array) -> tuple[Array, Array]:
    """Return the radius of each coefficient of the spectrum, and the mean log amplitude of grey at each radius."""
    n = image.shape[0]
    radius = np.rint(np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None]) * n).astype(int)
    log = np.log(np.abs(np.fft.rfft2(image.mean(2))) + 1e-3)
    return radius, np.bincount(radius.ravel(), log.ravel()) / np.bincount(radius.ravel())


def matched(image: Array, like: Array, rng: Rng) -> Array:
    """Bring the power at each radius of the spectrum near that of ``like``.

    Generators are trained until their spectra look right on average. So what is left to find is mostly in phases and
    directions, and neither the size of the file nor the azimuthal average gives the fake away by itself.
    """
    (radius, own), (_, goal) = _radial(image), _radial(like)
    ratio = np.exp(np.clip(goal - own, -4, 4) * rng.uniform(0.85, 1.1))
    ratio[: image.shape[0] // 16] = 1  # colour and light are the scene's own
    spectrum = np.fft.rfft2(image, axes=(0, 1)) * ratio[radius][..., None]
    return np.fft.irfft2(spectrum, s=image.shape[:2], axes=(0, 1)).astype(np.float32)


def decoded(photo: Array, generator: str, rng: Rng) -> Array:
    """Return a photo as a decoder of this kind would make it."""
    return matched(UPSAMPLERS[generator](_halved(photo)), photo, rng)


def denoised(photo: Array, rng: Rng) -> Array:
    """Return a photo without its noise, under white noise of about the same strength."""
    clean = blurred(photo, 1.1)
    strength = np.float32((photo - clean).std())
    return matched(clean + rng.standard_normal(photo.shape, dtype=np.float32) * strength, photo, rng)


def swapped(photo: Array, person: Person, donor: Person, pose: Pose, camera: Camera, rng: Rng) -> tuple[Array, Array]:
    """Return the photo with the inner face of another person, and the soft coverage (S, S) of what was replaced."""
    size = photo.shape[0]
    other = draw(donor, pose, rng, size) * rng.uniform(0.88, 1.12, 3).astype(np.float32)
    face = _bilinear(_halved(photograph(other, camera, rng)))  # swapped faces are made small and scaled up
    cover = blurred(inner_face(person, pose, size)[..., None], size / 64)
    return photo + cover * (matched(face, photo, rng) - photo), cover[..., 0]


def region(size: int, rng: Rng) -> Array:
    """Return the soft coverage (S, S) of a ragged region near the middle."""
    axis = (np.arange(size) + 0.5) / size
    x, y = rng.uniform(0.3, 0.7, 2)
    a, b = rng.uniform(0.18, 0.34, 2)
    radius = np.hypot((axis[None] - x) / a, (axis[:, None] - y) / b) + 0.08 * texture(rng, size, 1.5)
    return blurred((radius < 1).astype(np.float32)[..., None], 1.0)[..., 0]


def inpainted(photo: Array, rng: Rng) -> tuple[Array, Array]:
    """Return the photo with one region made anew by a decoder, and its coverage."""
    cover = region(photo.shape[0], rng)
    new = _nearest(_halved(photo + 0.03 * texture(rng, photo.shape[0], 1.3)[..., None]))
    return photo + cover[..., None] * (matched(new, photo, rng) - photo), cover


def repainted(photo: Array, rng: Rng) -> tuple[Array, Array]:
    """Return the photo with one region denoised and under white noise, and its coverage."""
    cover = region(photo.shape[0], rng)
    return photo + cover[..., None] * (denoised(photo, rng) - photo), cover
