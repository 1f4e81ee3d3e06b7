"""Does the label leak through the files? The AUROC of a small forest that never sees a pixel.

A detector that is trained on JPEG photos and PNG fakes learns PNG. So before training, a random forest is asked to tell
real from fake by the facts of the files. Bits per pixel are apart: they depend on the picture too, so some difference
is honest.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_score

from dfl.data.sources.base import TIES
from dfl.data.splits import components

#: Columns of a scan by what they stand for.
CLUES = {
    "format": ("format", "mode"),
    "size": ("width", "height"),
    "compression": ("quality", "qtables", "subsampling"),
}
#: Images that the forest is shown at most, drawn by seed, and folds of its cross-validation.
MOST_ROWS, FOLDS = 20_000, 5


@dataclass(frozen=True)
class Score:
    """An AUROC with its 95 % interval (Hanley & McNeil 1982). NaN where there are fewer than ``FOLDS`` images of a
    class, or of sets of tied images."""

    auroc: float
    low: float
    high: float

    @property
    def undefined(self) -> bool:
        """Whether there are too few images of a class."""
        return math.isnan(self.auroc)

    def __str__(self) -> str:
        """Return the value and its interval."""
        return f"{self.auroc:.3f} ({self.low:.3f} to {self.high:.3f})"


UNDEFINED = Score(math.nan, math.nan, math.nan)


def leak(table: pa.Table, seed: int = 0) -> dict[str, Score]:
    """Score how well metadata alone tell the label.

    Args:
        table: Rows with the columns of a scan; unreadable and unlabelled ones are left out.
        seed: Seed of the forest, its folds, and the draw of at most ``MOST_ROWS`` rows.

    Returns:
        Scores by clue: ``format``, ``size``, ``compression``, ``metadata`` (all three together), by a forest that is
        cross-validated with tied rows in one fold; and ``bits per pixel``, by its rank alone, whichever way it points.
    """
    readable = np.array([not error for error in table["error"].to_pylist()], bool)
    label = table["label"].to_numpy().astype(np.int64)
    rows = np.flatnonzero(readable & (label >= 0))
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
    table, label = table.take(pa.array(rows)), label[rows]
    tied = components([table[name].to_pylist() for name in TIES])
    if min(*np.bincount(label, minlength=2), len(np.unique(tied))) < FOLDS:
        return dict.fromkeys((*CLUES, "metadata", "bits per pixel"), UNDEFINED)
    values = {name: np.stack([_numbers(table[column]) for column in columns], 1) for name, columns in CLUES.items()}
    values["metadata"] = np.concatenate(list(values.values()), 1)
    area = {name: _forest(columns, label, tied, seed) for name, columns in values.items()}
    area["bits per pixel"] = float(roc_auc_score(label, bits_per_pixel(table)))
    area["bits per pixel"] = max(area["bits per pixel"], 1 - area["bits per pixel"])
    return {name: _with_interval(value, label) for name, value in area.items()}


def bits_per_pixel(table: pa.Table) -> np.ndarray:
    """Return the bits of each file over the pixels of its image, float64 (n,); NaN for what cannot be read."""
    size, width, height = (table[name].to_numpy().astype(np.float64) for name in ("bytes", "width", "height"))
    pixels = np.where((width > 0) & (height > 0), width * height, np.nan)
    return np.asarray(8 * size / pixels)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Return a column as numbers; names become their places among the sorted names."""
    if not pa.types.is_string(column.type):
        return np.asarray(column.to_numpy())
    return np.unique(np.array(column.to_pylist()), return_inverse=True)[1]


def _forest(values: np.ndarray, label: np.ndarray, tied: np.ndarray, seed: int) -> float:
    """Return the mean over folds of the AUROC on the fold that was left out; NaN if no fold has both classes.

    Scores of different folds are never pooled: a forest that learnt nothing gives the share of fakes in its own folds,
    which is lower where the fold left out has more of them.

    Args:
        values: float (n, k); columns of one value are left out.
        label: int64 (n,).
        tied: int64 (n,); rows of one number are in one fold.
        seed: Of the folds and the forest.
    """
    values = values[:, (values != values[:1]).any(0)]
    if not values.shape[1]:
        return 0.5  # all images are alike: there is nothing to learn
    alone = len(np.unique(tied)) == len(tied)
    folds = (StratifiedKFold if alone else StratifiedGroupKFold)(FOLDS, shuffle=True, random_state=seed)
    forest = RandomForestClassifier(50, min_samples_leaf=5, class_weight="balanced", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fold of one class has no AUROC
        groups = None if alone else tied
        area = cross_val_score(forest, values, label, groups=groups, cv=folds, scoring="roc_auc")
    return float(np.mean(area[np.isfinite(area)])) if np.isfinite(area).any() else math.nan


def _with_interval(area: float, label: np.ndarray) -> Score:
    if math.isnan(area):
        return UNDEFINED
    fake = int(label.sum())
    real = len(label) - fake
    a, b = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (fake - 1) * (a - area**2) + (real - 1) * (b - area**2)) / (fake * real)
    half = 1.96 * math.sqrt(max(variance, 0.0))
    return Score(area, max(0.0, area - half), min(1.0, area + half))
