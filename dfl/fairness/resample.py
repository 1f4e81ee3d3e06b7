"""What chance alone does to rates by group: resampled images for intervals, shuffled groups for tests.

Frames of one video are alike, so they are drawn and shuffled together: a unit is a video, or an image without one. A
video that holds real and fake frames, or people of two groups, is two units.
"""

from collections.abc import Iterator

import numpy as np

#: Values in memory at once.
ROOM = 2_000_000


class Units:
    """Images of one domain, by group and label.

    Args:
        score: float64 (n,).
        label: int64 (n,), 0 real, 1 fake.
        group: int64 (n,), ids 0 to G - 1.
        video: str (n,), '' for none.
    """

    def __init__(self, score: np.ndarray, label: np.ndarray, group: np.ndarray, video: np.ndarray) -> None:
        self.score, self.label, self.group = score, label, group
        self.groups = int(group.max()) + 1
        own = [v or i for i, v in enumerate(video.tolist())]  # an int never equals a name
        keys = list(zip(group.tolist(), label.tolist(), own, strict=True))
        number = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        self.unit = np.array([number[key] for key in keys], np.int64)
        first = np.unique(self.unit, return_index=True)[1]
        self.unit_group, self.unit_label = group[first], label[first]
        self.size = np.bincount(self.unit)

    @property
    def alone(self) -> bool:
        """Whether every image is a unit."""
        return len(self.size) == len(self.label)

    def count(self, label: int, ids: list[int]) -> int:
        """Return the units of some groups and a label."""
        return int(((self.unit_label == label) & np.isin(self.unit_group, ids)).sum())

    def resampled(self, times: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
        """Yield how often each image was drawn, float64 (k, n), until there were ``times`` resamples.

        Units are drawn with replacement inside each group and label, as many as there are.
        """
        step = max(1, ROOM // len(self.label))
        cells = 2 * self.unit_group + self.unit_label
        for start in range(0, times, step):
            k = min(step, times - start)
            drawn = np.zeros((k, len(self.size)))
            for cell in np.unique(cells):
                own = np.flatnonzero(cells == cell)
                place = rng.integers(0, len(own), (k, len(own))) + len(own) * np.arange(k)[:, None]
                drawn[:, own] = np.bincount(place.ravel(), minlength=k * len(own)).reshape(k, len(own))
            yield drawn[:, self.unit]

    def confusion(self, weight: np.ndarray, threshold: float) -> np.ndarray:
        """Return weighted counts (k, G, 2, 2) by group, label and verdict.

        Args:
            weight: (k, n).
            threshold: the verdict is fake from here.
        """
        place = 4 * self.group + 2 * self.label + (self.score >= threshold)
        member = np.zeros((len(place), 4 * self.groups))
        member[np.arange(len(place)), place] = 1
        return np.asarray(weight @ member).reshape(len(weight), self.groups, 2, 2)

    def shuffled(self, threshold: float, times: int, rng: np.random.Generator) -> np.ndarray:
        """Return counts (times, G, 2, 2) as they are when verdicts have nothing to do with groups.

        Groups are shuffled among the units of one label, so that labels and the sizes of groups stay.
        """
        out = np.zeros((times, self.groups, 2, 2))
        positive = np.bincount(self.unit, weights=self.score >= threshold)
        for label in (0, 1):
            own = self.unit_label == label
            group, size, hit = self.unit_group[own], self.size[own], positive[own]
            if not len(group):
                continue
            if self.alone:  # the same, without shuffling
                sizes = np.bincount(group, minlength=self.groups)
                out[:, :, label, 1] = rng.multivariate_hypergeometric(
                    sizes, int(hit.sum()), size=times, method="marginals"
                )
                out[:, :, label, 0] = sizes - out[:, :, label, 1]
                continue
            step = max(1, ROOM // len(group))
            for start in range(0, times, step):
                k = min(step, times - start)
                mixed = rng.permuted(np.tile(group, (k, 1)), axis=1) + self.groups * np.arange(k)[:, None]
                for verdict, many in ((1, hit), (0, size - hit)):
                    sums = np.bincount(mixed.ravel(), np.tile(many, k), k * self.groups)
                    out[start : start + k, :, label, verdict] = sums.reshape(k, self.groups)
        return out


def auroc(score: np.ndarray, label: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the AUROC of weighted images (k,), ties counting one half; NaN where a class has no weight.

    Args:
        score: (n,).
        label: (n,).
        weight: (k, n) of the images.
    """
    order = np.argsort(score, kind="stable")
    score, label, weight = score[order], label[order], weight[:, order]
    start = np.flatnonzero(np.r_[True, score[1:] != score[:-1]])
    real = np.add.reduceat(weight * (label == 0), start, axis=1)
    fake = np.add.reduceat(weight * (label == 1), start, axis=1)
    below = np.cumsum(real, axis=1) - real / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((fake * below).sum(1) / (fake.sum(1) * real.sum(1)))
