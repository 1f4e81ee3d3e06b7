"""Baseline's fair losses: DAG-FDD and DAW-FDD as their code computes them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.detectors import Baseline

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "fairness_losses.npz")


def losses(**words: object) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    logit = torch.tensor(GOLDEN["dag_daw/logit"]).requires_grad_()
    detector = Baseline("test_resnet", pretrained=False, input_size=32, **words)
    batch = {"label": torch.tensor(GOLDEN["dag_daw/labels"]), "group": torch.tensor(GOLDEN["dag_daw/groups"])}
    found = detector.loss({"logits": torch.stack([torch.zeros_like(logit), logit], 1)}, batch)
    found["loss"].backward()
    assert logit.grad is not None
    return found, logit.grad


def test_daw_equals_its_code() -> None:
    """Two logits with cross-entropy are one logit, their difference, with binary cross-entropy."""
    found, grad = losses(fair="daw")
    here = "dag_daw/daw/ai0.9_ao0.5"
    assert found["loss"].item() == pytest.approx(float(GOLDEN[f"{here}/loss"]), abs=1e-5)
    assert found["loss"] is found["cvar"]
    groups = torch.tensor(GOLDEN["dag_daw/groups"])
    worst = torch.tensor(GOLDEN[f"{here}/inner_loss"]) > float(GOLDEN[f"{here}/outer_eta"]) + 1e-4
    known = groups.unique()
    assert all(grad[groups == g].abs().sum() > 0 for g in known[worst])
    assert all(grad[groups == g].abs().sum() == 0 for g in known[~worst])


@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_dag_equals_its_code(alpha: float) -> None:
    found, _ = losses(fair="dag", fair_alpha=alpha)
    assert found["loss"].item() == pytest.approx(float(GOLDEN[f"dag_daw/dag/a{alpha}/loss"]), abs=1e-5)


def test_without_it_nothing_changes_and_a_share_of_one_is_the_mean() -> None:
    plain, grad = losses()
    assert set(plain) == {"loss", "ce"}
    whole, same = losses(fair="dag", fair_alpha=1.0)
    torch.testing.assert_close(whole["loss"], plain["ce"])
    torch.testing.assert_close(same, grad)


def test_groups_split_by_class_show_fakes_that_are_missed() -> None:
    """The one fake of the last group is missed, and yet its CVaR is the smallest: it has twelve easy reals."""
    easy, hard = torch.tensor([[2.0, -2.0]]), torch.tensor([[1.0, -1.0]])
    logits = torch.cat([hard.repeat(9, 1), easy.repeat(12, 1), torch.tensor([[0.5, -0.5]])]).requires_grad_()
    label = torch.tensor([0] * 21 + [1])
    batch = {"label": label, "group": torch.tensor([0] * 3 + [1] * 3 + [2] * 3 + [3] * 13)}
    weight = {}
    for fair in ("daw", "daw_class"):
        detector = Baseline("test_resnet", pretrained=False, input_size=32, fair=fair, fair_alpha_inner=1.0)
        (grad,) = torch.autograd.grad(detector.loss({"logits": logits}, batch)["loss"], logits)
        weight[fair] = float(grad[-1].abs().sum() / grad.abs().sum())
    assert weight["daw"] == 0.0
    assert weight["daw_class"] > 0.5
