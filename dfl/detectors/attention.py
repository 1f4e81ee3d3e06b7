"""FFD (Dang et al., CVPR 2020), and what Tantaru et al. (WACV 2024) made of it: "Attention".

A map, one number for each place, is computed from the features in the middle of an Xception, and the features are
multiplied by it. It says where the image is manipulated, and the classifier behind it sees those places only.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pytorch_lightning.cli import OptimizerCallable
from timm.models.xception import Block
from torch import Tensor, nn, optim
from torchvision.models.feature_extraction import create_feature_extractor

from dfl.detectors.base import Detector, Losses
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError
from dfl.losses import cross_entropy, largest_loss, mask_loss
from dfl.metrics.localization import Protocol
from dfl.networks import About, create_backbone, find_layer, layer_width, load_named, usual_layer, wants_file
from dfl.networks.backbone import is_file, skips_weights

#: What the files of FFD hold beyond what it uses.
UNUSED = ("map.", "bnmap.", "convmap", "linearmap.")
#: Side of the templates, in cells: of the maps of Xception's middle flow at 299 px.
SIDE = 19


class AttentionOutputs(Outputs, total=False):
    """Outputs with the map that features are multiplied by."""

    map: Tensor  # (N, h, w)


class AttentionXception(Detector):
    """An Xception (or another timm CNN) with an attention map in its middle that labels or masks supervise.

    Args:
        map: ``regression``, one convolution; ``appearance``, a weighted sum of fixed templates (MAM).
        supervision: ``label``: the largest value of the map is compared with the image's label; ``mask``: the map
            against the mask, of the images that have one.
        map_loss: ``bce`` (dolos), in its exact form with logits; ``l1`` (FFD; with labels the largest value is drawn
            to 0 for real and 0.75 for fake images).
        map_weight: Weight of the map's loss; 1 in the released configs of both.
        label_weight: Weight of the cross-entropy of the image. With 0 (dolos with masks) nothing behind the map would
            be trained, so it is left out, and the image's score is the map's largest value.
        mask_resize: How masks are brought to the map's size: ``nearest``; ``bilinear`` as dolos does for this detector.
        backbone: timm name of a CNN.
        layer: Dotted name of the layer after which the map is, ``block7`` of Xception by default, of others the last
            feature map.
        templates: Of ``appearance``: a file that ``dfl data templates`` made of masks (``.npz``: mean and components,
            the paper's form), an ``.npy`` file, or a folder of PNG files as FFD's code has; by default ten of our own.
        pretrained: Start from ImageNet weights.
        weights: Where from: a local file (official ones of FFD and dolos, ImageNet's, a checkpoint of ``dfl``), or a
            timm tag. dolos starts from FFD's, which were trained with masks.
        input_size: Side of the images in pixels.
        protocol: Whose localization metrics, see `Localization`.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Detector`.

    Raises:
        UserError: For a layer that the backbone does not have, and for weights that do not fit.
    """

    about = About("localization", "Dang et al.", 2020)

    channels_last = True

    places = (*Detector.places, "templates")
    shaping = ("templates",)

    def __init__(
        self,
        map: Literal["regression", "appearance"] = "regression",
        supervision: Literal["label", "mask"] = "label",
        map_loss: Literal["bce", "l1"] = "bce",
        map_weight: float = 1.0,
        label_weight: float = 1.0,
        mask_resize: Literal["nearest", "bilinear"] = "nearest",
        backbone: str = "legacy_xception",
        layer: str | None = None,
        templates: str | None = None,
        pretrained: bool = True,
        weights: str | None = None,
        input_size: int = 256,
        protocol: Protocol = "dfl",
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=1e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(input_size, optimizer, **kwargs)
        self.protocol = protocol
        self.supervision, self.map_loss, self.mask_resize = supervision, map_loss, mask_resize
        self.map_weight, self.label_weight = map_weight, label_weight
        own = weights is not None and is_file(weights)
        network: Any = create_backbone(backbone, pretrained and not own, None if own else weights, num_classes=2)
        self.network = network
        self.layer = layer or usual_layer(network, "block7")
        channels = layer_width(network, self.layer)
        network.map = Regression(channels) if map == "regression" else self._appearance(channels, templates)
        if wants_file(weights):
            load_named(network, str(weights), spare=UNUSED, fresh=("fc.", "map."))
        self._of_layer: list[tuple[Tensor, Tensor]] = []
        if label_weight == 0:
            attention = network.map
            del network.map
            self.network = create_feature_extractor(network, {self.layer: "feature"})
            self.network.map = attention
        else:
            find_layer(network, self.layer).register_forward_hook(self._gate)

    @staticmethod
    def _appearance(channels: int, file: str | None) -> "Appearance":
        """Return the map of templates; a checkpoint brings its own, so their file need not be there to open it."""
        if file is not None and skips_weights() and not Path(file).expanduser().exists():
            file = None
        return Appearance(channels, *read_templates(file))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the templates of the checkpoint, however many they are."""
        super().on_load_checkpoint(checkpoint)
        state, own = checkpoint["state_dict"], self.network.map
        if isinstance(own, Appearance) and (templates := state.get("network.map.templates")) is not None:
            own.set_templates(templates, state.get("network.map.mean"))

    def _gate(self, module: nn.Module, args: Any, out: Tensor) -> Tensor:
        """Multiply what the layer gives by the map."""
        value, logit = self.network.map(out)
        self._of_layer[:] = [(value, logit)]
        return out * value.to(out.dtype)

    def forward(self, image: Tensor) -> AttentionOutputs:
        """Return ``logit`` (N,), ``mask_logit`` (N, h, w) float32, ``map`` (N, h, w), and ``logits`` (N, 2).

        ``map`` is what the features are multiplied by; ``logits`` are not there with a ``label_weight`` of 0.
        """
        if self.label_weight == 0:
            value, logit = self.network.map(self.network(self.normalize(image))["feature"])
            return {"logit": logit.flatten(1).amax(1), "mask_logit": logit[:, 0], "map": value[:, 0]}
        logits = self.network(self.normalize(image))
        value, logit = self._of_layer.pop()
        score = logits[:, 1] - logits[:, 0]
        return {"logit": score, "logits": logits, "mask_logit": logit[:, 0], "map": value[:, 0]}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` = label_weight x ``ce`` + map_weight x ``map``."""
        return self._losses(out, batch, each=False)

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of every image."""
        return self._losses(out, batch, each=True)["loss"]

    def _losses(self, out: Any, batch: Mapping[str, Any], each: bool) -> Losses:
        weight, kind = batch.get("weight"), self.map_loss
        if self.supervision == "mask":
            has_mask, resize = batch["has_mask"], self.mask_resize
            of_map = mask_loss(out["mask_logit"], batch["mask"], has_mask, resize, kind, out["map"], each)
        else:
            of_map = largest_loss(out["mask_logit"], batch["label"], kind, out["map"], weight, each)
        losses = {"loss": self.map_weight * of_map, "map": of_map}
        if self.label_weight:
            losses["ce"] = cross_entropy(out["logits"], batch["label"], weight, each)
            losses["loss"] = losses["loss"] + self.label_weight * losses["ce"]
        return losses


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
