"""Metrics of more than two classes, such as real, synthetic and tampered, of one domain.

The verdict is the class with the highest logit. Precision, recall and F1 of a class ask how right that verdict is about
it; AUROC of a class asks whether its images get higher log-odds of it than all others do. Both are also averaged over
the classes with equal weight (macro). Curves use log-odds, not probabilities: these round to 1 where a network is sure,
and the ties this makes cost AUROC.

What is undefined is NaN and never 0: the numbers of a class without an image, the precision of a class that no image is
called, and every mean over classes that one of these is part of. Means over fewer classes are another measure.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from dfl.metrics import binary
from dfl.metrics.gathered import Gathered

NAMES = ("real", "synthetic", "tampered")
PER_CLASS = ("precision", "recall", "f1", "auroc")


def confusion(class_logit: Tensor, class_label: Tensor) -> Tensor:
    """Return how many images of each class (row) are called each class (column), int64 (K, K).

    Args:
        class_logit: (N, K); the highest wins, of equal ones the first.
        class_label: (N,) integers in [0, K).
    """
    k = class_logit.shape[1]
    return torch.bincount(class_label * k + class_logit.argmax(1), minlength=k * k).reshape(k, k)


def log_odds(class_logit: Tensor) -> Tensor:
    """Return the log-odds of each class against all others together, float64 (N, K), of logits (N, K)."""
    logit = class_logit.double()
    others = logit[:, None].expand(-1, logit.shape[1], -1).clone()
    others.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    return logit - others.logsumexp(2)


class Classes(Gathered):
    """Accuracy and its company over K classes, for one domain.

    Args:
        names: of the classes, in the order of the logits; the first is the real image.
        name: the domain, for warnings.
        target: key of the batch that has the class of each image.
        kwargs: of `torchmetrics.Metric`.

    `compute()` returns 0-dimensional float64 tensors on the CPU: ``acc``, ``bacc`` (mean recall), the macro means
    ``precision``, ``recall``, ``f1`` and ``auroc`` (one class against the rest), and the same of each class as
    ``f1_<name>``. ``auroc_<first name>`` is that of real against the rest.
    """

    def __init__(
        self, names: Sequence[str] = NAMES, name: str = "", target: str = "class_label", **kwargs: Any
    ) -> None:
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"two class names or more, each once, wanted, got {', '.join(names) or 'none'}")
        super().__init__(("class_label", *names), name, **kwargs)
        self.names, self.target = tuple(names), target

    def take(self, output: Tensor, batch: Mapping[str, Any]) -> None:
        """Add the logits (N, K) of a batch."""
        self.update(output.float(), batch[self.target], batch["index"])

    def update(self, class_logit: Tensor, class_label: Tensor, index: Tensor) -> None:
        """Add a batch; nothing here waits for the device.

        Args:
            class_logit: (N, K) float32 or float64.
            class_label: (N,) integers in [0, K), -1 for unknown, which is left out.
            index: (N,) row in the data set; rows with an index < 0 are padding and are left out.

        Raises:
            TypeError: for logits of lower precision.
            ValueError: for shapes that do not belong together.
        """
        binary.check_precision(class_logit)
        if class_logit.ndim != 2 or class_logit.shape[1] != len(self.names) or class_label.shape != index.shape:
            raise ValueError(
                f"logits (N, {len(self.names)}) of {', '.join(self.names)} with labels and indices (N,) wanted, got "
                f"{(*class_logit.shape,)}, {(*class_label.shape,)}, {(*index.shape,)}"
            )
        label = class_label.to(class_logit.device)
        self.add_rows(torch.where(label >= 0, index.to(label.device), -1), label, class_logit)

    def rows(self) -> dict[str, Tensor]:
        """Return ``index`` and ``class_label`` int64 (M,) and ``class_logit`` float64 (M, K) of all ranks, on the CPU.

        Raises:
            ValueError: for a label that is no class.
        """
        index, numbers = self.gathered()
        label = numbers[:, 0].long()
        if bool((label >= len(self.names)).any()):
            raise ValueError(f"class label {int(label.max())} has no name; there are {', '.join(self.names)}")
        return {"index": index, "class_label": label, "class_logit": numbers[:, 1:]}

    def confusion(self) -> Tensor:
        """Return `confusion` of all rows so far, int64 (K, K)."""
        rows = self.rows()
        return confusion(rows["class_logit"], rows["class_label"])

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of all rows so far; see the class."""
        rows = self.rows()
        logit, label = rows["class_logit"], rows["class_label"]
        counts = confusion(logit, label).double()
        if unusable := int(logit.isnan().any(1).sum()):
            rank_zero_warn(f"{self.where}{unusable} of {len(logit)} class logits are NaN; metrics of classes are NaN")
            counts = counts * math.nan
        right, images, called = counts.diagonal(), counts.sum(1), counts.sum(0)
        self._warn(images, called)
        by_class = {
            "precision": right / called,
            "recall": right / images,
            "f1": torch.where(images > 0, 2 * right / (images + called), math.nan),
        }
        odds = log_odds(logit)
        by_class["auroc"] = torch.stack([binary.auroc(odds[:, k], label == k) for k in range(len(self.names))])
        result = {"acc": right.sum() / counts.sum(), "bacc": by_class["recall"].mean()}
        result |= {measure: by_class[measure].mean() for measure in PER_CLASS}
        return result | {f"{m}_{name}": by_class[m][k] for m in PER_CLASS for k, name in enumerate(self.names)}

    def _warn(self, images: Tensor, called: Tensor) -> None:
        """Say once per computation what is undefined."""
        if not float(images.nan_to_num(1.0).sum()):
            rank_zero_warn(f"{self.where}no images with a class; metrics of classes are NaN")
            return
        absent = [name for name, n in zip(self.names, images.tolist(), strict=True) if n == 0]
        never = [
            name
            for name, n, calls in zip(self.names, images.tolist(), called.tolist(), strict=True)
            if calls == 0 and n > 0
        ]
        if absent:
            rank_zero_warn(f"{self.where}no image is {' or '.join(absent)}; means over classes are NaN")
        if never:
            rank_zero_warn(f"{self.where}no image is called {' or '.join(never)}; its precision is NaN")
