"""The fair criterions of a classifier: DAG-FDD and DAW-FDD as their code computes them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dfl.detectors import Classifier
from dfl.losses import DagFdd, DawFdd

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "fairness_losses.npz")


def losses(**words: object) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    logit = torch.tensor(GOLDEN["dag_daw/logit"]).requires_grad_()
    detector = Classifier("test_resnet", pretrained=False, input_size=32, **words)
    batch = {"label": torch.tensor(GOLDEN["dag_daw/labels"]), "group": torch.tensor(GOLDEN["dag_daw/groups"])}
    found = detector.loss({"logits": torch.stack([torch.zeros_like(logit), logit], 1)}, batch)
    found["loss"].backward()
    assert logit.grad is not None
    return found, logit.grad


def test_daw_equals_its_code() -> None:
    """Two logits with cross-entropy are one logit, their difference, with binary cross-entropy."""
    found, grad = losses(criterion=DawFdd())
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
    found, _ = losses(criterion=DagFdd(alpha))
    assert found["loss"].item() == pytest.approx(float(GOLDEN[f"dag_daw/dag/a{alpha}/loss"]), abs=1e-5)


def test_without_it_nothing_changes_and_a_share_of_one_is_the_mean() -> None:
    plain, grad = losses()
    assert set(plain) == {"loss", "ce"}
    whole, same = losses(criterion=DagFdd(1.0))
    torch.testing.assert_close(whole["loss"], plain["ce"])
    torch.testing.assert_close(same, grad)
