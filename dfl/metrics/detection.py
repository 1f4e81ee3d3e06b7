"""Detection metrics of one domain, over all ranks, every image once.

`Detection` keeps the score, label, index and video of every image and computes at the end of the epoch. Rows are
sorted by their index in the data set and an index that came twice counts once, so 1 and 2 ranks, padded samplers
and any batch order give the same result to the last bit.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat, rank_zero_warn
from torchmetrics.utilities.distributed import gather_all_tensors

from dfl.metrics import binary

COLUMNS = {"score": torch.float32} | dict.fromkeys(("label", "index", "video", "group"), torch.int64)


def gather(rows: Tensor, group: Any = None) -> list[Tensor]:
    """Gather as float64, which holds float32 and integers below 2**53 exactly.

    torchmetrics sends a float32 tensor for a rank that saw no row, and ranks that disagree on the dtype of an
    all_gather crash or hang.
    """
    return gather_all_tensors(rows.double(), group)


class Detection(Metric):
    """AUROC and its company for one domain.

    Args:
        threshold: the threshold of `acc_val` and `bacc_val`, chosen on validation data; NaN where not known. May
            be set later: `metric.threshold = 0.3`.
        name: the domain, for warnings.
        kwargs: of `torchmetrics.Metric`.

    `compute()` returns 0-dimensional float64 tensors on the CPU: `auroc`, `ap`, `eer`, `acc` and `bacc` (at 0.5),
    `acc_val` and `bacc_val` (at `threshold`), `tpr_at_1fpr`, `log_loss`, `ece`, and `video_auroc` (of the mean
    scores of videos) where an image has a video id. With one class only, what compares classes is NaN.
    """

    full_state_update = False
    higher_is_better = None
    is_differentiable = False
    score: list[Tensor]
    label: list[Tensor]
    index: list[Tensor]
    video: list[Tensor]
    group: list[Tensor]

    def __init__(self, threshold: float = 0.5, name: str = "", **kwargs: Any) -> None:
        super().__init__(dist_sync_fn=gather, **kwargs)
        for column in COLUMNS:
            self.add_state(column, default=[], dist_reduce_fx="cat")
        self.name = name
        self._threshold = float(threshold)
        self._gathered: tuple[int, dict[str, Tensor]] | None = None

    @property
    def threshold(self) -> float:
        """The verdict threshold from validation; NaN where not known."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        self._threshold = float(value)
        self._computed = None

    def update(
        self,
        score: Tensor,
        label: Tensor,
        index: Tensor,
        video: Tensor | None = None,
        group: Tensor | None = None,
    ) -> None:
        """Add a batch; nothing here waits for the device.

        Args:
            score: (N,) float32 or float64 in [0, 1], the probability of fake.
            label: (N,) 0 real, 1 fake.
            index: (N,) row in the data set; rows with an index < 0 are padding and are ignored.
            video: (N,) video id, -1 for none.
            group: (N,) group of people, -1 for none; kept for `dfl.metrics.fairness`.

        Raises:
            TypeError: for a score of lower precision.
            ValueError: for columns of different lengths.
        """
        binary.check_precision(score)
        video = torch.full_like(index, -1) if video is None else video
        group = torch.full_like(index, -1) if group is None else group
        columns = {"score": score, "label": label, "index": index, "video": video, "group": group}
        lengths = {name: tuple(column.shape) for name, column in columns.items()}
        if len(set(lengths.values())) != 1 or score.ndim != 1:
            raise ValueError(f"columns must be (N,) with one N, got {lengths}")
        for name, column in columns.items():
            getattr(self, name).append(column.detach().to(COLUMNS[name]))

    def rows(self) -> dict[str, Tensor]:
        """Return the rows of all ranks as `score` float32, `label`, `index`, `video`, `group` int64, (N,) each, on the
        CPU.

        Padding is gone, indices rise, each comes once. All ranks must call it together, except after `compute()`,
        which keeps the rows until the next update or reset.
        """
        if self._gathered is not None and self._gathered[0] == self._update_count:
            return self._gathered[1]
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync and not self._is_synced,
            should_unsync=not self._is_synced,
        ):
            rows = {name: self._column(name) for name in COLUMNS}
        # By index, then score: a padded row may come with a score that differs in its last bits.
        order = rows["score"].argsort(stable=True)
        order = order[rows["index"][order].argsort(stable=True)]
        index = rows["index"][order]
        first = torch.cat([torch.ones(min(1, len(index)), dtype=torch.bool), index[1:] != index[:-1]])
        order = order[(index >= 0) & first]
        rows = {name: column[order] for name, column in rows.items()}
        self._gathered = (self._update_count, rows)
        return rows

    def _column(self, name: str) -> Tensor:
        """Return one state as one CPU tensor; synced states are a tensor already."""
        state = getattr(self, name)
        column = dim_zero_cat(state) if len(state) else torch.empty(0)
        return column.detach().cpu().to(COLUMNS[name])

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics of all rows so far; see the class."""
        rows = self.rows()
        score, label, video = rows["score"], rows["label"], rows["video"]
        self._warn_undefined(score, label)
        if bool(((score < 0) | (score > 1)).any()):
            raise ValueError(f"scores must be probabilities in [0, 1], found {score.min():g} to {score.max():g}")
        result = {
            "auroc": binary.auroc(score, label),
            "ap": binary.average_precision(score, label),
            "eer": binary.eer(score, label),
            "acc": binary.accuracy(score, label),
            "bacc": binary.balanced_accuracy(score, label),
            "acc_val": binary.accuracy(score, label, self.threshold),
            "bacc_val": binary.balanced_accuracy(score, label, self.threshold),
            "tpr_at_1fpr": binary.tpr_at_fpr(score, label, 0.01),
            "log_loss": binary.log_loss(score, label),
            "ece": binary.ece(score, label),
        }
        if bool((video >= 0).any()):
            result["video_auroc"] = binary.auroc(*binary.video_scores(score, label, video))
        return result

    def reset(self) -> None:
        """Forget all rows; the threshold stays."""
        super().reset()
        self._gathered = None

    def _warn_undefined(self, score: Tensor, label: Tensor) -> None:
        """Say once per computation why metrics are NaN."""
        where = f"domain {self.name!r}: " if self.name else ""
        fakes, unusable = int(label.sum()), int(score.isnan().sum())
        if not len(label):
            rank_zero_warn(f"{where}no images; all metrics are NaN")
        elif unusable:
            rank_zero_warn(f"{where}{unusable} of {len(score)} scores are NaN; all metrics are NaN")
        elif fakes in (0, len(label)):
            only = "fake" if fakes else "real"
            rank_zero_warn(f"{where}all {len(label)} images are {only}; metrics that compare the classes are NaN")


def mean_over_domains(domains: Sequence[Mapping[str, float | Tensor]]) -> dict[str, float]:
    """Average each metric over the domains where it is defined.

    NaN and missing values are left out of a mean; a metric that no domain defines is NaN. `n` says how many domains
    are in the mean of `auroc` (of the first metric where there is no `auroc`); a metric with another count has its
    own as `n_<metric>`.
    """
    names = list(dict.fromkeys(name for domain in domains for name in domain))
    values = {name: [float(domain[name]) for domain in domains if name in domain] for name in names}
    known = {name: [value for value in column if not math.isnan(value)] for name, column in values.items()}
    mean = {name: math.fsum(column) / len(column) if column else math.nan for name, column in known.items()}
    count = {name: float(len(column)) for name, column in known.items()}
    n = count.get("auroc", next(iter(count.values()), 0.0))
    return {**mean, "n": n, **{f"n_{name}": c for name, c in count.items() if c != n}}
