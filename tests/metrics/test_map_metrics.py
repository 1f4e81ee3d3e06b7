"""Localization metrics against the official codes, scikit-learn, hand-made cases, and two ranks."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import metrics as sk

from dfl import metrics as m
from dfl.metrics.localization import curves

GOLDEN = Path(__file__).parent.parent / "golden"


def random_maps(n: int = 6, side: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    g = np.random.default_rng(5)
    mask = np.zeros((n, side, side), bool)
    for i in range(n):
        mask[i, 3 : 6 + 2 * i, 5 : 12 + i] = True
    prob = 1 / (1 + np.exp(-(2 * mask - 1 + g.normal(size=mask.shape))))
    return torch.tensor(np.round(prob, 2), dtype=torch.float32), torch.tensor(mask)  # rounded: with ties


@pytest.mark.parametrize("size", [37, 299])
def test_equals_the_evaluation_of_dolos(size: int) -> None:
    golden = np.load(GOLDEN / "localization_dolos.npz")
    mask = torch.from_numpy(np.unpackbits(golden["gt"])[: 10 * 65536].reshape(10, 256, 256)).float()
    prob = torch.from_numpy(golden["s37_pred"])
    if size == 299:
        prob, mask = torch.from_numpy(golden["s299_pred"].astype(np.float32) / 100), mask[golden["s299_images"]]
    metric = m.Localization("dolos")
    metric.update(prob, mask)
    rows = metric.rows()
    assert rows["iou"].tolist() == golden[f"s{size}_iou_lg"].tolist()
    assert rows["pbca"].tolist() == golden[f"s{size}_acc_lg"].tolist()
    if size == 37:
        with pytest.warns(UserWarning, match="2 of 10 fakes have an empty mask; they count 1"):
            result = metric.compute()
        assert 100 * result["iou"].item() == pytest.approx(golden["s37_summary"][0], abs=1e-9)
        assert 100 * result["pbca"].item() == pytest.approx(golden["s37_summary"][2], abs=1e-9)
        up = m.resize_map(prob, (256, 256))[4, ::4, ::4]
        np.testing.assert_allclose(up, golden["s37_up4_s4"], atol=1e-6)
        small = m.Localization("dfl", empty="one")  # their second number: at the size of the map
        small.update(prob, m.resize_mask(mask, (37, 37)))
        assert small.rows()["iou"].tolist() == golden["s37_iou_sm"].tolist()
        assert small.rows()["pbca"].tolist() == golden["s37_acc_sm"].tolist()


def test_equals_the_draws_of_dolos() -> None:
    golden = np.load(GOLDEN / "localization_dolos.npz")
    score = torch.tensor(np.concatenate([golden["det_real"], golden["det_fake"]]))
    mean, spread = m.balanced_draws_ap(score, (torch.arange(len(score)) >= len(golden["det_real"])).long())
    np.testing.assert_allclose([100 * mean, 100 * spread], golden["det_ap_mean_pct_and_2std"], atol=1e-9)
    assert m.balanced_draws_ap(score, torch.ones(len(score)))[0].isnan()


def peers() -> tuple[dict[str, np.ndarray], torch.Tensor, torch.Tensor]:
    golden = dict(np.load(GOLDEN / "localization_peers.npz"))
    n = len(golden["pred"])
    mask = np.unpackbits(golden["gt"])[: n * 128 * 128].reshape(n, 128, 128)
    return golden, torch.from_numpy(golden["pred"].astype(np.float32) / np.float32(1000)), torch.from_numpy(mask)


def test_equals_imdl_benco() -> None:
    golden, prob, mask = peers()
    metric = m.Localization("benco")
    metric.update(prob, mask)
    rows = metric.rows()
    for ours, theirs in {"f1": "f1", "iou": "iou", "pbca": "acc"}.items():
        np.testing.assert_allclose(rows[ours], golden[f"benco_{theirs}_origin"], atol=1e-7, err_msg=ours)
    # the order of equal values is the sort's own: the constant map (4) differs from machine to machine
    varied = [0, 1, 2, 3, 5]
    np.testing.assert_allclose(rows["auroc"][varied], golden["benco_auc_origin"][varied], atol=2e-4)


def test_pixels_outside_the_image_do_not_count() -> None:
    golden, prob, mask = peers()
    valid = torch.zeros(mask.shape, dtype=torch.bool)
    valid[:, :96, :112] = True
    metric = m.Localization("benco")
    metric.update(prob, mask, valid=valid)
    rows = metric.rows()
    for ours, theirs in {"f1": "f1", "iou": "iou", "pbca": "acc"}.items():
        np.testing.assert_allclose(rows[ours], golden[f"benco_{theirs}_origin_shapemask96x112"], atol=1e-7)
    cut = curves(prob[:, :96, :112], mask[:, :96, :112].bool())
    torch.testing.assert_close(torch.stack(curves(prob, mask.bool(), valid)), torch.stack(cut), equal_nan=True)


def test_equals_trufor() -> None:
    golden, prob, mask = peers()
    metric = m.Localization("trufor")
    metric.update(prob, mask)
    rows = metric.rows()
    np.testing.assert_allclose(torch.stack([rows["best_f1"], rows["f1"]], 1), golden["trufor_f1_best_fixed"], atol=1e-6)
    areas = torch.stack([rows["fp"] + rows["tn"], rows["tp"] + rows["fn"]], 1)
    assert areas.tolist() == golden["trufor_gt0_gt1_sum"].tolist()


def test_equals_scikit_learn_on_its_own_golden() -> None:
    golden, prob, mask = peers()
    at_all = curves(prob, mask.bool())
    np.testing.assert_allclose(at_all.ap, golden["sk_ap"], atol=1e-12)
    np.testing.assert_allclose(at_all.auroc, golden["sk_auc"], atol=1e-12)


def test_equals_scikit_learn() -> None:
    prob, mask = random_maps()
    metric = m.Localization()
    metric.update(prob, mask)
    rows, result = metric.rows(), metric.compute()
    for i in range(len(prob)):
        s, y = prob[i].flatten().numpy(), mask[i].flatten().numpy()
        precision, recall, _ = sk.precision_recall_curve(y, s)
        expected = {
            "iou": sk.jaccard_score(y, s > 0.5),
            "pbca": sk.accuracy_score(y, s > 0.5),
            "f1": sk.f1_score(y, s > 0.5),
            "ap": sk.average_precision_score(y, s),
            "auroc": sk.roc_auc_score(y, s),
            "best_f1": np.nan_to_num(2 * precision * recall / (precision + recall)).max(),
        }
        assert {k: rows[k][i].item() for k in expected} == pytest.approx(expected, abs=1e-12)
    assert result["iou"].item() == pytest.approx(rows["iou"].mean().item(), abs=1e-15)
    assert result["iou_all_fake"].item() == pytest.approx(mask.double().mean().item())
    assert result["pbca_all_real"].item() == pytest.approx(1 - mask.double().mean().item())
    assert result["ap_all_fake"] == result["pbca_all_fake"] == result["iou_all_fake"]
    assert result["iou_all_real"] == 0
    y, s = mask.flatten().numpy(), prob.flatten().numpy()
    assert result["pooled_iou"].item() == pytest.approx(sk.jaccard_score(y, s > 0.5), abs=1e-12)
    assert result["pooled_ap"].item() == pytest.approx(sk.average_precision_score(y, s), abs=1e-3)
    assert result["pooled_auroc"].item() == pytest.approx(sk.roc_auc_score(y, s), abs=1e-3)


def test_resizing_is_that_of_pil() -> None:
    prob, _ = random_maps(2, 19)
    up = m.resize_map(prob, (64, 50))
    own = np.asarray(Image.fromarray(prob[1].numpy()).resize((50, 64), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(up[1], own, atol=1e-6)
    mask = torch.rand(2, 256, 256) > 0.5
    for height, width in ((37, 37), (19, 19), (32, 32), (299, 299), (224, 299), (1, 3), (600, 224)):
        pil = np.asarray(Image.fromarray(mask[0].numpy()).resize((width, height), Image.Resampling.NEAREST))
        assert np.array_equal(m.resize_mask(mask, (height, width))[0], pil), (height, width)
        assert m.resize_mask(mask, (height, width)).dtype == torch.bool


def test_hand_made() -> None:
    mask = torch.tensor([[[1, 1], [0, 0]]])
    metric = m.Localization()
    metric.update(torch.tensor([[[0.9, 0.4], [0.6, 0.5]]]), mask)
    result = metric.compute()
    assert result["iou"].item() == pytest.approx(1 / 3)  # 0.5 is real
    assert result["pbca"] == 0.5
    assert result["f1"] == 0.5
    assert result["best_f1"].item() == pytest.approx(2 / 3)  # of one pixel, and of all four
    assert result["auroc"] == 0.5
    assert result["ap"].item() == pytest.approx(0.5 * 1 + 0.5 * 2 / 4)
    assert result["fpa"].isnan()


@pytest.mark.parametrize(("empty", "iou"), [("one", (0.5 + 1 + 0) / 3), ("zero", 0.5 / 3), ("skip", 0.5)])
def test_empty_masks_count_as_the_rule_says(empty: str, iou: float) -> None:
    prob = torch.zeros(4, 4, 4)
    mask = torch.zeros(4, 4, 4)
    mask[0, 0] = 1  # of four pixels two are found
    prob[0, 0, :2] = 1
    prob[2, 0, 0] = 1  # an empty mask, and one pixel is called fake
    prob[3, :2] = 1  # a real image, half of it called fake
    metric = m.Localization(empty=empty, name="a")
    metric.update(prob, mask, label=torch.tensor([1, 1, 1, 0]))
    with pytest.warns(UserWarning, match="domain 'a': 2 of 3 fakes have an empty mask"):
        result = metric.compute()
    assert result["iou"].item() == pytest.approx(iou)
    assert result["iou_all_real"].item() == pytest.approx({"one": 2 / 3, "zero": 0, "skip": 0}[empty])
    assert result["fpa"] == 0.5
    assert result["ap"].item() == pytest.approx(0.5 + 0.5 * 4 / 16)


def test_undefined_is_nan_with_a_warning() -> None:
    metric = m.Localization()
    with pytest.warns(UserWarning, match="no fake with a mask"):
        assert all(value.isnan() for value in metric.compute().values())
    prob, mask = random_maps(3)
    prob[1, 0, 0] = math.nan
    metric.update(prob, mask)
    with pytest.warns(UserWarning, match="1 of 3 maps hold NaN"):
        assert metric.compute()["iou"].isnan()
    full = m.Localization()
    full.update(prob[:1], torch.ones(1, 24, 24))
    assert full.compute()["auroc"].isnan()
    assert full.compute()["ap"] == 1


def test_refuses_what_would_be_silently_wrong() -> None:
    prob, mask = random_maps(2)
    with pytest.raises(TypeError, match="float32 or float64"):
        m.Localization().update(prob.bfloat16(), mask)
    with pytest.raises(ValueError, match="probabilities"):
        m.Localization().update(8 * prob - 4, mask)
    with pytest.raises(ValueError, match="maps \\(N, h, w\\)"):
        m.Localization().update(prob[:, None], mask)
    for words in ({"protocol": "bencho"}, {"empty": "none"}):
        with pytest.raises(ValueError, match=next(iter(words.values()))):
            m.Localization(**words)


def test_giou_and_ciou_are_those_of_sida() -> None:
    golden = np.load(Path(__file__).parents[1] / "golden/sida_iou.npz")
    for case in ("a", "b"):
        logit, target = (torch.from_numpy(golden[f"{case}_{name}"]) for name in ("logit", "target"))
        metric = m.Localization(empty="one")  # as it counts an empty mask
        metric.update(logit.sigmoid(), target)
        rows, result = metric.rows(), metric.compute()
        inside, union = (golden[f"{case}_{name}"][:, 1] for name in ("intersection", "union"))
        assert rows["tp"].tolist() == inside.tolist()
        assert (rows["tp"] + rows["fp"] + rows["fn"]).tolist() == union.tolist()
        assert rows["iou"].numpy() == pytest.approx(golden[f"{case}_iou_per_mask"][:, 1], abs=1e-6)
        assert float(result["ciou"]) == pytest.approx(inside.sum() / union.sum(), abs=1e-12)


def test_false_masks_count_the_real_images_with_any_called_pixel() -> None:
    prob = torch.zeros(4, 8, 8)
    prob[1, 2, 3], prob[3] = 0.6, 0.9
    metric = m.Localization()
    metric.update(prob, torch.zeros(4, 8, 8), torch.tensor([0, 0, 0, 1]))
    with pytest.warns(UserWarning, match="empty mask"):
        found = metric.compute()
    assert float(found["false_masks"]) == pytest.approx(1 / 3)
    assert float(found["fpa"]) == pytest.approx(1 / 192)
    only_fakes = m.Localization()
    only_fakes.update(prob, torch.ones(4, 8, 8))
    assert only_fakes.compute()["false_masks"].isnan()
