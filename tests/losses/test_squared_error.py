"""Squared error of the probability: its value, its weights, and that a checkpoint can name it."""

import torch

from dfl.losses import Criterion, SquaredError


def test_it_is_the_mean_squared_error_of_the_sigmoid() -> None:
    logit, label = torch.randn(7), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    weight = torch.rand(7)
    found = SquaredError()({"logit": logit}, {"label": label, "weight": weight})
    wanted = ((1 / (1 + torch.exp(-logit)) - label) ** 2 * weight).mean()
    torch.testing.assert_close(found["loss"], wanted)
    torch.testing.assert_close(
        SquaredError()({"logit": -logit}, {"label": 1 - label})["mse"],  # of the probability of real, as published
        ((torch.sigmoid(logit) - label) ** 2).mean(),
    )
    assert SquaredError()({"logit": logit.bfloat16()}, {"label": label})["loss"].dtype == torch.float32


def test_its_spec_makes_it_again() -> None:
    assert isinstance(Criterion.of(SquaredError().spec), SquaredError)
