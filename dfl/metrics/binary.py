"""Measures of a real/fake score, as pure functions.

A detector gives each image a score, the probability that it is fake. Rank measures (AUROC, average precision, EER,
TPR at a fixed FPR) ask only whether fakes score higher than reals. Verdict measures (accuracy, balanced accuracy)
also need a threshold: the verdict is fake if and only if score >= threshold. Log loss and ECE ask whether the score
is right as a probability.

Everything is exact: no bins in the curves, ties handled as scikit-learn does. Counts stay integers until the last
division and sums are correctly rounded, so a result does not depend on the order of the rows, bit for bit. The work
happens on the CPU in float64 on every machine: 100,000 rows take about 0.1 s there, and MPS has no float64.

All functions take `score` (N,) float32 or float64 in [0, 1] and `label` (N,) with 0 real and 1 fake, on any device,
and return 0-dimensional float64 tensors on the CPU. What is undefined is NaN: a rank measure with one class only,
anything of no rows, anything of a NaN score. Lower precision raises TypeError: bf16 has 128 values in [0.5, 1), and
the ties this makes took a simulated AUROC from 0.86 to 0.59.
"""

import bisect
import math
import random
import statistics
import warnings
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dfl.metrics.delong import delong

NAN = torch.tensor(math.nan, dtype=torch.float64)
#: Numbers that become Python's, or are copied, at once.
AT_ONCE = 1 << 20


class Counts(NamedTuple):
    """The confusion counts at every distinct threshold, from the highest down: int64, (K,) each.

    Row k counts the images with score >= threshold[k]; thresholds have the type of the scores.
    """

    threshold: Tensor
    true_positive: Tensor
    false_positive: Tensor


def check_precision(score: Tensor) -> None:
    """Raise TypeError unless the score is float32 or float64."""
    if score.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"scores must be float32 or float64, not {score.dtype}; use logit.float().sigmoid()")


def rows(score: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return score (float64) and label (int64) on the CPU, flat, checked."""
    score, label = checked(score, label)
    return score.double(), label.long()


def checked(score: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return score and label on the CPU, flat, checked, in their own types: of millions of rows these are smaller."""
    check_precision(score)
    score, label = score.detach().flatten().cpu(), label.detach().flatten().cpu()
    if score.shape != label.shape:
        raise ValueError(f"{len(score)} scores but {len(label)} labels")
    if len(label) and not bool(((label == 0) | (label == 1)).all()):
        raise ValueError(f"labels must be 0 (real) or 1 (fake), found {sorted(set(label.tolist()) - {0, 1})[:5]}")
    return score, label


def _ranked(score: Tensor, label: Tensor) -> Counts | None:
    """Return the counts at every distinct score, or None where rank measures are undefined."""
    score, label = checked(score, label)
    fakes = int((label == 1).sum())
    if fakes in (0, len(label)) or bool(score.isnan().any()):
        return None
    fake, every = np.sort(score[label == 1].numpy()), np.sort(score.numpy())
    first = np.flatnonzero(np.concatenate([[True], every[1:] != every[:-1]]))[::-1].copy()  # from the highest down
    distinct = every[first]
    del every  # of millions of rows, these are large
    true_positive = np.searchsorted(fake, distinct)
    np.subtract(fakes, true_positive, out=true_positive)
    np.subtract(len(label), first, out=first)
    first -= true_positive
    return Counts(*map(torch.from_numpy, (distinct, true_positive, first)))


def _origin(counts: Tensor) -> Tensor:
    """Put the point "nothing is called fake" before the counts."""
    return torch.cat([counts.new_zeros(1), counts])


def _sum(values: Tensor) -> float:
    """Return the correctly rounded sum, which no order and no number of threads can change."""
    return math.fsum(chain.from_iterable(part.tolist() for part in values.split(AT_ONCE)))


def _scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def roc_curve(score: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return false and true positive rate, (K + 1,) float64 each, from (0, 0) to (1, 1); empty where undefined."""
    counts = _ranked(score, label)
    if counts is None:
        return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    fpr, tpr = _origin(counts.false_positive).double(), _origin(counts.true_positive).double()
    return fpr.div_(counts.false_positive[-1]), tpr.div_(counts.true_positive[-1])


def pr_curve(score: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Return recall and precision, (K,) float64 each, by rising recall; empty where undefined."""
    counts = _ranked(score, label)
    if counts is None:
        return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.float64)
    tp, called = counts.true_positive, counts.false_positive.add_(counts.true_positive)
    return tp.double().div_(tp[-1]), tp.double().div_(called)


def auroc(score: Tensor, label: Tensor) -> Tensor:
    """Return the area under the ROC curve: the chance that a fake outscores a real, ties counting one half."""
    return _auroc(_ranked(score, label))


def _auroc(counts: Counts | None) -> Tensor:
    if counts is None:
        return NAN.clone()
    _, tp, fp = counts
    return _scalar(int(tp[0] * fp[0] + fp.diff().mul_(tp[1:] + tp[:-1]).sum()) / (2 * int(tp[-1]) * int(fp[-1])))


def auroc_interval(score: Tensor, label: Tensor, video: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of a confidence interval of AUROC; NaN where AUROC is undefined or a class has one unit.

    A unit is a video, whose frames are alike, or an image without one. The variance is that of DeLong (1988), with
    units as in Obuchowski (1997; see `dfl.metrics.delong`); the interval is taken on the logit of AUROC, so that it
    stays in [0, 1]. Where AUROC is 0 or 1 that variance is 0, and the far end is that of Clopper and Pearson (1934)
    for as many tries as the smaller class has units.

    Args:
        score: (N,) float32 or float64.
        label: (N,) 0 real, 1 fake.
        video: (N,) integer ids, -1 for none.
        level: Of confidence.
    """
    area = float(auroc(score, label))
    if math.isnan(area):
        return math.nan, math.nan
    score, label = rows(score, label)
    units = torch.where(video < 0, -1 - torch.arange(len(video)), video)
    areas = delong(score[None].numpy(), label.numpy(), units.numpy())
    variance, smallest = areas.covariance.item(), min(areas.fakes, areas.reals)
    if math.isnan(variance):
        return math.nan, math.nan
    if area in (0.0, 1.0):
        reach = ((1 - level) / 2) ** (1 / smallest)
        return (reach, 1.0) if area else (0.0, 1 - reach)
    half = statistics.NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance) / (area * (1 - area))
    middle = math.log(area / (1 - area))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def average_precision(score: Tensor, label: Tensor) -> Tensor:
    """Return the sum over thresholds of precision times the gain in recall (no interpolation, as scikit-learn)."""
    return _average_precision(_ranked(score, label))


def _average_precision(counts: Counts | None) -> Tensor:
    if counts is None:
        return NAN.clone()
    tp = counts.true_positive
    gain = tp.double()
    gain[1:] -= tp[:-1]
    gain.div_(tp[-1]).mul_(tp)
    for part in (slice(start, start + AT_ONCE) for start in range(0, len(gain), AT_ONCE)):
        gain[part] /= tp[part] + counts.false_positive[part]
    return _scalar(_sum(gain))


def eer(score: Tensor, label: Tensor) -> Tensor:
    """Return the equal error rate: where the ROC curve's line segments meet FPR = 1 - TPR.

    A constant score gives 0.5: its curve is the diagonal.
    """
    return _eer(_ranked(score, label))


def _eer(counts: Counts | None) -> Tensor:
    if counts is None:
        return NAN.clone()

    def gap(k: int) -> float:  # rises from -1 to 1, in steps
        return sum(_rates(counts, k)) - 1

    right = bisect.bisect_left(range(len(counts.threshold) + 1), 0.0, key=gap)
    share, fpr = -gap(right - 1) / (gap(right) - gap(right - 1)), _rates(counts, right - 1)[0]
    return _scalar(fpr + share * (_rates(counts, right)[0] - fpr))


def _rates(counts: Counts, k: int) -> tuple[float, float]:
    """Return false and true positive rate where the k highest distinct scores are called fake."""
    _, tp, fp = counts
    return (int(fp[k - 1]) / int(fp[-1]), int(tp[k - 1]) / int(tp[-1])) if k else (0.0, 0.0)


def tpr_at_fpr(score: Tensor, label: Tensor, max_fpr: float = 0.01) -> Tensor:
    """Return the highest TPR that some threshold reaches with FPR <= max_fpr; no interpolation between thresholds."""
    return _tpr_at_fpr(_ranked(score, label), max_fpr)


def _tpr_at_fpr(counts: Counts | None, max_fpr: float) -> Tensor:
    if counts is None:
        return NAN.clone()
    ends = range(len(counts.threshold) + 1)
    return _scalar(_rates(counts, bisect.bisect_right(ends, max_fpr, key=lambda k: _rates(counts, k)[0]) - 1)[1])


def by_rank(score: Tensor, label: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return ``auroc``, ``ap``, ``eer`` and ``tpr_at_1fpr``, and what `choose_threshold` does, of one sorting."""
    counts = _ranked(score, label)
    found = {"auroc": _auroc(counts), "ap": _average_precision(counts)}
    return found | {"eer": _eer(counts), "tpr_at_1fpr": _tpr_at_fpr(counts, 0.01)}, _best_threshold(counts)


def log_loss(score: Tensor, label: Tensor) -> Tensor:
    """Return the mean negative log-likelihood in nats, scores clamped to [eps, 1 - eps] of their dtype (scikit-learn).

    Defined for one class too.
    """
    eps = torch.finfo(score.dtype).eps if score.is_floating_point() else 0.0
    score, label = rows(score, label)
    if not len(score) or bool(score.isnan().any()):
        return NAN.clone()
    score = score.clamp(eps, 1 - eps)
    return _scalar(-_sum(torch.where(label == 1, score, 1 - score).log()) / len(score))


def ece(score: Tensor, label: Tensor, bins: int = 15) -> Tensor:
    """Return the expected calibration error of the probability of fake.

    [0, 1] is cut into bins of equal width, closed on the left (the last one on both sides). The error is the mean
    over images of |mean score - frequency of fakes| of the image's bin. It compares the probability of fake with
    the frequency of fakes, not the confidence of the verdict with its accuracy (Guo et al. 2017 do the latter).
    """
    score, label = checked(score, label)
    if not len(score) or bool(score.isnan().any()):
        return NAN.clone()

    def place(values: Tensor) -> Tensor:
        return values.mul(bins).long().clamp_(0, bins - 1)

    observed = torch.bincount(place(score[label == 1].double()), minlength=bins)
    score = torch.from_numpy(np.sort(score.numpy())).double()  # the sums then do not depend on the order of the rows
    predicted = torch.bincount(place(score), weights=score, minlength=bins)
    return _scalar(_sum((predicted - observed).abs()) / len(score))


def accuracy(score: Tensor, label: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the share of right verdicts, fake iff score >= threshold. NaN for a NaN threshold or no rows."""
    score, label = rows(score, label)
    if not len(score) or math.isnan(threshold) or bool(score.isnan().any()):
        return NAN.clone()
    return _scalar(int(((score >= threshold).long() == label).sum()) / len(score))


def balanced_accuracy(score: Tensor, label: Tensor, threshold: float = 0.5) -> Tensor:
    """Return the mean of the shares of right verdicts among reals and among fakes. NaN unless both are there."""
    score, label = rows(score, label)
    fakes, reals = int(label.sum()), int((label == 0).sum())
    if not fakes or not reals or math.isnan(threshold) or bool(score.isnan().any()):
        return NAN.clone()
    verdict = score >= threshold
    return _scalar((int(verdict[label == 1].sum()) / fakes + int((~verdict[label == 0]).sum()) / reals) / 2)


def choose_threshold(score: Tensor, label: Tensor) -> Tensor:
    """Return the threshold that maximises balanced accuracy; NaN with one class only.

    Candidates are the midpoints between neighbouring distinct scores, and the two that call everything fake or
    everything real. Of equally good ones the nearest to 0.5 wins, then the lower. The result is a float32 number
    that separates its two neighbours, so that storing it in a float32 buffer changes no verdict.
    """
    return _best_threshold(_ranked(score, label))


def _best_threshold(counts: Counts | None) -> Tensor:
    if counts is None:
        return NAN.clone()
    _, tp, fp = counts
    gain = (tp * fp[-1]).sub_(fp * tp[-1])  # balanced accuracy up to a constant and a factor, in integers
    best = 1 + (gain == gain.max()).nonzero().flatten().flip(0)  # so many scores are called fake, thresholds rise
    if not gain.max():  # as good as to call none fake
        best = torch.cat([best, best.new_zeros(1)])
    high, low = (counts.threshold[(best + end).clamp(0, len(counts.threshold) - 1)].double() for end in (-1, 0))
    middle = ((high + low) / 2).float().double()
    middle = torch.where(middle > low, middle, high)  # float32 neighbours: the midpoint may round down to `low`
    beyond = torch.nextafter(low.float(), torch.tensor(math.inf)).double().clamp(min=0.5)
    threshold = torch.where(best == 0, beyond, torch.where(best == len(gain), high.clamp(max=0.5), middle))
    return threshold[(threshold - 0.5).abs().argmin()]  # the lower of two equally near


def video_scores(score: Tensor, label: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
    """Average the scores of each video's frames.

    Args:
        score: (N,).
        label: (N,).
        video: (N,) integer ids from 0; rows with an id < 0 belong to no video and are left out. Memory grows with the
            highest id.

    Returns:
        Mean score (V,) float64 and label (V,) int64, by rising id. A video that holds both labels becomes two, one
        per label, with a warning.
    """
    score, label = checked(score, label)
    video = video.detach().flatten().cpu()
    key = (2 * video.long()).add_(label)
    score, key = score[video >= 0], key[video >= 0]
    frames = torch.bincount(key)
    found = frames.nonzero().flatten()
    both = len(found) - len(torch.unique(found // 2))
    if both:
        warnings.warn(f"{both} videos hold real and fake frames; each is scored as two videos", stacklevel=2)
    score, order = score.sort(stable=True)  # the sums then do not depend on the order of the rows
    key = key[order]
    del order  # of millions of rows, it is large
    total = torch.bincount(key, weights=score.double(), minlength=len(frames))
    return total[found] / frames[found], found % 2


def balanced_draws_ap(score: Tensor, label: Tensor, draws: int = 5, seed: int = 1337) -> tuple[Tensor, Tensor]:
    """Return the mean and twice the deviation of AP over draws of as many reals as fakes, float64 scalars.

    Source: the evaluation code of dolos (Tantaru et al. 2024): the smaller class is there whole in every draw. Drawing
    does not undo anything in AP but the prevalence; a plain `average_precision` stands beside it in our tables.

    Args:
        score: (N,) float32 or float64, by rising index, since the draws depend on the order.
        label: (N,) 0 real, 1 fake.
        draws: how many.
        seed: of Python's generator.
    """
    real, fake = score[label == 0].tolist(), score[label == 1].tolist()
    n = min(len(real), len(fake))
    if not n:
        return NAN.clone(), NAN.clone()
    rng, both = random.Random(seed), torch.arange(2).repeat_interleave(n)
    drawn = [torch.tensor(rng.sample(real, n) + rng.sample(fake, n), dtype=torch.float64) for _ in range(draws)]
    ap = torch.stack([average_precision(one, both) for one in drawn])
    return ap.mean(), 2 * ap.std(correction=0)
