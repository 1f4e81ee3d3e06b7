"""Metrics of classes against scikit-learn, hand-made cases, the official misnomers, and order and ranks."""

import math

import pytest
import torch
from sklearn import metrics as sk

from dfl import metrics as m
from dfl.detectors.sida.official import official
from dfl.metrics.classes import log_odds

NAMES = ("real", "synthetic", "tampered")


def draw(n: int = 300, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    label = torch.multinomial(torch.tensor([0.5, 0.2, 0.3]), n, True, generator=g)
    logit = torch.randn(n, 3, generator=g) + 1.5 * torch.nn.functional.one_hot(label, 3)
    return logit, label


def measured(logit: torch.Tensor, label: torch.Tensor, index: torch.Tensor | None = None) -> dict[str, float]:
    metric = m.Classes(NAMES, "a")
    metric.update(logit, label, torch.arange(len(label)) if index is None else index)
    return {name: float(value) for name, value in metric.compute().items()}


def test_equals_scikit_learn() -> None:
    logit, label = draw()
    results, verdict, prob = measured(logit, label), logit.argmax(1).numpy(), logit.double().softmax(1).numpy()
    wanted = {
        "acc": sk.accuracy_score(label, verdict),
        "bacc": sk.balanced_accuracy_score(label, verdict),
        "auroc": sk.roc_auc_score(label, prob, multi_class="ovr", average="macro"),
    }
    for name, score in (("precision", sk.precision_score), ("recall", sk.recall_score), ("f1", sk.f1_score)):
        wanted |= {f"{name}_{c}": v for c, v in zip(NAMES, score(label, verdict, average=None), strict=True)}
        wanted[name] = score(label, verdict, average="macro")
    wanted |= {f"auroc_{c}": sk.roc_auc_score(label == k, prob[:, k]) for k, c in enumerate(NAMES)}
    assert results == {name: pytest.approx(value, abs=1e-12) for name, value in wanted.items()}
    assert results["auroc_real"] == pytest.approx(sk.roc_auc_score(label != 0, 1 - prob[:, 0]))  # real against the rest
    metric = m.Classes()
    metric.update(logit, label, torch.arange(300))
    assert metric.confusion().tolist() == sk.confusion_matrix(label, verdict).tolist()


def test_log_odds_do_not_saturate() -> None:
    logit = torch.tensor([[40.0, 0.0, -3.0], [41.0, 0.0, 2.0], [39.0, -1.0, 0.0]])
    p = logit.double().softmax(1)
    assert (p.float()[:, 0] == 1).all()  # all tied as probabilities
    assert log_odds(logit)[:, 0].argsort().tolist() == [2, 1, 0]
    torch.testing.assert_close(log_odds(logit)[:, 1:], p[:, 1:].logit(), rtol=1e-9, atol=0)
    assert m.auroc(p.float()[:, 0], torch.tensor([1, 0, 0])) == 0.5  # what probabilities would give
    with pytest.warns(UserWarning, match="no image is tampered"):
        assert measured(logit, torch.tensor([0, 1, 1]))["auroc_real"] == 1


@pytest.mark.filterwarnings("error")
def test_missing_classes_are_nan_and_named() -> None:
    logit = torch.tensor([[2.0, 1, 0], [0, 3, 1], [1, 2, 0], [3, 0, 1]])
    with pytest.warns(UserWarning, match="domain 'a': no image is tampered; means over classes are NaN"):
        results = measured(logit, torch.tensor([0, 1, 1, 1]))
    assert results["acc"] == 0.75
    assert (results["recall_real"], results["recall_synthetic"], results["f1_synthetic"]) == (1, 2 / 3, 0.8)
    undefined = ("bacc", "f1", "recall", "precision", "auroc", "f1_tampered", "recall_tampered", "auroc_tampered")
    assert all(math.isnan(results[name]) for name in undefined)
    with pytest.warns(UserWarning, match="no image is called tampered; its precision is NaN"):
        results = measured(logit, torch.tensor([0, 1, 2, 0]))
    assert (results["f1_tampered"], results["recall_tampered"]) == (0, 0)
    assert math.isnan(results["precision_tampered"])
    assert math.isnan(results["precision"])
    assert results["f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    with pytest.warns(UserWarning, match="no images with a class"):
        assert all(math.isnan(v) for v in measured(logit[:1], torch.tensor([-1])).values())
    logit[1, 2] = math.nan
    with pytest.warns(UserWarning, match="1 of 4 class logits are NaN"):
        results = measured(logit, torch.tensor([0, 1, 2, 0]))
    assert all(math.isnan(results[name]) for name in ("acc", "f1", "precision_real"))


def test_bad_input_is_named() -> None:
    metric = m.Classes(NAMES)
    with pytest.raises(TypeError, match="float32 or float64"):
        metric.update(torch.zeros(2, 3).bfloat16(), torch.zeros(2).long(), torch.arange(2))
    with pytest.raises(ValueError, match=r"logits \(N, 3\) of real, synthetic, tampered"):
        metric.update(torch.zeros(2, 2), torch.zeros(2).long(), torch.arange(2))
    with pytest.raises(ValueError, match="class label 3 has no name"):
        measured(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="each once"):
        m.Classes(("real", "real"))


def test_official_misnomers() -> None:
    counts = torch.tensor([[8, 2, 0], [1, 9, 0], [4, 6, 0]])
    results = official(counts, 0.4)
    accuracy, precision, recall = 17 / 30, (8 / 13 + 9 / 17 + 0) / 3, (0.8 + 0.9 + 0) / 3
    assert results["official_f1"] == pytest.approx(2 * 0.4 * accuracy / (0.4 + accuracy))
    assert results["official_auc"] == pytest.approx(precision * recall)
    assert results["official_pixel_accuracy"] == 0.4
