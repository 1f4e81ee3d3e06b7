"""The attention maps of FFD (Dang et al., CVPR 2020): one number for each place, by which features are multiplied."""

import zipfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.models.xception import Block
from torch import Tensor, nn

from dfl.errors import UserError

#: Side of the templates, in cells: of the maps of Xception's middle flow at 299 px.
SIDE = 19


class Regression(nn.Module):
    """Direct regression: a separable 3 x 3 convolution to one channel, without bias; of 728, 7,280 parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, 1, 1, bias=False)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, C, h, w) to the map and its log-odds, (N, 1, h, w) each."""
        logit = self.pointwise(self.conv1(feature))
        return logit.sigmoid(), logit.float()


class Appearance(nn.Module):
    """Manipulation appearance model: a weighted sum of fixed templates; 1,079,634 parameters of 728 channels.

    With a mean it is the paper's form, the mean mask plus a weighted sum of principal components; without one that of
    the published code. The sum is not kept in [0, 1]; as a probability it is clamped. Maps of another size than the
    templates, on which the published code stops, get them resized.

    Args:
        channels: of the features.
        templates: (K, h, w) float32.
        mean: (h, w) float32, added with a weight of 1; or None.
    """

    templates: Tensor
    mean: Tensor | None

    def __init__(self, channels: int, templates: Tensor, mean: Tensor | None = None) -> None:
        super().__init__()
        self.block = Block(channels, channels // 2, 2, 2, start_with_relu=True, grow_first=False)
        self.linear = nn.Linear(channels // 2, len(templates))
        self.register_buffer("templates", templates)
        self.register_buffer("mean", mean)

    def set_templates(self, templates: Tensor, mean: Tensor | None) -> None:
        """Take other templates; if they are more or fewer, the layer that weighs them begins anew."""
        if len(templates) != len(self.templates):
            self.linear = nn.Linear(self.linear.in_features, len(templates)).to(self.linear.weight)
        self.templates = templates.to(self.templates)
        self.mean = None if mean is None else mean.to(self.templates)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """Map features (N, C, h, w) to the map and its log-odds as a probability, (N, 1, h, w) each."""
        weight = self.linear(F.relu(self.block(feature)).mean((2, 3)))
        size = (feature.shape[2], feature.shape[3])
        value = torch.einsum("nk,khw->nhw", weight.float(), _resized(self.templates, size))[:, None]
        if self.mean is not None:
            value = value + _resized(self.mean[None], size)
        return value, value.clamp(1e-6, 1 - 1e-6).logit()


def _resized(shapes: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring templates (K, h, w) to the size of a map."""
    if tuple(shapes.shape[1:]) == size:
        return shapes
    return F.interpolate(shapes[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def read_templates(path: str | None) -> tuple[Tensor, Tensor | None]:
    """Return templates (K, h, w) float32, and the mean (h, w) that belongs to them or None.

    FFD's own are ten PNG files of its code, an all-black and an all-white one among them; its paper takes the mean and
    the first principal components of masks, which ``dfl data templates`` computes. Where there are neither, ours stand
    in: nothing, everything, the halves, and soft discs.

    Args:
        path: A folder of PNG files of 19 x 19 pixels, taken by name, values in [0, 1]; an ``.npz`` file with
            ``components`` (K, h, w) and, where it has one, ``mean`` (h, w); an ``.npy`` file (K, h, w) or (K, 361),
            rows of 19 x 19; None for ours.

    Raises:
        UserError: If nothing is there, or what is there is something else.
    """
    if path is None:
        y, x = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
        halves = [(a > 0).float() for a in (y, -y, x, -x)]
        places = ((0.0, 0.0, 0.6), (-0.35, -0.4, 0.35), (-0.35, 0.4, 0.35), (0.45, 0.0, 0.4))  # face, eyes, mouth
        discs = [(-((y - a) ** 2 + (x - b) ** 2) / (2 * r**2)).exp() for a, b, r in places]
        return torch.stack([torch.zeros_like(x), torch.ones_like(x), *halves, *discs]), None
    file = Path(path).expanduser()
    if file.suffix in (".npz", ".npy"):
        return _of_array(file)
    images = [np.asarray(Image.open(f).convert("L"), dtype=np.float32) / 255 for f in sorted(file.glob("*.png"))]
    if not images or any(image.shape != (SIDE, SIDE) for image in images):
        raise UserError(
            f"templates {path!r} must be an .npz or .npy file, or a folder of PNG files of {SIDE}x{SIDE} pixels"
        )
    return torch.from_numpy(np.stack(images)), None


def _of_array(file: Path) -> tuple[Tensor, Tensor | None]:
    """Read templates from a file of NumPy, which may hold numbers only."""
    try:
        arrays = np.load(file, allow_pickle=False)
        templates = np.asarray(arrays["components"] if file.suffix == ".npz" else arrays, dtype=np.float32)
        mean = np.asarray(arrays["mean"], dtype=np.float32) if file.suffix == ".npz" and "mean" in arrays else None
    except FileNotFoundError:
        raise UserError(f"no templates '{file}' (looked in {file.absolute().parent})") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"templates {file} cannot be read as arrays: {error}") from error
    if templates.ndim == 2 and templates.shape[1] == SIDE * SIDE:
        templates = templates.reshape(-1, SIDE, SIDE)
    fits = templates.ndim == 3 and templates.size and np.isfinite(templates).all()
    if not fits or (mean is not None and (mean.shape != templates.shape[1:] or not np.isfinite(mean).all())):
        shapes = f"components {templates.shape}" + ("" if mean is None else f", mean {mean.shape}")
        raise UserError(f"templates {file} must be finite, components (K, h, w) and mean (h, w), and are {shapes}")
    return torch.from_numpy(templates), None if mean is None else torch.from_numpy(mean)
