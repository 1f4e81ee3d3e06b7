"""Image degradations that albumentations lacks or does differently from the papers, as albumentations transforms.

All but `Resample` change pixels, never geometry, so masks stay as they are. All take and give uint8 RGB (H, W, 3), and
draw from the generators of their chain alone. Their names may stand in an `augment` list beside albumentations' own:

* `SciPyBlur`: Gaussian blur by sigma (Wang et al. 2020, "CNN-generated images are surprisingly easy to spot");
* `OpenCvBlur`: Gaussian blur by kernel size, sigma follows (albumentations 1, so DeepfakeBench);
* `Jpeg`, `WebP`: a round trip through the codec, colours in the right order;
* `Rescale`: shrunk and enlarged again;
* `Resample`: brought to another size, antialiased, and the mask with it;
* `PcaLighting`: colour noise along the image's own principal components (Krizhevsky et al. 2012);
* `GaussianNoise`: independent for each value, of a standard deviation in grey levels.
"""

import io
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg
from albumentations import DualTransform, ImageOnlyTransform
from PIL import Image

from dfl.data.decoding import resize_nearest
from dfl.data.resize import interpolated

Range = Sequence[float]


def _checked(name: str, value: Range, low: float, high: float) -> tuple[float, float]:
    """Return a range as a tuple.

    Raises:
        ValueError: if it is not two numbers, in order, in [low, high].
    """
    numbers = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if len(numbers) != 2 or not all(isinstance(number, int | float) for number in numbers):
        raise ValueError(f"{name} is {value!r}, it must be two numbers: the lowest and the highest")
    if not low <= numbers[0] <= numbers[1] <= high:
        raise ValueError(f"{name} is {list(numbers)}, it must rise, within {low:g} and {high:g}")
    return numbers[0], numbers[1]


class _Degradation(ImageOnlyTransform):
    """A step of a chain.

    Args:
        p: probability.

    Raises:
        ValueError: a probability or range out of order or of bounds.
    """

    def __init__(self, p: float) -> None:
        if not isinstance(p, int | float) or not 0 <= p <= 1:
            raise ValueError(f"p is {p!r}, it must be a number within 0 and 1")
        super().__init__(p=p)


class SciPyBlur(_Degradation):
    """Gaussian blur as `scipy.ndimage.gaussian_filter`: radius int(4 sigma + 0.5), edges mirrored with the edge pixel.

    Args:
        sigma_range: standard deviation in pixels, uniform.
        uint8_passes: the official code of Wang et al. filters rows and columns one after the other into a uint8 array,
            and both times what follows the point is cut off. Blurred images so are about one grey level darker: a trace
            of the augmentation itself. True does the same, bit for bit (and takes about eight times as long); False
            rounds once, at the end.
    """

    def __init__(self, sigma_range: Range = (0.0, 3.0), uint8_passes: bool = False, p: float = 0.5) -> None:
        super().__init__(p)
        self.sigma_range, self.uint8_passes = _checked("sigma_range", sigma_range, 0, 100), bool(uint8_passes)

    def get_params(self) -> dict[str, Any]:
        return {"sigma": self.py_random.uniform(*self.sigma_range)}

    def apply(self, img: np.ndarray, sigma: float = 1.0, **_: Any) -> np.ndarray:
        radius = int(4 * sigma + 0.5)
        if radius == 0:
            return img
        if self.uint8_passes:
            from scipy.ndimage import gaussian_filter  # its order of summation decides what is cut off in flat areas

            planes = [gaussian_filter(img[..., channel], sigma, output=np.uint8) for channel in range(3)]
            return np.stack(planes, axis=-1)
        kernel = cv2.getGaussianKernel(2 * radius + 1, sigma)
        # cv2.GaussianBlur rounds its kernel to 8 bits: up to 0.75 grey levels off, and slower
        return cv2.sepFilter2D(img, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)


class OpenCvBlur(_Degradation):
    """Gaussian blur of a drawn kernel size; sigma is OpenCV's 0.3 ((size - 1) / 2 - 1) + 0.8, edges are mirrored.

    This is what `GaussianBlur(blur_limit=(3, 7))` of albumentations 1 did; version 2 draws sigma in [0.5, 3] besides.

    Args:
        kernel_range: integers, uniform; an even one stands for the next odd one.
    """

    def __init__(self, kernel_range: Range = (3, 7), p: float = 0.5) -> None:
        super().__init__(p)
        low, high = _checked("kernel_range", kernel_range, 1, 99)
        self.kernel_range = (int(low), int(high))

    def get_params(self) -> dict[str, Any]:
        return {"size": self.py_random.randint(*self.kernel_range) | 1}

    def apply(self, img: np.ndarray, size: int = 3, **_: Any) -> np.ndarray:
        return cv2.GaussianBlur(img, (size, size), 0)


class Jpeg(_Degradation):
    """A round trip through baseline JPEG, chroma 4:2:0; Pillow's and OpenCV's results are the same, bit for bit.

    `ImageCompression` of albumentations hands OpenCV red as blue, so that its luma weighs the channels the wrong way.

    Args:
        quality_range: integers in [1, 100], uniform, both ends drawn.
    """

    def __init__(self, quality_range: Range = (30, 100), p: float = 0.5) -> None:
        super().__init__(p)
        low, high = _checked("quality_range", quality_range, 1, 100)
        self.quality_range = (int(low), int(high))

    def get_params(self) -> dict[str, Any]:
        return {"quality": self.py_random.randint(*self.quality_range)}

    def apply(self, img: np.ndarray, quality: int = 75, **_: Any) -> np.ndarray:
        # simplejpeg decodes to RGB at once, but cannot encode with the accurate cosine transform
        blue_first = cv2.cvtColor(img, cv2.COLOR_RGB2BGR)
        return simplejpeg.decode_jpeg(cv2.imencode(".jpg", blue_first, (cv2.IMWRITE_JPEG_QUALITY, quality))[1], "RGB")


class WebP(Jpeg):
    """A round trip through lossy WebP, at libwebp's default effort.

    Args:
        quality_range: integers in [1, 100], uniform, both ends drawn.
    """

    def __init__(self, quality_range: Range = (50, 100), p: float = 0.5) -> None:
        super().__init__(quality_range, p)

    def apply(self, img: np.ndarray, quality: int = 75, **_: Any) -> np.ndarray:
        data = io.BytesIO()
        Image.fromarray(img).save(data, "WEBP", quality=quality)
        return np.array(Image.open(data).convert("RGB"))


_METHODS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4}


class Rescale(_Degradation):
    """Shrink by area averaging, which does not alias, and enlarge to the old size; geometry and mask stay.

    Args:
        scale_range: size of the small image as a share of the old one, in (0, 1], uniform; the same for both sides.
        enlarge: `linear`, `cubic` or `lanczos`; None draws one of them.
    """

    def __init__(self, scale_range: Range = (0.5, 1.0), enlarge: str | None = None, p: float = 0.5) -> None:
        super().__init__(p)
        self.scale_range = _checked("scale_range", scale_range, 0.01, 1)
        if enlarge is not None and enlarge not in _METHODS:
            raise ValueError(f"enlarge is {enlarge!r}, it must be one of {', '.join(_METHODS)}")
        self.enlarge = list(_METHODS) if enlarge is None else [enlarge]

    def get_params(self) -> dict[str, Any]:
        scale = self.py_random.uniform(*self.scale_range)
        return {"scale": scale, "enlarge": _METHODS[self.py_random.choice(self.enlarge)]}

    def apply(self, img: np.ndarray, scale: float = 0.5, enlarge: int = cv2.INTER_CUBIC, **_: Any) -> np.ndarray:
        height, width = img.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        if small == (width, height):
            return img
        return cv2.resize(cv2.resize(img, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=enlarge)


class Resample(DualTransform):
    """Bring an image to another size, antialiased bilinear, and its mask with it by nearest pixel; nothing is cut off.

    Args:
        scale: the new sides as a share of the old ones. With `longest`, only of images that are no longer than that.
        shortest: the shorter side in pixels; smaller images are enlarged. The longer side becomes at most 8 times as
            long, so that a very long image does not take all memory.
        longest: the longer side in pixels of images whose longer side is longer.
        p: probability.

    Raises:
        ValueError: numbers that are not positive, or none, or `shortest` beside another.
    """

    def __init__(
        self, scale: float | None = None, shortest: int | None = None, longest: int | None = None, p: float = 0.5
    ) -> None:
        for name, value in (("scale", scale), ("shortest", shortest), ("longest", longest)):
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise ValueError(f"{name} is {value!r}, it must be a number above 0")
        if (shortest is None) == (scale is None and longest is None):
            raise ValueError("it takes shortest alone, or scale, longest or both of them")
        super().__init__(p=p)
        self.scale, self.shortest, self.longest = scale, shortest, longest

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return the new height and width of an image."""
        shorter, longer = sorted((height, width))
        if self.shortest is not None:
            factor = min(self.shortest / shorter, 8 * self.shortest / longer)
        elif self.longest is not None and longer > self.longest:
            factor = self.longest / longer
        else:
            factor = self.scale or 1.0
        return max(1, round(height * factor)), max(1, round(width * factor))

    def apply(self, img: np.ndarray, **_: Any) -> np.ndarray:
        return interpolated((img, None), *self.size(*img.shape[:2]))[0]

    def apply_to_mask(self, mask: np.ndarray, **_: Any) -> np.ndarray:
        return resize_nearest(mask, self.size(*mask.shape[:2]))


class PcaLighting(_Degradation):
    """Add to every pixel the sum of the image's principal colour axes, each times alpha and its variance.

    In scale as `FancyPCA` of albumentations 1: one alpha for the three axes, values in [0, 1], the result cut off to
    uint8. (That one multiplies by the transposed axes, against the paper; version 2 stretches the colours along the
    axes instead.) The sign of an axis is arbitrary; here its components' sum is not negative, so that every library
    gives the same.

    Args:
        std: standard deviation of alpha, whose mean is 0.
    """

    def __init__(self, std: float = 0.1, p: float = 0.5) -> None:
        super().__init__(p)
        if not std >= 0:
            raise ValueError(f"std is {std}, it must not be negative")
        self.std = float(std)

    def get_params(self) -> dict[str, Any]:
        return {"alpha": self.py_random.gauss(0.0, self.std)}

    def apply(self, img: np.ndarray, alpha: float = 0.1, **_: Any) -> np.ndarray:
        pixels = img.reshape(-1, 3).astype(np.float32)
        pixels -= pixels.mean(0)
        variance, axes = np.linalg.eigh((pixels.T @ pixels).astype(np.float64) / (max(1, len(pixels) - 1) * 255**2))
        axes = axes * np.where(axes.sum(0) < 0, -1, 1)
        shift = 255 * alpha * (axes @ variance)
        table = np.clip(np.arange(256)[:, None] + shift, 0, 255).astype(np.uint8)
        return cv2.LUT(img, table[None])


class GaussianNoise(_Degradation):
    """Add independent Gaussian noise to every value.

    Args:
        std_range: standard deviation in grey levels, uniform.
    """

    def __init__(self, std_range: Range = (1.0, 8.0), p: float = 0.5) -> None:
        super().__init__(p)
        self.std_range = _checked("std_range", std_range, 0, 255)

    def get_params(self) -> dict[str, Any]:
        return {"std": self.py_random.uniform(*self.std_range), "seed": self.py_random.getrandbits(24)}

    def apply(self, img: np.ndarray, std: float = 1.0, seed: int = 0, **_: Any) -> np.ndarray:
        noise = std * np.random.default_rng(seed).standard_normal(img.shape, np.float32)
        return np.clip(np.rint(img + noise), 0, 255).astype(np.uint8)
