"""Losses of maps against the official codes, and what they promise of themselves."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.detectors.patches import image_logit
from dfl.losses import largest_loss, mask_loss, mean_logit, patch_loss
from dfl.losses.localization import target

GOLDEN = dict(np.load(Path(__file__).parent.parent / "golden" / "localization_losses.npz"))
ALL = torch.ones(6, dtype=torch.bool)


def patches() -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.from_numpy(GOLDEN["pt_logits"])
    return logits[:, 1] - logits[:, 0], torch.from_numpy(GOLDEN["pt_labels"])


@pytest.mark.parametrize("pooling", ["expand", "pooled_max", "pooled_avg"])
def test_equals_the_losses_of_dolos(pooling: str) -> None:
    assert patch_loss(*patches(), pooling).item() == pytest.approx(float(GOLDEN[f"pt_loss_{pooling}"]), abs=1e-6)


def test_equals_the_mask_loss_of_dolos() -> None:
    loss = mask_loss(patches()[0], torch.from_numpy(GOLDEN["pt_mask"]).float(), ALL)
    assert loss.item() == pytest.approx(float(GOLDEN["pt_loss_setup_c"]), abs=1e-6)


@pytest.mark.parametrize("score", ["after_softmax", "before_softmax", "vote"])
def test_equals_the_scores_of_patch_forensics(score: str) -> None:
    expected = GOLDEN[f"pf_{score.partition('_')[0]}"][:, 1]
    np.testing.assert_allclose(image_logit(patches()[0], score).sigmoid(), expected, atol=1e-6)


def test_equals_the_losses_of_attention() -> None:
    value, label = torch.from_numpy(GOLDEN["at_map"])[:, 0], patches()[1]
    logit = value.double().logit().float()
    mask = torch.from_numpy(GOLDEN["at_gt_mask"])[:, 0].float()
    assert largest_loss(logit, label).item() == pytest.approx(float(GOLDEN["at_weak_mask"]), abs=1e-6)
    assert mask_loss(logit, mask, ALL).item() == pytest.approx(float(GOLDEN["at_full"]), abs=1e-6)
    l1 = mask_loss(logit, mask, ALL, kind="l1", map_prob=value)
    assert l1.item() == pytest.approx(float(GOLDEN["ffd_l1"]), abs=1e-6)
    soft = torch.from_numpy(GOLDEN["ffd_soft_gt"])  # stays soft
    assert mask_loss(logit, soft, ALL, kind="l1").item() == pytest.approx((value - soft).abs().mean().item(), abs=1e-6)


def test_masks_shrink_as_in_dolos() -> None:
    mask = 1 - torch.from_numpy(np.unpackbits(GOLDEN["mask_keep"]).reshape(1, 256, 256)).float()
    for side in (37, 32, 19, 16):
        assert np.array_equal(target(mask, (side, side))[0], GOLDEN[f"mask_fake_{side}"])
    attention = target(mask, (19, 19), "bilinear")[0].numpy()
    assert np.array_equal(attention, GOLDEN["mask_fake_19_attention"])
    assert (attention != GOLDEN["mask_fake_19"]).sum() > 5  # the two rules are not the same


def test_images_without_a_mask_are_left_out() -> None:
    logit, mask = torch.randn(3, 4, 4), (torch.rand(3, 8, 8) > 0.5).float()
    known = torch.tensor([True, False, True])
    some = mask_loss(logit, mask, known)
    assert some.item() == pytest.approx(mask_loss(logit[known], mask[known], known[known]).item())
    none = mask_loss(logit.requires_grad_(), mask, torch.zeros(3, dtype=torch.bool))
    none.backward()
    assert none == 0
    assert logit.grad.abs().sum() == 0


def test_sure_maps_stay_finite_and_low_precision_is_raised() -> None:
    sure = torch.full((2, 3, 3), 200.0)
    label = torch.tensor([0, 1])
    assert mean_logit(sure).tolist() == pytest.approx([200, 200], rel=1e-5)
    for pooling in ("expand", "pooled_max", "pooled_avg"):
        loss = patch_loss(sure.bfloat16(), label, pooling)
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(100, rel=1e-2)
    weighted = patch_loss(sure, label, weight=torch.tensor([0.5, 7.0]))
    assert weighted.item() == pytest.approx(50, rel=1e-5)


def test_the_largest_probability_is_that_of_the_largest_logit() -> None:
    logit, label = torch.randn(6, 5, 5), torch.tensor([0, 1, 0, 1, 1, 0])
    direct = torch.nn.functional.binary_cross_entropy(logit.sigmoid().flatten(1).amax(1), label.float())
    assert largest_loss(logit, label).item() == pytest.approx(direct.item(), abs=1e-6)
    assert largest_loss(logit, torch.ones(6), "l1", torch.full_like(logit, 0.75)) == 0
    one = [largest_loss(logit[i : i + 1], label[i : i + 1], "l1") for i in range(6)]
    weight = torch.tensor([2.0, 0, 0, 0, 1, 0])  # of each image
    assert largest_loss(logit, label, "l1", weight=weight).item() == pytest.approx((2 * one[0] + one[4]).item() / 6)
