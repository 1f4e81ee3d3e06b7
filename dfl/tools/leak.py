"""Does the label leak through the files? The AUROC of a small forest that never sees a pixel.

A detector that is trained on JPEG photos and PNG fakes learns PNG. So before training, a random forest is asked to tell
real from fake by what the files say of themselves. Bits per pixel are apart: they depend on the picture too, so some
difference is honest.
"""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

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
    readable = np.array([not e for e in table["error"].to_pylist()], bool)
    label = table["label"].to_numpy().astype(np.int64)
    rows = np.flatnonzero(readable & (label >= 0))
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
    table, label = table.take(pa.array(rows)), label[rows]
    names = (*CLUES, "metadata", "bits per pixel")
    if min(np.bincount(label, minlength=2)) < FOLDS:
        return dict.fromkeys(names, UNDEFINED)
    fold = _folds(table, label, seed)
    if fold is None:
        return dict.fromkeys(names, UNDEFINED)
    values = {name: [_numbers(table[column]) for column in columns] for name, columns in CLUES.items()}
    out = {name: _forest(np.stack(columns, 1), label, fold, seed) for name, columns in values.items()}
    told = [name for name in CLUES if _varies(np.stack(values[name], 1)).any()]
    every = np.stack([column for columns in values.values() for column in columns], 1)
    out["metadata"] = out[told[0]] if len(told) == 1 else _forest(every, label, fold, seed)
    bpp = bits_per_pixel(table)
    rank = float(roc_auc_score(label, bpp))
    return out | {"bits per pixel": _score(max(rank, 1 - rank), label)}


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


def _folds(table: pa.Table, label: np.ndarray, seed: int) -> np.ndarray | None:
    """Return the fold of each row, int (n,); rows tied by identity, video or source are in one. None if too few are."""
    tied = components([table[name].to_pylist() for name in TIES])
    groups = len(np.unique(tied))
    if groups < FOLDS:
        return None
    alone = groups == len(tied)
    by = StratifiedKFold if alone else StratifiedGroupKFold
    fold = np.zeros(len(label), np.int64)
    parts = by(FOLDS, shuffle=True, random_state=seed).split(label, label, None if alone else tied)
    for i, (_, rows) in enumerate(parts):
        fold[rows] = i
    return fold


def _forest(values: np.ndarray, label: np.ndarray, fold: np.ndarray, seed: int) -> Score:
    """Return the mean over folds of the AUROC on the fold that was left out.

    Scores of different folds are never pooled: a forest that knows nothing gives the share of fakes in its own folds,
    which is lower where the fold left out holds more of them.
    """
    values = values[:, _varies(values)]
    if not values.shape[1]:
        return _score(0.5, label)  # all images are alike: there is nothing to learn
    areas = []
    for i in range(FOLDS):
        out = fold == i
        if len(np.unique(label[out])) < 2 or len(np.unique(label[~out])) < 2:
            continue
        forest = RandomForestClassifier(50, min_samples_leaf=5, class_weight="balanced", random_state=seed)
        forest.fit(values[~out], label[~out])
        areas.append(roc_auc_score(label[out], forest.predict_proba(values[out])[:, 1]))
    return _score(float(np.mean(areas)), label) if areas else UNDEFINED


def _varies(values: np.ndarray) -> np.ndarray:
    """Return which columns of (n, k) hold more than one value, bool (k,)."""
    varies: np.ndarray = (values != values[:1]).any(0)
    return varies


def _score(area: float, label: np.ndarray) -> Score:
    fake = int(label.sum())
    real = len(label) - fake
    a, b = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + (fake - 1) * (a - area**2) + (real - 1) * (b - area**2)) / (fake * real)
    half = 1.96 * math.sqrt(max(variance, 0.0))
    return Score(area, max(0.0, area - half), min(1.0, area + half))
