"""Spectra beside the features of a foundation model, each value z-scored, and one classifier on all of them.

    image -> frozen encoder (CLIP, DINOv2, ...) -> D values   -+
          -> [further frozen encoders]          -> D' values  -+
          -> log-DCT of the centre, grey or rgb -> S x S      -+-> z-scores -> logistic regression, or a perceptron
          -> [log-DCT of its noise]             -> S x S      -+

A foundation model knows what pictures show and carries over to unseen generators; spectra show what up-sampling leaves
behind. Abdullah et al. (IEEE S&P 2024, arXiv 2404.16212) found spectra the best of eight detectors on fakes of
customised models, and their sum with such features better still; their code has no such detector, so the shape is ours.
"""

import copy
import math
from collections.abc import Mapping
from types import GenericAlias
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfl.detectors.fitted import LogisticHead, Penalty
from dfl.detectors.probes.encoded import Probe
from dfl.errors import UserError, near
from dfl.networks import About, Encoder, LogDct, ZScore
from dfl.networks.spectrum import Colour, Denoiser, Values
from dfl.networks.zoo.spectrum_mlp import SpectrumMlp
from dfl.runs import plain

#: What a spectrum is told by, each with its kind.
SPECTRUM: dict[str, Any] = {"size": int, "colour": Colour, "values": Values, "noise": Denoiser | None}


class Fusion(Probe):
    """A classifier fitted to spectra and to the features of a frozen encoder.

    Args:
        spectra: Arguments of `LogDct`, one table a spectrum: ``size``, at most that of the images, ``colour``,
            ``values``, ``noise``. What is left out: 64 px, grey.
        head: ``logistic``: scikit-learn's regression; ``mlp``: the perceptron of Abdullah et al., see `MlpHead`.
        penalty: Of the squared weights of the regression, relative to the sum of the losses, or ``auto``.
        beside: timm names of further encoders, which give their pooled features of images of the same size.
        beside_weights: A local file or timm tag for each of them; by default timm's.
        denoiser: File of the learned denoiser, for spectra with ``noise: dncnn``, see `DnCnn`.
        **kwargs: Of `Probe`: the encoder.

    Raises:
        UserError: For a spectrum that is larger than the images, or told by other words; for weights that are not as
            many as encoders.
    """

    about = About("foundation models", "Abdullah et al.", 2024)
    places = (*Probe.places, "beside_weights", "denoiser")
    bases = (*Probe.bases, "beside_weights", "denoiser")

    kinds: ClassVar[dict[str, Any]] = {**Probe.kinds, "spectra": GenericAlias(list, (SPECTRUM,))}

    def __init__(
        self,
        spectra: tuple[dict[str, Any], ...] = ({"size": 64},),
        head: Literal["logistic", "mlp"] = "logistic",
        penalty: Penalty = 1.0,
        beside: tuple[str, ...] = (),
        beside_weights: tuple[str, ...] = (),
        denoiser: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if beside_weights and len(beside_weights) != len(beside):
            raise UserError(f"beside_weights: {len(beside_weights)} for {len(beside)} encoders: give one for each")
        named = zip(beside, beside_weights or [None] * len(beside), strict=True)
        pretrained, size = kwargs.get("pretrained", True), self.input_size
        others = [Encoder(name, pretrained, weights, input_size=size) for name, weights in named]
        self.beside = nn.ModuleList(others)
        if denoiser is not None and not any(dict(words).get("noise") == "dncnn" for words in spectra):
            raise UserError(f"model.denoiser {denoiser} is the file of noise=dncnn, and no spectrum has that")
        built = [self._spectrum(dict(words), denoiser) for words in spectra]
        self.spectra = nn.ModuleList(built)
        dim = sum(one.dim for one in (self.encoder, *others)) + sum(math.prod(one.shape) for one in built)
        self.head = LogisticHead(dim, penalty) if head == "logistic" else MlpHead(dim)
        self.eval()

    def _spectrum(self, words: dict[str, Any], denoiser: str | None) -> LogDct:
        for name in words:
            if name not in SPECTRUM:
                raise UserError(f"spectra: a spectrum has no {name!r}{near(name, list(SPECTRUM))}")
        try:
            words = {"size": 64, "colour": "grey"} | plain.fit(words, SPECTRUM)
        except plain.Misfit as error:
            raise UserError(f"spectra: one {error}") from error
        if not 1 <= words["size"] <= self.input_size:
            raise UserError(f"spectra: a size of {words['size']} px does not fit into images of {self.input_size} px")
        return LogDct(**words, denoiser=denoiser if words.get("noise") == "dncnn" else None)

    def stored_weights(self) -> Mapping[str, Tensor]:
        """Return the weights of all encoders."""
        others = self.beside.state_dict(prefix="beside.", keep_vars=True)
        return {**super().stored_weights(), **others}

    def stored_settings(self) -> str:
        """Return what else their features depend on; with one encoder that of `LinearProbe`, which shares the store."""
        return "\n".join([super().stored_settings(), *(one.settings for one in self._others())])

    def _others(self) -> list[Encoder]:
        return list(self.beside)  # type: ignore[arg-type]

    def _encoded(self, image: Tensor) -> Tensor:
        return torch.cat([one(image) for one in (self.encoder, *self._others())], 1)

    def features(self, image: Tensor) -> Tensor:
        """Return the encoders' features and the spectra, one after the other (N, D)."""
        parts = [self.kept(image, self._encoded), *(spectrum(image).flatten(1) for spectrum in self.spectra)]
        return torch.cat(parts, 1)


class MlpHead(nn.Module):
    """A perceptron on z-scored features, trained once, always the same way: D -> 512 -> 32 -> 1.

    The recipe is that of Abdullah et al.: dropout 0.1, Adam 1e-3, weight decay 1e-3, 30 epochs; batches of 32.

    Args:
        features: D.
        epochs: How often each image is seen.
    """

    def __init__(self, features: int, epochs: int = 30) -> None:
        super().__init__()
        self.epochs = epochs
        self.zscore = ZScore(features)
        self.network = SpectrumMlp((1, features), num_classes=1, drop_rate=0.1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, D) to (N,) float32."""
        return self.network(self.zscore(features))[:, 0]

    def fit(self, features: Tensor, label: Tensor) -> None:
        """Fit the z-scores and the perceptron, on the CPU, from seed 0.

        Args:
            features: (n, D).
            label: (n,) long.
        """
        own = copy.deepcopy(self).cpu()
        own.zscore.fit([features])
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.manual_seed(0)
            network = SpectrumMlp((1, features.shape[1]), num_classes=1, drop_rate=0.1).train()
            optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-3)
            scores, wanted = own.zscore(features), label.float()
            for _ in range(self.epochs):
                for rows in torch.randperm(len(label)).split(32):
                    optimizer.zero_grad()
                    F.binary_cross_entropy_with_logits(network(scores[rows])[:, 0], wanted[rows]).backward()
                    optimizer.step()
        own.network = network
        self.load_state_dict(own.state_dict())
