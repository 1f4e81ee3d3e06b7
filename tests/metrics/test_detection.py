"""Detection metrics against scikit-learn, hand-made cases, and the promise that order and ranks change nothing."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from dfl import metrics as m


def draw(kind: str, n: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    g = np.random.default_rng(3)
    label = g.random(n) < 0.3
    score = 1 / (1 + np.exp(-(g.normal(size=n) + label)))
    if kind == "tied":
        score = np.round(score, 1)
    if kind == "constant":
        score = np.full(n, 0.3)
    if kind == "saturated":
        score = np.round(score)
    if kind == "perfect":
        score = np.where(label, 0.9, 0.1)
    if kind == "inverted":
        score = np.where(label, 0.1, 0.9)
    return torch.tensor(score, dtype=torch.float32), torch.tensor(label).long()


def sk_eer(score: np.ndarray, label: np.ndarray) -> float:
    fpr, tpr, _ = sk.roc_curve(label, score, drop_intermediate=False)
    at = np.interp(np.arange(len(fpr), step=1e-3), np.arange(len(fpr)), fpr)
    miss = 1 - np.interp(np.arange(len(fpr), step=1e-3), np.arange(len(fpr)), tpr)
    return float(at[np.abs(at - miss).argmin()])


KINDS = ["random", "tied", "constant", "saturated", "perfect", "inverted"]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_scikit_learn(kind):
    score, label = draw(kind)
    s, y = score.numpy(), label.numpy()
    fpr, tpr, _ = sk.roc_curve(y, s, drop_intermediate=False)
    expected = {
        m.auroc: sk.roc_auc_score(y, s),
        m.average_precision: sk.average_precision_score(y, s),
        m.tpr_at_fpr: tpr[fpr <= 0.01].max(),
        m.log_loss: sk.log_loss(y, s),
        m.accuracy: sk.accuracy_score(y, s >= 0.5),
        m.balanced_accuracy: sk.balanced_accuracy_score(y, s >= 0.5),
    }
    for function, value in expected.items():
        assert function(score, label).item() == pytest.approx(value, abs=1e-9 if function is not m.log_loss else 1e-6)
    assert m.eer(score, label).item() == pytest.approx(sk_eer(s, y), abs=2e-3)
    ours = m.roc_curve(score, label)
    np.testing.assert_allclose(torch.stack(ours), np.stack([fpr, tpr]), atol=1e-12)
    precision, recall, _ = sk.precision_recall_curve(y, s)
    theirs = [recall[:-1][::-1], precision[:-1][::-1]]
    np.testing.assert_allclose(torch.stack(m.pr_curve(score, label)), theirs, rtol=1e-12)


def test_hand_made():
    label = torch.tensor([0, 0, 1, 1])
    score = torch.tensor([0.1, 0.4, 0.375, 0.8])
    assert m.auroc(score, label) == 0.75
    assert m.average_precision(score, label) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert m.eer(score, label) == 0.5
    assert m.tpr_at_fpr(score, label) == 0.5
    assert m.accuracy(score, label, 0.375) == m.balanced_accuracy(score, label, 0.375) == 0.75
    assert m.accuracy(score, label, 0.376) == 0.5
    assert m.log_loss(score, label) == pytest.approx(-np.mean(np.log([0.9, 0.6, 0.375, 0.8])))
    # Bins of 1/15: each score is alone in its bin.
    assert m.ece(score, label) == pytest.approx((0.1 + 0.4 + 0.625 + 0.2) / 4)
    assert m.ece(torch.tensor([0.5, 0.5, 0.5, 1.0]), label) == pytest.approx(abs(1.5 - 1) / 4)


def test_eer_lies_on_the_segment_where_the_curve_crosses():
    # ROC (0, 0), (0, 1/2), (1, 1): the second segment meets FPR = 1 - TPR at FPR = 1/3.
    assert m.eer(torch.tensor([0.9, 0.2, 0.2, 0.2]), torch.tensor([1, 1, 0, 0])).item() == pytest.approx(1 / 3)
    assert m.eer(torch.full((7,), 0.2), torch.tensor([0, 0, 0, 0, 0, 1, 1])) == 0.5
    assert m.eer(*draw("perfect")) == 0
    assert m.eer(*draw("inverted")) == 1


def test_log_loss_clamps_a_sure_and_wrong_score():
    score, label = torch.tensor([1.0, 0.0]), torch.tensor([0, 1])
    assert m.log_loss(score, label).item() == pytest.approx(sk.log_loss([0, 1], np.float32([1, 0])), rel=1e-4)
    assert math.isfinite(m.log_loss(score.double(), label))


@pytest.mark.parametrize("kind", KINDS)
def test_threshold_is_the_best_of_all(kind):
    score, label = draw(kind)
    threshold = float(m.choose_threshold(score, label))
    tried = [m.balanced_accuracy(score, label, t).item() for t in [*(score.double() + 1e-9).tolist(), 0.0]]
    assert m.balanced_accuracy(score, label, threshold).item() == max(tried)
    assert threshold == float(torch.tensor(threshold, dtype=torch.float32))


def test_threshold_ties_and_neighbours():
    perfect = torch.tensor([0.2, 0.4, 0.8, 0.9]), torch.tensor([0, 0, 1, 1])
    assert m.choose_threshold(*perfect).item() == pytest.approx(0.6)
    two_equal = torch.tensor([0.1, 0.2, 0.3, 0.9]), torch.tensor([0, 1, 0, 1])  # 0.15 and 0.6 both give 0.75
    assert m.choose_threshold(*two_equal).item() == pytest.approx(0.6)
    assert m.choose_threshold(torch.full((4,), 0.1), perfect[1]) == 0.5
    low = torch.tensor(0.7)
    close = torch.stack([low, torch.nextafter(low, torch.tensor(1.0))])
    assert m.balanced_accuracy(close, torch.tensor([0, 1]), float(m.choose_threshold(close, torch.tensor([0, 1])))) == 1


def test_videos_are_scored_by_the_mean_of_their_frames():
    score = torch.tensor([0.1, 0.5, 0.8, 0.6, 0.9, 0.7])
    label = torch.tensor([0, 0, 1, 1, 1, 0])
    video = torch.tensor([5, 5, 2, 2, -1, 9])
    mean, truth = m.video_scores(score, label, video)
    assert mean.tolist() == pytest.approx([0.7, 0.3, 0.7])
    assert truth.tolist() == [1, 0, 0]
    with pytest.warns(UserWarning, match="1 videos hold real and fake"):
        mean, truth = m.video_scores(score, label, torch.tensor([5, 5, 5, -1, -1, -1]))
    assert (mean.tolist(), truth.tolist()) == (pytest.approx([0.3, 0.8]), [0, 1])


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_nan_and_one_warning_names_it(label):
    metric = m.Detection(name="casia")
    metric.update(torch.tensor([0.2, 0.9, 0.9]), torch.full((3,), label), torch.arange(3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = metric.compute()
    assert [str(w.message) for w in caught] == [
        f"domain 'casia': all 3 images are {('real', 'fake')[label]}; metrics that compare the classes are NaN"
    ]
    undefined = {name for name, value in result.items() if value.isnan()}
    assert undefined == {"auroc", "ap", "eer", "bacc", "bacc_val", "tpr_at_1fpr"}
    assert result["acc"].item() == pytest.approx((1 / 3, 2 / 3)[label])
    assert m.choose_threshold(torch.rand(3), torch.full((3,), label)).isnan()


def test_empty_and_nan_scores_are_nan_with_a_warning():
    metric = m.Detection()
    with pytest.warns(UserWarning, match="no images"):
        assert all(value.isnan() for value in metric.compute().values())
    metric.update(torch.tensor([math.nan, 0.5]), torch.tensor([0, 1]), torch.arange(2))
    with pytest.warns(UserWarning, match="1 of 2 scores are NaN"):
        assert all(value.isnan() for value in metric.compute().values())


def test_refuses_what_would_be_silently_wrong():
    label, index = torch.tensor([0, 1]), torch.arange(2)
    for dtype in (torch.bfloat16, torch.float16, torch.int64):
        with pytest.raises(TypeError, match="float32 or float64"):
            m.Detection().update(torch.zeros(2, dtype=dtype), label, index)
    with pytest.raises(TypeError, match="float32 or float64"):
        m.auroc(torch.rand(2).bfloat16(), label)
    with pytest.raises(ValueError, match="one N"):
        m.Detection().update(torch.rand(3), label, index)
    with pytest.raises(ValueError, match="0 \\(real\\) or 1"):
        m.auroc(torch.rand(2), torch.tensor([0, -1]))
    logits = m.Detection()
    logits.update(torch.tensor([-3.0, 4.0]), label, index)
    with pytest.raises(ValueError, match="probabilities"):
        logits.compute()


def test_log_odds_rank_where_probabilities_round_to_one():
    logit = torch.tensor([30.0, 45.0, 40.0, 60.0])
    batch = {"label": torch.tensor([0, 0, 1, 1]), "index": torch.arange(4), "video": torch.full((4,), -1)}
    metric = m.Detection()
    metric.take(logit, batch)
    assert metric.rows()["score"].tolist() == [1.0] * 4
    assert metric.compute()["auroc"] == 0.75
    of_scores = m.Detection()
    of_scores.update(torch.tensor([0.1, 0.7, 0.4, 0.9]), batch["label"], batch["index"])
    assert of_scores.compute()["auroc"] == 0.75


def test_threshold_and_new_rows_are_seen_after_compute():
    metric = m.Detection(threshold=math.nan)
    metric.update(torch.tensor([0.2, 0.3]), torch.tensor([0, 1]), torch.arange(2))
    assert metric.compute()["acc_val"].isnan()
    metric.threshold = 0.25
    assert metric.compute()["acc_val"] == 1
    metric.update(torch.tensor([0.1]), torch.tensor([1]), torch.tensor([2]))
    assert metric.compute()["acc_val"].item() == pytest.approx(2 / 3)
    metric.reset()
    assert len(metric.rows()["score"]) == 0


def test_intervals_of_auroc_are_those_of_resampling_and_heed_videos():
    score, label = draw("tied")
    alone = torch.full_like(label, -1)
    low, high = m.auroc_interval(score, label, alone)
    rng, drawn = np.random.default_rng(0), []
    reals, fakes = (np.flatnonzero(label == y) for y in (0, 1))
    for _ in range(2000):
        rows = np.concatenate([rng.choice(reals, len(reals)), rng.choice(fakes, len(fakes))])
        drawn.append(m.auroc(score[rows], label[rows]).item())
    assert [low, high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)
    frames = torch.arange(500).repeat_interleave(10)  # ten copies of each image add nothing, where they are one video
    many = m.auroc_interval(score[frames], label[frames], frames)
    assert many == pytest.approx((low, high))
    narrow = m.auroc_interval(score[frames], label[frames], alone[frames])
    assert (narrow[1] - narrow[0]) < 0.4 * (high - low)
    assert m.auroc_interval(1 - score, label, alone) == pytest.approx((1 - high, 1 - low))


def test_intervals_of_auroc_at_the_ends_and_of_nothing():
    label = torch.tensor([0] * 5 + [1] * 8)
    low, high = m.auroc_interval(label.float(), label, torch.full_like(label, -1))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 5)), 1)
    assert all(map(math.isnan, m.auroc_interval(torch.rand(3), torch.ones(3).long(), torch.full((3,), -1))))
    assert all(map(math.isnan, m.auroc_interval(torch.rand(2), torch.tensor([0, 1]), torch.full((2,), -1))))


def test_means_leave_out_nan_and_say_so():
    domains = [{"auroc": 0.8, "acc": 0.5}, {"auroc": math.nan, "acc": torch.tensor(0.7)}, {"auroc": 0.6, "acc": 0.9}]
    mean = m.mean_over_domains(domains)
    assert mean == {"auroc": pytest.approx(0.7), "acc": pytest.approx(0.7), "n": 2, "n_acc": 3}
    assert math.isnan(m.mean_over_domains([{"auroc": math.nan}])["auroc"])
