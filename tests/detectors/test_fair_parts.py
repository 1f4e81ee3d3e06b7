"""LDAM and the contrastive triplets: the official code's numbers, and cases by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.detectors.disentangle.losses import contrastive_triplets, ldam, shuffle_within
from dfl.errors import UserError

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "fairness_losses.npz")


def golden(name: str) -> torch.Tensor:
    return torch.tensor(GOLDEN[name])


@pytest.mark.parametrize(
    ("case", "margin", "scale"), [("official", 0.5, 30), ("s1", 0.5, 1), ("m0.3_s10", 0.3, 10), ("three", 0.5, 30)]
)
def test_ldam_equals_the_official_code(case: str, margin: float, scale: float) -> None:
    own = f"ldam/{case}" if case == "three" else "ldam"
    counts, target, logits = (golden(f"{w}") for w in (f"{own}/cls_num_list", f"{own}/target", "ldam/logits"))
    logits = logits[:, : len(counts)].clone().requires_grad_()
    value = ldam(logits, target, counts.tolist(), margin, scale)
    value.backward()
    assert value.item() == pytest.approx(float(GOLDEN[f"ldam/{case}/loss"]), abs=1e-5)
    torch.testing.assert_close(logits.grad, golden(f"ldam/{case}/grad"), atol=1e-6, rtol=1e-4)


def test_ldam_leaves_out_unknown_targets_and_gives_absent_classes_no_margin() -> None:
    logits, target = torch.randn(6, 3, requires_grad=True), torch.tensor([0, -1, 2, -1, 1, -1])
    known = target >= 0
    torch.testing.assert_close(ldam(logits, target, [9, 3, 1]), ldam(logits[known], target[known], [9, 3, 1]))
    none = ldam(logits, torch.full((6,), -1), [9, 3, 1])
    none.backward()
    assert none.item() == 0
    assert logits.grad.abs().max() == 0
    one = ldam(logits[:1], torch.tensor([1]), [16, 0, 1], scale=1.0)
    torch.testing.assert_close(one, torch.nn.functional.cross_entropy(logits[:1], torch.tensor([1])))


def test_ldam_wants_a_count_for_each_class() -> None:
    with pytest.raises(UserError, match="each of the 3 classes"):
        ldam(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), [1, 2])


@pytest.mark.parametrize("margin", [3.0, 1.0, 0.0])
@pytest.mark.parametrize("case", ["n16_pg", "n8_onefake", "n12"])
def test_triplets_equal_the_official_code(case: str, margin: float) -> None:
    here = f"contrastive/{case}/margin{margin}"
    common, specific = (golden(f"contrastive/{case}/{k}").requires_grad_() for k in ("common", "specific"))
    perms = [golden(f"{here}/perm_{k}") for k in ("real", "fake", "specific")]
    value = contrastive_triplets(common, specific, margin, *perms)
    value.backward()
    assert value.item() == pytest.approx(float(GOLDEN[f"{here}/loss"]), rel=1e-5)
    # where a hinge or a self-pair is at its kink, rounding decides
    torch.testing.assert_close(common.grad, golden(f"{here}/grad_common"), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(specific.grad, golden(f"{here}/grad_specific"), atol=1e-5, rtol=1e-3)
    two = contrastive_triplets(common, None, margin, *perms).item()
    parts = GOLDEN[f"{here}/parts_realcommon_fakecommon_realspecific_fakespecific"]
    assert two == pytest.approx(parts[:2].sum(), rel=1e-5)


def test_draws_are_those_of_torch_and_stay_in_their_method() -> None:
    methods = torch.tensor([0, 0, 0, 0, 1, 2, 1, 3])
    torch.manual_seed(7)
    first, again = shuffle_within(methods), shuffle_within(methods)
    torch.manual_seed(7)
    assert torch.equal(shuffle_within(methods), first)
    assert not torch.equal(again, first)
    drawn = torch.stack([shuffle_within(methods) for _ in range(50)])
    assert (methods[drawn] == methods).all()
    assert (drawn.sort(1).values == torch.arange(8)).all()
    assert (drawn != torch.arange(8)).any(0).tolist() == [True] * 4 + [True, False, True, False]


def test_triplets_are_float32_under_autocast() -> None:
    common, perms = torch.randn(8, 256).bfloat16(), (torch.arange(4), torch.arange(4, 8), torch.arange(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = contrastive_triplets(common, None, 3.0, *perms)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, contrastive_triplets(common.float(), None, 3.0, *perms))
