"""How far the textures of two pictures lie apart: Gram matrices of VGG's features (Gatys et al., 2016).

    both resized alike -> VGG -> F (C, H W) of relu1_1 ... relu5_1 -> G = F F^T -> sum of |G - G'| over the five

A picture made from a photo's caption is kept where it is closer to the photo than two strangers usually are: the
threshold is a quantile of the distances of pairs of different photos. Gram matrices say what textures and colours there
are, not where: the distance tells a smooth face from a grainy one, and knows no person.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor

from dfl.data.decoding import DecodeError
from dfl.errors import UserError, first_line
from dfl.networks import Normalize
from dfl.networks.vgg import Vgg
from dfl.networks.weights import weights_file
from dfl.tools.forge.models.base import Check, files_hash
from dfl.tools.forge.photos import resized

Network = Literal["vgg19", "vgg16_bgr"]
#: What a sum over all pairs of channels is divided by: C^2 and, where named, C, H and W. ``paper`` divides by nothing.
Norm = Literal["chw", "hw", "raw", "paper"]
#: Depth, whether channels are turned round, and mean and deviation of images in [0, 1]; Caffe's has pixels up to 255.
_CAFFE = (tuple(m / 255 for m in (104.007, 116.669, 122.679)), (1 / 255,) * 3)
NETWORKS: dict[str, tuple[int, bool, Any]] = {
    "vgg19": (19, False, (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)),
    "vgg16_bgr": (16, True, _CAFFE),
}
#: Quantiles of the calibration that are recorded: another threshold needs no new pictures.
QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)


class GramCheck(Check):
    """Distances of made pictures from their photos, and up to which distance they are close enough.

    Args:
        weights: Of the network: a local file with torchvision's names.
        network: ``vgg19`` as torchvision trained it, or ``vgg16_bgr`` for VGG16's weights of Caffe's kind, whose
            images are BGR, 0 to 255, minus a mean.
        norm: ``chw`` and ``hw`` take the mean of \\|G - G'\\| / (C H W) or / (H W), ``raw`` that of \\|G - G'\\|,
            ``paper`` its sum.
        size: Side in pixels that both pictures are brought to.
        threshold: Largest distance that is close enough; by default `calibrate` finds it.
        quantile: Which share of pairs of different photos is to be closer than the threshold.
        pairs: Of different photos, at most.
        photos: That pairs are drawn of, at most.

    Raises:
        UserError: If there is no such file, or for a number out of bounds.
    """

    def __init__(
        self,
        weights: str,
        network: Network = "vgg19",
        norm: Norm = "chw",
        size: int = 256,
        threshold: float | None = None,
        quantile: float = 0.5,
        pairs: int = 500,
        photos: int = 128,
    ) -> None:
        if size < 16 or not 0 < quantile < 1 or pairs < 1 or photos < 2 or not (threshold or 0) >= 0:  # nan too
            raise UserError(
                "GramCheck takes size >= 16, quantile within 0 and 1, pairs >= 1, photos >= 2, threshold >= 0, not "
                f"{size}, {quantile}, {pairs}, {photos}, {threshold}"
            )
        self.weights = weights_file(weights)
        self.layers, self.norm, self.size = network, norm, size
        self.given, self.quantile, self.pairs, self.photos = threshold, quantile, pairs, photos
        self.threshold = threshold

    def open(self, device: str, dtype: torch.dtype) -> None:
        """Load the weights, which stay float32: the largest sums are beyond 16 bits.

        Raises:
            UserError: If the file is none of weights, or of another network.
        """
        depth, self.bgr, view = NETWORKS[self.layers]
        self.device, self.normalize = device, Normalize(*view).to(device)
        self.network = Vgg(str(self.weights.absolute()), depth).to(device)

    def about(self) -> dict[str, Any]:
        """Return what distances and threshold depend on beside the photos, as JSON stores it."""
        names = ("norm", "size", "quantile", "pairs", "photos")
        settings = {"network": self.layers, "threshold": self.given} | {name: getattr(self, name) for name in names}
        return settings | {"sha256": files_hash([self.weights])}

    @torch.no_grad()
    def grams(self, picture: np.ndarray) -> list[Tensor]:
        """Return the Gram matrices of uint8 (H, W, 3) as it is: five of float32 (C, C), divided as ``norm`` says.

        One picture at a time: the rounding of sums depends on the batch.
        """
        image = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)[None].float() / 255
        # TF32 is too coarse for a difference of sums of 10^5 products
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
            taps = self.network(self.normalize(image.flip(1) if self.bgr else image))
        return [self._gram(tap[0].flatten(1)) for tap in taps]

    def _gram(self, features: Tensor) -> Tensor:
        channels, places = features.shape
        by = {"chw": channels * places, "hw": places}.get(self.norm, 1)
        return features @ features.T / by

    def between(self, one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
        """Return the distance of two pictures by their Gram matrices."""
        errors = [(a - b).abs() for a, b in zip(one, other, strict=True)]
        return float(sum((e.sum() if self.norm == "paper" else e.mean()).double() for e in errors))

    def __call__(self, photos: Sequence[np.ndarray], made: Sequence[np.ndarray]) -> list[float]:
        """Return the distance of each made picture from its photo, uint8 (H, W, 3) each of its own size."""
        return [self.between(self.at_size(a), self.at_size(b)) for a, b in zip(photos, made, strict=True)]

    def at_size(self, picture: np.ndarray) -> list[Tensor]:
        """Return the Gram matrices of a picture at the size at which all are compared."""
        return self.grams(resized(picture, (self.size, self.size)))

    def calibrate(self, photos: Sequence[Callable[[], np.ndarray]], people: Sequence[str], seed: int) -> dict[str, Any]:
        """Set the threshold from pairs of different photos, unless it is given; see `Check.calibrate`.

        Photos of one person are no pair, and a photo that raises DecodeError is in none.

        Returns:
            ``threshold``, the number ``n`` of pairs, and quantiles of their distances.

        Raises:
            UserError: If no two photos can be compared.
        """
        if self.given is not None:
            return {"threshold": self.given, "n": 0}
        distances = self.strangers(photos, people, seed)
        self.threshold = float(np.quantile(distances, self.quantile))
        print(f"{self.quantile:.0%} of {len(distances):,} pairs of different photos are within {self.threshold:.4g}")
        quantiles = {str(q): float(np.quantile(distances, q)) for q in QUANTILES}
        return {"threshold": self.threshold, "n": len(distances), "quantiles": quantiles}

    def check_photos(self, photos: Sequence[Callable[[], Any]], people: Sequence[str]) -> None:
        """Raise a UserError if a threshold is wanted, and no two photos of different people open; two open if so."""
        if self.given is not None:
            return
        first, why = None, ""
        for photo, person in zip(photos, people, strict=True):
            if person and person == first:
                continue
            try:
                photo()
            except DecodeError as error:
                why = _unread(error)
            else:
                if first is not None:
                    return
                first = person
        raise _no_pair(len(photos), why)

    def strangers(self, photos: Sequence[Callable[[], np.ndarray]], people: Sequence[str], seed: int) -> list[float]:
        """Return the distances of the pairs of different photos that are drawn; see `calibrate`."""
        rng, why = np.random.default_rng(seed), ""
        grams: dict[int, list[Tensor]] = {}
        for i in rng.permutation(len(photos)).tolist():
            if len(grams) == self.photos:
                break
            try:
                grams[i] = self.at_size(photos[i]())
            except DecodeError as error:
                why = _unread(error)
        pairs = [(i, j) for i, j in combinations(sorted(grams), 2) if not (people[i] and people[i] == people[j])]
        if not pairs:
            raise _no_pair(len(photos), why)
        chosen = rng.choice(len(pairs), min(self.pairs, len(pairs)), replace=False)
        return [self.between(grams[i], grams[j]) for i, j in (pairs[k] for k in sorted(chosen))]


def _unread(error: DecodeError) -> str:
    return f"; one cannot be read: {first_line(error)}"


def _no_pair(photos: int, why: str = "") -> UserError:
    return UserError(
        f"the threshold comes from pairs of different photos of the training split, and of its {photos} no two can be "
        f"compared{why}; give a threshold"
    )
