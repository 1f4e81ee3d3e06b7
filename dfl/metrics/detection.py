"""Detection metrics of one domain, over all ranks, every image once."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import rank_zero_warn

from dfl.metrics import binary
from dfl.metrics.gathered import Gathered


class Detection(Gathered):
    """AUROC and the other metrics of a real/fake score, for one domain.

    Args:
        threshold: The threshold of ``acc_val`` and ``bacc_val``, chosen on validation data; NaN for none. May be set
            later: ``metric.threshold = 0.3``.
        name: The domain, for warnings.
        kwargs: Of `torchmetrics.Metric`.

    `compute()` returns 0-dimensional float64 tensors on the CPU: ``auroc``, ``ap``, ``eer``, ``acc`` and ``bacc`` (at
    0.5), ``acc_val`` and ``bacc_val`` (at ``threshold``), ``tpr_at_1fpr``, ``log_loss``, ``ece``, and ``video_auroc``
    (of the mean scores of videos) where an image has a video id. With one class only, what compares classes is NaN.

    Images are ranked by log-odds, as a float32 probability is 1 from log-odds of 17 on and ranks nothing there.
    """

    def __init__(self, threshold: float = 0.5, name: str = "", **kwargs: Any) -> None:
        # the threshold may change after a computation, so no result is cached
        super().__init__(("score", "logit", "label", "video", "group"), name, **{"compute_with_cache": False} | kwargs)
        self.threshold = float(threshold)

    def take(self, output: Tensor, batch: Mapping[str, Any]) -> None:
        """Add the log-odds of fake (N,) of a batch."""
        logit = output.float()  # bf16 scores tie, and AUROC falls
        self.update(logit.sigmoid(), batch["label"], batch["index"], batch["video"], batch.get("group"), logit)

    def update(
        self,
        score: Tensor,
        label: Tensor,
        index: Tensor,
        video: Tensor | None = None,
        group: Tensor | None = None,
        logit: Tensor | None = None,
    ) -> None:
        """Add a batch; nothing here waits for the device.

        Args:
            score: (N,) float32 or float64 in [0, 1], the probability of fake; stored as float32.
            label: (N,) 0 real, 1 fake.
            index: (N,) row in the data set; rows with an index < 0 are padding and are ignored.
            video: (N,) video id, -1 for none.
            group: (N,) group of people, -1 for none; for `dfl.metrics.fairness`.
            logit: (N,) log-odds of the score; by default computed from it.

        Raises:
            TypeError: for a score of lower precision.
            ValueError: for columns of different lengths.
        """
        binary.check_precision(score)
        video, group = (torch.full_like(index, -1) if column is None else column for column in (video, group))
        logit = score.float().double().logit() if logit is None else logit
        columns = {"score": score.float(), "logit": logit, "label": label, "index": index}
        columns |= {"video": video, "group": group}
        lengths = {name: tuple(column.shape) for name, column in columns.items()}
        if len(set(lengths.values())) != 1 or score.ndim != 1:
            raise ValueError(f"columns must be (N,) with one N, got {lengths}")
        self.add_rows(columns.pop("index"), *columns.values())

    def rows(self) -> dict[str, Tensor]:
        """Return ``score`` float32, ``logit`` float64, and ``label``, ``video``, ``group``, ``index`` int64, (N,) each.

        They are those of all ranks, on the CPU: padding is gone, indices rise, each comes once. All ranks must call it
        together, except after `compute()`.
        """
        index, numbers = self.gathered()
        label, video, group = numbers[:, 2:].T.long()
        scores = {"score": numbers[:, 0].float(), "logit": numbers[:, 1]}
        return scores | {"label": label, "video": video, "group": group, "index": index}

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of all rows so far; see the class."""
        rows = self.rows()
        score, logit, label, video = (rows[name] for name in ("score", "logit", "label", "video"))
        self._warn_undefined(score, label)
        if bool(((score < 0) | (score > 1)).any()):
            raise ValueError(f"scores must be probabilities in [0, 1], found {score.min():g} to {score.max():g}")
        result = {
            "auroc": binary.auroc(logit, label),
            "ap": binary.average_precision(logit, label),
            "eer": binary.eer(logit, label),
            "acc": binary.accuracy(score, label),
            "bacc": binary.balanced_accuracy(score, label),
            "acc_val": binary.accuracy(score, label, self.threshold),
            "bacc_val": binary.balanced_accuracy(score, label, self.threshold),
            "tpr_at_1fpr": binary.tpr_at_fpr(logit, label, 0.01),
            "log_loss": binary.log_loss(score, label),
            "ece": binary.ece(score, label),
        }
        if bool((video >= 0).any()):
            result["video_auroc"] = binary.auroc(*binary.video_scores(score, label, video))
        return result

    def _warn_undefined(self, score: Tensor, label: Tensor) -> None:
        """Say once per computation why metrics are NaN."""
        fakes, unusable = int(label.sum()), int(score.isnan().sum())
        if not len(label):
            rank_zero_warn(f"{self.where}no images; all metrics are NaN")
        elif unusable:
            rank_zero_warn(f"{self.where}{unusable} of {len(score)} scores are NaN; all metrics are NaN")
        elif fakes in (0, len(label)):
            only = "fake" if fakes else "real"
            rank_zero_warn(f"{self.where}all {len(label)} images are {only}; metrics that compare the classes are NaN")


def mean_over_domains(domains: Sequence[Mapping[str, float | Tensor]]) -> dict[str, float]:
    """Average each metric over the domains where it is defined.

    NaN and missing values are left out of a mean; a metric that no domain defines is NaN. ``n`` says how many domains
    are in the mean of ``auroc`` (of the first metric where there is no ``auroc``); a metric with another count has its
    own as ``n_<metric>``.
    """
    names = list(dict.fromkeys(name for domain in domains for name in domain))
    values = {name: [float(domain[name]) for domain in domains if name in domain] for name in names}
    defined = {name: [value for value in column if not math.isnan(value)] for name, column in values.items()}
    mean = {name: math.fsum(column) / len(column) if column else math.nan for name, column in defined.items()}
    count = {name: float(len(column)) for name, column in defined.items()}
    n = count.get("auroc", next(iter(count.values()), 0.0))
    return {**mean, "n": n, **{f"n_{name}": c for name, c in count.items() if c != n}}
