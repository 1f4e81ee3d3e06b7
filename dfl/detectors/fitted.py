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
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from dfl.detectors.base import Detector, Losses
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError
from dfl.losses import binary_cross_entropy

#: Bytes of features that are held together: so many that the system gives each its own pages, and takes them back
#: (glibc from 32 MiB on); smaller blocks lay among the batches, and left holes of 1.5 GB beside a million features.
BLOCK = 2**26
Penalty = float | Literal["auto"]
#: What ``auto`` chooses from, strong to weak.
PENALTIES = (1e5, 1e4, 1e3, 100.0, 10.0, 1.0)


class Collected:
    """Labels and features of images, over all ranks each once.

    They are gathered into blocks, so that while they are put in order there are never two of each in memory.
    """

    def __init__(self) -> None:
        self.index: list[Tensor] = []
        self.label: list[Tensor] = []
        self.blocks: list[Tensor] = []
        self.newest: list[Tensor] = []

    def add(self, index: Tensor, label: Tensor, features: Tensor) -> None:
        """Add a batch: rows in the data set (N,), labels (N,), features (N, D); a wait for the device a block."""
        self.index.append(index)
        self.label.append(label)
        self.newest.append(features.detach())
        if sum(one.nbytes for one in self.newest) > BLOCK:
            self._close()

    def _close(self) -> None:
        self.blocks.append(torch.cat(self.newest).cpu())
        self.newest = []

    def compute(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the features (n, D) and labels (n,) of all ranks, in the order of the table, and forget them.

        Args:
            device: Where the ranks meet.
        """
        if self.newest:
            self._close()
        index, label = torch.cat(self.index).cpu(), torch.cat(self.label).cpu()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts = (index, label, torch.cat(self.blocks))
            index, label, features = (torch.cat([one.cpu() for one in gather_all_tensors(p.to(device))]) for p in parts)
            self.blocks = [features]
        order = index.argsort(stable=True)
        ordered = index[order]
        is_first = torch.cat([torch.ones(min(1, len(order)), dtype=torch.bool), ordered[1:] != ordered[:-1]])
        order = order[is_first & (ordered >= 0)]
        place = torch.full_like(index, -1)
        place[order] = torch.arange(len(order))
        features, at = self.blocks[0].new_empty(len(order), self.blocks[0].shape[1]), len(index)
        while self.blocks:
            block = self.blocks.pop()
            at -= len(block)
            to = place[at : at + len(block)]
            features[to[to >= 0]] = block[to >= 0]
        return features, label[order]


class FittedDetector(Detector):
    """A detector that is fitted to features and takes no optimizer steps.

    Args:
        **kwargs: Of `Detector`; an optimizer is not used.
    """

    one_pass = True
    #: Beginnings of the names of what `fit` fills.
    fitted: tuple[str, ...] = ("head.",)
    #: Module that is fitted by its own ``fit``, and gives the score; or a method has a `fit` and a `score` of its own.
    head: Any
    #: Numbers that `fit` gets.
    fits_in: ClassVar[torch.dtype] = torch.float64

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.automatic_optimization = False
        self._rows: Collected | None = None

    @abstractmethod
    def features(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to features (N, D), without randomness."""

    def fit(self, features: Tensor, label: Tensor) -> None:
        """Fill what ``fitted`` names.

        Args:
            features: (n, D) on the CPU, ``fits_in`` (float64), of every training image once, in the order of the table.
            label: (n,) long, 0 real, 1 fake.
        """
        self.head.fit(features, label)

    def score(self, features: Tensor) -> Tensor:
        """Map features (N, D) to the log-odds of fake (N,)."""
        return self.head(features)

    def forward(self, image: Tensor) -> Outputs:
        """Return ``logit`` (N,) and ``feature`` (N, D)."""
        features = self.features(image)
        kind = features.device.type
        # what was fitted in full precision is scored in it; there is no autocast where there are only shapes
        with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):
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
        """Begin to collect.

        Raises:
            UserError: If nothing is there to fit: said before hours of features, not after.
        """
        inherits = type(self).fit is FittedDetector.fit or type(self).score is FittedDetector.score
        if inherits and not hasattr(self, "head"):
            raise UserError(f"{type(self).__name__} has no head to fit: make one, or write both fit and score")
        self._rows = None

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:  # type: ignore[override]
        """Collect the features of a batch."""
        with torch.no_grad():
            features = self.features(batch["image"])
        if self._rows is None:
            self._rows = Collected()
        self._rows.add(batch["index"], batch["label"], features)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Fit at the end of the pass, before what was fitted is validated."""
        if not self.trainer.is_last_batch or self._rows is None:
            return
        features, label = self._rows.compute(self.device)
        self._rows = None
        self.fit_on_all_ranks(features, label)
        self.trainer.should_stop = True

    def fit_on_all_ranks(self, features: Tensor, label: Tensor) -> None:
        """Fit on rank zero to features (n, D) and labels (n,) of all ranks, and give the others what came of it.

        Raises:
            UserError: If all images are of one class.
        """
        if self.trainer.is_global_zero:
            if len(label.unique()) < 2:
                raise UserError("a detector is fitted to real and fake images, and all of them are of one class")
            self.fit(features.to(self.fits_in), label)
        if self.trainer.world_size > 1:
            own = {k: v for k, v in self.state_dict().items() if k.startswith(self.fitted)}
            self.load_state_dict(self.trainer.strategy.broadcast(own), strict=False)


class Grown(nn.Module):
    """A module whose buffers are as long as what they were fitted to, and take the length of what is loaded into them.

    Before they are fitted their length is 0.
    """

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *words: Any) -> None:
        for name, own in self.named_buffers(recurse=False):
            here = state_dict.get(prefix + name)
            if here is not None and here.ndim == own.ndim and here.shape[1:] == own.shape[1:]:
                setattr(self, name, own.new_empty(here.shape))
        super()._load_from_state_dict(state_dict, prefix, *words)


class LogisticHead(nn.Linear):
    """Log-odds of features, z-scored by their mean and population standard deviation: sklearn's logistic regression.

    Args:
        features: D.
        penalty: Of the squared weights, relative to the sum of the losses; ``1 / C`` of scikit-learn. ``auto``: that of
            `PENALTIES` with the least log loss in a stratified cross-validation of five parts.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, penalty: Penalty = 1.0) -> None:
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
            features: (n, D).
            label: (n,) long.
        """
        scores = features.to(torch.float64, copy=True)  # and in place from here on: they may be half of the memory
        mean, std = scores.mean(0), scores.std(0, correction=0)
        std = torch.where(std > 0, std, 1.0)
        model = regression(scores.sub_(mean).div_(std).numpy(), label.numpy(), self.penalty)
        for name, value in {"mean": mean, "std": std, "weight": model.coef_, "bias": model.intercept_}.items():
            getattr(self, name).copy_(torch.as_tensor(value))


def regression(features: np.ndarray, label: np.ndarray, penalty: Penalty) -> LogisticRegression:
    """Return a logistic regression that is fitted to features (n, D) float64 and labels (n,).

    Raises:
        UserError: If the penalty is to be chosen, and a class has a single image.
    """
    if penalty == "auto":
        parts = min(5, int(np.bincount(label).min()))
        if parts < 2:
            raise UserError("penalty=auto is chosen by cross-validation, and a class has one image: give a number")
        folds = list(StratifiedKFold(parts, shuffle=True, random_state=0).split(features, label))
        losses = np.zeros(len(PENALTIES))
        for trained, held_out in folds:
            x, y = features[trained], label[trained]
            model = LogisticRegression(max_iter=1000, warm_start=True)
            for at, value in enumerate(PENALTIES):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ConvergenceWarning)
                    model.set_params(C=1 / value).fit(x, y)
                losses[at] += log_loss(label[held_out], model.predict_proba(features[held_out]), labels=[0, 1])
        penalty = PENALTIES[int(losses.argmin())]
        print(f"penalty {penalty:g}: of {', '.join(f'{one:g}' for one in PENALTIES)} it has the least log loss")
    model = LogisticRegression(C=1 / penalty, max_iter=1000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, label)
    if caught:
        warnings.warn("logistic regression did not converge in 1,000 steps; raise model.penalty", stacklevel=2)
    return model
