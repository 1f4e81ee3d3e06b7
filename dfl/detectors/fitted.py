"""Detectors without gradients: a frozen feature, one pass over the training data, and a fit of all that it gave.

    features(image) -> (N, D)      of a frozen network, or of no network at all
    fit(features, label)           once, at the end of the pass, before it is validated: fills buffers and parameters
    score(features) -> (N,)        log-odds of fake

The verbs are those of every detector. An epoch is the whole training; a run that is killed in the middle of it starts
again. Over several ranks the features of all of them are fitted, each image once, by rank zero.
"""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from dfl.detectors.base import Detector, Losses
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError
from dfl.losses import binary_cross_entropy
from dfl.metrics.gathered import Gathered


class Collected(Gathered):
    """Labels and features of images, each once, over all ranks."""

    def update(self, index: Tensor, label: Tensor, features: Tensor) -> None:
        """Add a batch."""
        self.add_rows(index, label, features)

    def compute(self) -> Tensor:
        """Return label and features (n, 1 + D), float64 on the CPU, in the order of the table."""
        return self.gathered()[1]


class FittedDetector(Detector):
    """A detector that is fitted to features and takes no optimizer steps.

    Args:
        **kwargs: Of `Detector`; an optimizer is not used.
    """

    one_pass = True
    #: Beginnings of the names of what `fit` fills.
    fitted: tuple[str, ...] = ("head.",)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.automatic_optimization = False
        self._rows: Collected | None = None

    @abstractmethod
    def features(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to features (N, D), without randomness."""

    @abstractmethod
    def fit(self, features: Tensor, label: Tensor) -> None:
        """Fill what ``fitted`` names.

        Args:
            features: (n, D) float64 on the CPU, of every training image once, in the order of the table.
            label: (n,) long, 0 real, 1 fake.
        """

    @abstractmethod
    def score(self, features: Tensor) -> Tensor:
        """Map features (N, D) to the log-odds of fake (N,)."""

    def forward(self, image: Tensor) -> Outputs:
        """Return ``logit`` (N,) and ``feature`` (N, D)."""
        features = self.features(image)
        return {"logit": self.score(features), "feature": features}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return the cross-entropy of the score; it is looked at, not trained on."""
        return {"loss": binary_cross_entropy(out["logit"], batch["label"])}

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the cross-entropy of every image."""
        return binary_cross_entropy(out["logit"], batch["label"], each=True)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation: nothing inside is trained, and dropout would blur the features."""
        return super().train(False)

    def configure_optimizers(self) -> None:
        """Have none."""

    def on_train_epoch_start(self) -> None:
        """Begin to collect."""
        self._rows = None

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # type: ignore[override]
        """Collect the features of a batch."""
        with torch.no_grad():
            features = self.features(batch["image"])
        if self._rows is None:
            self._rows = Collected(["label", *map(str, range(features.shape[1]))]).to(self.device)
        self._rows.update(batch["index"], batch["label"], features)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Fit at the end of the pass, before what was fitted is validated."""
        if not self.trainer.is_last_batch or self._rows is None:
            return
        rows = self._rows.compute()
        self._rows = None
        self.fit_on_all_ranks(rows[:, 1:], rows[:, 0].long())
        self.trainer.should_stop = True

    def fit_on_all_ranks(self, features: Tensor, label: Tensor) -> None:
        """Fit on rank zero to features (n, D) and labels (n,) of all ranks, and give the others what came of it.

        Raises:
            UserError: If all images are of one class.
        """
        if self.trainer.is_global_zero:
            if len(label.unique()) < 2:
                raise UserError("a detector is fitted to real and fake images, and all of them are of one class")
            self.fit(features, label)
        own = {k: v for k, v in self.state_dict().items() if k.startswith(self.fitted)}
        self.load_state_dict(self.trainer.strategy.broadcast(own), strict=False)


class LogisticHead(nn.Linear):
    """Log-odds of features, z-scored by their mean and population standard deviation: sklearn's logistic regression.

    Args:
        features: D.
        penalty: Of the squared weights, relative to the sum of the losses; ``1 / C`` of scikit-learn.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, penalty: float = 1.0) -> None:
        super().__init__(features, 1)
        self.penalty = penalty
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def forward(self, features: Tensor) -> Tensor:
        """Map (N, D) to (N,) float32."""
        return super().forward((features.float() - self.mean) / self.std)[:, 0]

    @torch.no_grad()
    def fit(self, features: Tensor, label: Tensor) -> None:
        """Fit mean, standard deviation, weights and bias.

        Args:
            features: (n, D) float64.
            label: (n,) long.
        """
        mean, std = features.mean(0), features.std(0, correction=0)
        std = torch.where(std > 0, std, 1.0)
        model = LogisticRegression(C=1 / self.penalty, max_iter=1000)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(((features - mean) / std).numpy(), label.numpy())
        if caught:
            warnings.warn("logistic regression did not converge in 1,000 steps; raise model.penalty", stacklevel=2)
        for own, value in (
            (self.mean, mean),
            (self.std, std),
            (self.weight, model.coef_),
            (self.bias, model.intercept_),
        ):
            own.copy_(torch.as_tensor(value))


class LogisticDetector(FittedDetector):
    """A fitted detector whose score is a logistic regression of its features; a subclass makes the head."""

    head: LogisticHead

    def fit(self, features: Tensor, label: Tensor) -> None:
        """Fit the z-scores and the regression."""
        self.head.fit(features, label)

    def score(self, features: Tensor) -> Tensor:
        """Return the log-odds of fake (N,)."""
        return self.head(features)
