"""Resamples and ranks against scikit-learn, scipy and textbooks, and on data whose answer is known."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from dfl import metrics as exact
from dfl.benchmark import statistics, units
from dfl.benchmark.statistics import Resamples, difference, ranks
from dfl.benchmark.units import unit_names
from dfl.errors import UserError
from dfl.metrics.intervals import interval


def images(n: int = 400, seed: int = 0, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties, and labels of two fifths reals."""
    rng = np.random.default_rng(seed)
    label = (np.arange(n) % 5 > 1).astype(np.int8)
    score = 1 / (1 + np.exp(-rng.normal(1.5 * label - 0.75)))
    return np.float32(np.round(score, decimals)), label


def weights(resamples: Resamples) -> np.ndarray:
    """How often each image was drawn, (R, n), from means alone: that of an indicator is its share of the drawn."""
    n = len(resamples.label)
    return np.stack([resamples.means(row) for row in np.eye(n)], 1) * n


def names(n: int, prefix: str = "i") -> np.ndarray:
    return np.array([f"{prefix}{i:05}" for i in range(n)])


def resampled_fpr(reals: float) -> float:
    """The FPR whose threshold, the next real, has 1 % of all reals above it in the mean."""
    return max(math.floor((reals + 1) * 0.01 + 1e-9) - 1, 0) / reals


def by_sklearn(score: np.ndarray, label: np.ndarray, weight: np.ndarray, threshold: float) -> dict[str, float]:
    fpr, tpr, _ = roc_curve(label, score, sample_weight=weight, drop_intermediate=False)
    grid = np.linspace(0, 1, 200_001)
    curve = np.interp(grid, fpr, tpr)
    verdict = score >= threshold
    rates = {y: float(np.average(verdict[label == y], weights=weight[label == y])) for y in (0, 1)}
    return {
        "auroc": float(roc_auc_score(label, score, sample_weight=weight)),
        "ap": float(average_precision_score(label, score, sample_weight=weight)),
        "eer": float(grid[np.argmin(abs(grid + curve - 1))]),
        "tpr_at_1fpr": float(tpr[fpr <= resampled_fpr(weight[label == 0].sum()) + 1e-12].max()),
        "bacc_val": (1 - rates[0] + rates[1]) / 2,
        "acc_real": 1 - rates[0],
        "acc_fake": rates[1],
        "fpr": rates[0],
    }


def test_each_resample_has_the_metrics_of_its_weighted_images() -> None:
    score, label = images(150)
    unit = names(150)
    unit[:90] = np.repeat(names(30, "v"), 3)  # videos of three frames, and single images
    drawn = Resamples(label, unit, resamples=12)
    weight, found = weights(drawn), drawn.metrics(score, 0.4)
    for i, own in enumerate(weight):
        theirs = by_sklearn(score, label, own, 0.4)
        for name, value in theirs.items():
            assert found[name][i] == pytest.approx(value, abs=1e-5 if name == "eer" else 1e-9), name
    assert {len(values) for values in found.values()} == {12}


def test_images_drawn_once_have_the_metrics_of_binary() -> None:
    score, label = images(300)
    one = Resamples(label, np.array(["one"] * 300), resamples=2)  # one unit, drawn once
    found = {name: values[0] for name, values in one.metrics(score, 0.37).items()}
    s, y = torch.from_numpy(score), torch.from_numpy(label)
    assert found == pytest.approx(
        {
            "auroc": exact.auroc(s, y).item(),
            "ap": exact.average_precision(s, y).item(),
            "eer": exact.eer(s, y).item(),
            "tpr_at_1fpr": exact.tpr_at_fpr(s, y, resampled_fpr(int((y == 0).sum())) + 1e-6).item(),
            "bacc_val": exact.balanced_accuracy(s, y, 0.37).item(),
            "acc_real": exact.accuracy(s[y == 0], y[y == 0], 0.37).item(),
            "acc_fake": exact.accuracy(s[y == 1], y[y == 1], 0.37).item(),
            "fpr": 1 - exact.accuracy(s[y == 0], y[y == 0], 0.37).item(),
        },
        abs=1e-12,
    )


def test_frames_of_a_video_are_drawn_together_and_classes_apart() -> None:
    label = np.repeat([0, 1], 60)
    unit = np.repeat(names(24), 5)
    weight = weights(Resamples(label, unit, resamples=50)).round().astype(int)
    by_video = weight.reshape(50, 24, 5)
    assert (by_video == by_video[:, :, :1]).all()
    assert (weight[:, label == 0].sum(1) == 60).all()  # as many units as there are
    assert (weight[:, label == 1].sum(1) == 60).all()
    assert abs(np.corrcoef(by_video[:, :12, 0].ravel(), by_video[:, 12:, 0].ravel())[0, 1]) < 0.2


def test_draws_depend_on_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    label, unit = np.repeat([0, 1], 40), names(80)
    unit[5:9] = unit[4]
    base = weights(Resamples(label, unit, 20))
    monkeypatch.setattr(units, "SORTED", 3)  # however many are sorted at once
    assert weights(Resamples(label, unit, 20)) == pytest.approx(base)
    order = np.random.default_rng(0).permutation(80)
    assert weights(Resamples(label[order], unit[order], 20)) == pytest.approx(base[:, order])
    assert weights(Resamples(label[order], pa.chunked_array([pa.array(unit[order])]), 20)) == pytest.approx(
        base[:, order]
    )
    others = np.concatenate([unit[:40], names(40, "other")])  # another domain with the same reals
    shared = weights(Resamples(label, others, 20))
    assert shared[:, :40] == pytest.approx(base[:, :40])
    assert not np.allclose(shared[:, 40:], base[:, 40:])
    assert not np.allclose(weights(Resamples(label, unit, 20, seed=1)), base)
    assert weights(Resamples(label, unit, 10)) == pytest.approx(base[:10])


def test_a_fake_is_drawn_with_the_real_it_was_made_from() -> None:
    path, source = np.concatenate([names(30), names(30, "fake")]), np.array([""] * 30 + names(30).tolist())
    weight = weights(Resamples(np.repeat([0, 1], 30), unit_names([None] * 60, source, path), 20))
    assert weight[:, :30] == pytest.approx(weight[:, 30:])


def test_a_unit_is_the_video_else_the_source_else_the_image() -> None:
    found = unit_names(pa.array(["v", "", None]), np.array(["s", "s", ""]), ["a", "b", "c"])
    assert found.to_pylist() == ["v", "s", "c"]


def test_units_are_numbered_in_the_order_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    words = np.random.default_rng(0).integers(0, 40, 200).astype(str)
    label = np.random.default_rng(1).integers(0, 2, 200)
    whole = units.sorted_units(words, label)
    assert whole.place.tolist() == np.unique(words, return_inverse=True)[1].tolist()
    monkeypatch.setattr(units, "SORTED", 7)
    parts = units.sorted_units(words, label)
    assert (parts.place == whole.place).all()
    for y in (0, 1):  # the hash is of the names of the class, each once
        alone = units.sorted_units(np.unique(words[label == y]), np.full(len(np.unique(words[label == y])), y))
        assert parts.keys[y].tolist() == whole.keys[y].tolist() == alone.keys[y].tolist()
    joined = units.joined([pa.array(part, pa.large_string()) for part in (["a", "", "bc"], [], ["d"])])
    assert joined.to_pylist() == ["a", "", "bc", "d"]


def test_many_units_are_drawn_in_packs_of_one_size() -> None:
    label = np.repeat([0, 1], 300)
    drawn = Resamples(label, names(600), 40, most_units=50)
    weight = weights(drawn)
    assert drawn.units == {0: 300, 1: 300}
    alike = np.unique(weight[:, :300], axis=1).shape[1]
    assert alike == 50  # each pack has weights of its own
    _, sizes = np.unique(weight[:, 300:], axis=1, return_counts=True)
    assert set(sizes) == {6}


def test_bins_of_many_scores_cost_nothing_that_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    score, label = images(30_000, decimals=9)
    drawn = Resamples(label, names(30_000), 60)
    binned = drawn.metrics(score, 0.4321)
    monkeypatch.setattr(statistics, "MOST_SCORES", 10**6)
    for name, values in drawn.metrics(score, 0.4321).items():
        if name in statistics.VERDICTS:
            assert binned[name] == pytest.approx(values, abs=1e-15)
        else:
            error = np.sqrt(np.square(binned[name] - values).mean())
            assert error < 0.1 * values.std(), name  # widens an interval by less than 0.5 %


def test_widths_are_those_of_theory() -> None:
    score, label = images(2_000, decimals=6)
    drawn = Resamples(label, names(2_000), 2_000)
    found = drawn.metrics(score, 0.5)
    p = float((score[label == 0] >= 0.5).mean())
    assert found["fpr"].std() == pytest.approx(math.sqrt(p * (1 - p) / 800), rel=0.06)
    iou = np.where(label == 1, score, np.nan)
    assert drawn.means(iou).std() == pytest.approx(score[label == 1].std() / math.sqrt(1200), rel=0.06)
    assert drawn.means(iou).mean() == pytest.approx(np.nanmean(iou), abs=1e-3)


def test_undefined_metrics_are_nan() -> None:
    score, label = images(40)
    reals = Resamples(label[label == 0], names(16), 9).metrics(score[label == 0], 0.5)
    assert {name for name, values in reals.items() if not np.isnan(values).any()} == {"acc_real", "fpr"}
    fakes = Resamples(label[label == 1], names(24), 9).metrics(score[label == 1], 0.5)
    assert {name for name, values in fakes.items() if not np.isnan(values).any()} == {"acc_fake"}
    both = Resamples(label, names(40), 9)
    without = both.metrics(score)
    assert {name for name, values in without.items() if np.isnan(values).all()} == set(statistics.VERDICTS)
    for all_nan in (both.metrics(np.full(40, np.nan), 0.5), Resamples(label[:0], [], 9).metrics(score[:0], 0.5)):
        assert all(np.isnan(values).all() and len(values) == 9 for values in all_nan.values())
    assert np.isnan(both.means(np.full(40, np.nan))).all()


def test_extreme_thresholds_and_constant_scores() -> None:
    _, label = images(40)
    found = Resamples(label, names(40), 9).metrics(np.full(40, 0.5, np.float32), 0.7)
    assert {name: set(values) for name, values in found.items() if name != "ap"} == {
        "auroc": {0.5},
        "eer": {0.5},
        "tpr_at_1fpr": {0.0},
        "bacc_val": {0.5},
        "acc_real": {1.0},
        "acc_fake": {0.0},
        "fpr": {0.0},
    }
    assert set(Resamples(label, names(40), 9).metrics(np.full(40, 0.5, np.float32), 0.5)["fpr"]) == {1.0}


def test_paired_differences_are_narrower_than_single_values() -> None:
    score, label = images(1_000, decimals=6)
    near = score + np.float32(0.02) * np.random.default_rng(1).normal(size=1_000).astype(np.float32)
    drawn = Resamples(label, names(1_000), 500)
    a, b = drawn.metrics(score)["auroc"], drawn.metrics(near)["auroc"]
    assert (a - b).std() < 0.2 * a.std()
    same = difference(0.0, a - drawn.metrics(score**3)["auroc"])  # the same ranks
    assert same == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    found = difference(0.03, np.random.default_rng(0).normal(0.03, 0.01, 20_000))
    assert found["p"] == pytest.approx(2 * stats.norm.sf(3), rel=0.1)
    assert found == interval(0.03, np.random.default_rng(0).normal(0.03, 0.01, 20_000)) | {"p": found["p"]}
    assert difference(0.5, np.full(99, 0.5))["p"] == 2 / 100
    assert math.isnan(difference(math.nan, a)["p"])


#: Table 6 of Demsar (2006): AUC of C4.5 with and without tuning of m and cf, on 14 data sets.
DEMSAR = """
.763 .768 .771 .798  .599 .591 .590 .569  .954 .971 .968 .967  .628 .661 .654 .657  .882 .888 .886 .898
.936 .931 .916 .931  .661 .668 .609 .685  .583 .583 .563 .625  .775 .838 .866 .875  1.000 1.000 1.000 1.000
.940 .962 .965 .962  .619 .666 .614 .669  .972 .981 .9751 .975  .957 .978 .946 .970
"""


def test_ranks_are_those_of_demsar() -> None:
    pytest.importorskip("scikit_posthocs")
    values = np.array(DEMSAR.split(), float).reshape(14, 4)
    found = ranks(values, ["plain", "m", "cf", "both"])
    average = found["average"]
    assert [average[n] for n in ("plain", "m", "cf", "both")] == pytest.approx([3.143, 2.0, 2.893, 1.964], abs=5e-4)
    assert found["critical"] == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)  # his q, table 5
    assert found["domains"] == 14
    gap = average["plain"] - average["both"]
    assert found["nemenyi"]["plain"]["both"] == found["nemenyi"]["both"]["plain"]
    assert (found["nemenyi"]["plain"]["both"] < 0.05) == (gap > found["critical"])
    assert found["nemenyi"]["m"]["m"] == 1


def test_friedman_is_its_formula_with_ties() -> None:
    pytest.importorskip("scikit_posthocs")
    values = np.round(np.random.default_rng(0).random((9, 4)), 1)
    assert any(len(set(row)) < 4 for row in values)
    r = stats.rankdata(-values, axis=1)
    spread = ((r - 2.5) ** 2).sum() / 3  # Conover (1999): the sum of squares of all ranks about their mean
    statistic = 9**2 * ((r.mean(0) - 2.5) ** 2).sum() / spread
    found = ranks(np.vstack([values, [0.1, 0.2, math.nan, 0.3]]), list("abcd"))
    assert found["friedman"]["statistic"] == pytest.approx(statistic)
    assert found["friedman"]["p"] == pytest.approx(stats.chi2.sf(statistic, 3))
    assert found["domains"] == 9


def test_ranks_of_few_or_equal_detectors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("scikit_posthocs")
    assert ranks(np.random.default_rng(0).random((5, 2)), ["a", "b"]) == {}
    assert ranks(np.random.default_rng(0).random((1, 3)), ["a", "b", "c"]) == {}
    equal = ranks(np.full((4, 3), 0.5), ["a", "b", "c"])
    assert equal["friedman"] == {"statistic": 0.0, "p": 1.0}
    assert equal["average"] == {"a": 2.0, "b": 2.0, "c": 2.0}
    monkeypatch.setattr(statistics, "RequirementCache", lambda _: False)
    with pytest.raises(UserError, match=r"pip install 'dfl\[benchmark\]'"):
        ranks(np.random.default_rng(0).random((5, 3)), ["a", "b", "c"])
