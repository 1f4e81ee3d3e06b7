"""Spectra of images, z-scored, and a classifier: Frank et al., Leveraging Frequency Analysis for Deep Fake Image
Recognition (ICML 2020), and Abdullah et al., An Analysis of Recent Advances in Deepfake Image Detection in an Evolving
Threat Landscape (IEEE S&P 2024), who found spectra the best of eight detectors.

Upsampling leaves traces in the high frequencies. The feature is ln(|c| + 1e-12) of the coefficients c of an
orthonormal DCT-II over rows and columns (`dfl.networks.LogDct`), each z-scored by mean and population variance over
training images.

`Dct` is a logistic regression, fitted. The published ridge regression is Keras's; here it is scikit-learn's with the
same penalty of squared weights, so its numbers are near, not equal. `DctNetwork` trains a network on the maps: the
small CNN of Frank et al., or the multilayer perceptron of Abdullah et al., whose code calls it LogisticRegression.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dfl.detectors.classifier import Classifier
from dfl.detectors.fitted import FittedDetector, LogisticHead, Penalty
from dfl.errors import UserError
from dfl.networks import About, LogDct, ZScore
from dfl.networks.spectrum import Colour, Denoiser, Values, channels


class Dct(FittedDetector):
    """Logistic regression on z-scored log-DCT coefficients.

    Args:
        input_size: Side S of the images in pixels.
        colour: ``rgb``: S x S x 3 coefficients; ``grey``: S x S of Pillow's L.
        penalty: Of the squared weights, relative to the sum of the losses; ``auto``: by cross-validation.
        noise: Adds the coefficients of the noise, by this denoiser, see `LogDct`.
        denoiser: File of the learned denoiser, see `DnCnn`.
        **kwargs: Of `Detector`.
    """

    about = About("frequency", "Frank et al.", 2020)
    places = (*FittedDetector.places, "denoiser")
    fits_in = torch.float32

    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)

    def __init__(
        self,
        input_size: int = 128,
        colour: Colour = "rgb",
        penalty: Penalty = 1.0,
        noise: Denoiser | None = None,
        denoiser: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_size=input_size, **kwargs)
        self.spectrum = LogDct(input_size, colour, noise=noise, denoiser=denoiser)
        self.head = LogisticHead(input_size**2 * self.spectrum.shape[0], penalty)

    def features(self, image: Tensor) -> Tensor:
        """Return the log-coefficients (N, C * S * S), float32; computed in float64."""
        return self.spectrum(image).flatten(1)


class DctNetwork(Classifier):
    """A timm network on z-scored log-DCT maps, trained.

    Args:
        backbone: timm name; ``frank_cnn`` and ``spectrum_mlp`` are those of the papers.
        pretrained: As for `Classifier`; the papers start at random.
        colour: Three maps or one, see `LogDct`.
        values: What the image's values are brought to, see `LogDct`.
        noise: Adds the maps of the noise, by this denoiser, as further channels, see `LogDct`.
        statistics: How many training images, evenly spread, the z-scores are taken from, before the first step. The
            papers take all, in a pass of their own.
        denoiser: File of the learned denoiser, see `DnCnn`.
        **kwargs: Of `Classifier`.
    """

    about = About("frequency", "Frank et al.", 2020)
    places = (*Classifier.places, "denoiser")
    bases = (*Classifier.bases, "denoiser")

    def __init__(
        self,
        backbone: str = "frank_cnn",
        pretrained: bool = False,
        colour: Colour = "rgb",
        values: Values = "bytes",
        noise: Denoiser | None = None,
        statistics: int = 500,
        denoiser: str | None = None,
        **kwargs: Any,
    ) -> None:
        timm_args, maps = kwargs.pop("timm_args", None), channels(colour, noise)
        if (asked := (timm_args or {}).get("in_chans", maps)) != maps:
            raise UserError(f"timm_args.in_chans is {asked}, and an image has {maps} maps here: leave it out")
        for name, value in (("mean", (0.0, 0.0, 0.0)), ("std", (1.0, 1.0, 1.0))):
            if tuple(kwargs.get(name) or value) != value:
                raise UserError(f"a spectrum is of images as they are: leave model.{name} out")
            kwargs[name] = value
        words = (timm_args or {}) | {"in_chans": maps}
        super().__init__(backbone=backbone, pretrained=pretrained, timm_args=words, **kwargs)
        self.hparams["timm_args"] = timm_args  # the number of maps follows from the others
        self.statistics = statistics
        self.spectrum = LogDct(self.input_size, colour, values, noise, denoiser=denoiser)
        self.zscore = ZScore(*self.spectrum.shape)

    def observe(self, sample: Callable[[int], Tensor], counts: Callable[..., dict[int, int]]) -> None:
        """Take mean and standard deviation of every coefficient."""
        super().observe(sample, counts)
        batches = sample(self.statistics).split(16)
        self.zscore.fit(self.spectrum(batch.to(self.zscore.mean.device)) for batch in batches)

    def network_input(self, image: Tensor) -> Tensor:
        """Return the z-scored maps of images (N, 3, H, W) in [0, 1]."""
        return self.zscore(self.spectrum(image))
