"""Spectra beside the features of a foundation model, each value z-scored, and one classifier on all of them.

    image -> frozen encoder (CLIP, DINOv2, ...) -> D values   -+
          -> log-DCT of the centre, grey or rgb -> S x S      -+-> z-scores -> logistic regression, or a perceptron
          -> [log-DCT of its noise]             -> S x S      -+

A foundation model knows what pictures show and carries over to unseen generators; spectra show what up-sampling leaves
behind. Abdullah et al. (IEEE S&P 2024, arXiv 2404.16212) found spectra the best of eight detectors on fakes of
customised models, and their sum with such features better still; their code has no such detector, so the shape is ours.
"""

import copy
import math
from types import GenericAlias
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfl.detectors.fitted import LogisticHead, Penalty
from dfl.detectors.probes.encoded import Probe
from dfl.errors import UserError, near
from dfl.networks import About, LogDct, ZScore
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
        **kwargs: Of `Probe`: the encoder.

    Raises:
        UserError: For a spectrum that is larger than the images, or told by other words.
    """

    about = About("foundation models", "Abdullah et al.", 2024)

    kinds: ClassVar[dict[str, Any]] = {**Probe.kinds, "spectra": GenericAlias(list, (SPECTRUM,))}

    def __init__(
        self,
        spectra: tuple[dict[str, Any], ...] = ({"size": 64},),
        head: Literal["logistic", "mlp"] = "logistic",
        penalty: Penalty = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        built = [self._spectrum(dict(words)) for words in spectra]
        self.spectra = nn.ModuleList(built)
        dim = self.encoder.dim + sum(math.prod(one.shape) for one in built)
        self.head = LogisticHead(dim, penalty) if head == "logistic" else MlpHead(dim)
        self.eval()

    def _spectrum(self, words: dict[str, Any]) -> LogDct:
        for name in words:
            if name not in SPECTRUM:
                raise UserError(f"spectra: a spectrum has no {name!r}{near(name, list(SPECTRUM))}")
        try:
            words = {"size": 64, "colour": "grey"} | plain.fit(words, SPECTRUM)
        except plain.Misfit as error:
            raise UserError(f"spectra: one {error}") from error
        if not 1 <= words["size"] <= self.input_size:
            raise UserError(f"spectra: a size of {words['size']} px does not fit into images of {self.input_size} px")
        return LogDct(**words)

    def features(self, image: Tensor) -> Tensor:
        """Return the encoder's features and the spectra, one after the other (N, D)."""
        parts = [super().features(image), *(spectrum(image).flatten(1) for spectrum in self.spectra)]
        return torch.cat(parts, 1)

    def fit(self, features: Tensor, label: Tensor) -> None:
        """Fit the z-scores and the classifier."""
        self.head.fit(features, label)

    def score(self, features: Tensor) -> Tensor:
        """Return the log-odds of fake (N,)."""
        return self.head(features)


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
            features: (n, D) float64.
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
