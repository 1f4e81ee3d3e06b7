"""Counting: the loss apart from the network, shared weights once, multiply-adds by hand."""

import torch
from torch import Tensor, nn

from dfl.training.trainer import Count, count_gmacs, count_parameters


class Tiny(nn.Module):
    """A 3x3 convolution, a frozen one, and a loss with a center."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.second = nn.Conv2d(4, 2, 1).requires_grad_(False)
        self.again = self.first
        self.criterion = nn.ParameterDict({"center": nn.Parameter(torch.zeros(7))})

    def forward(self, image: Tensor) -> Tensor:
        return self.second(self.first(image))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Identity(), nn.Linear(3, 3))

    def forward(self, image: Tensor) -> Tensor:
        tokens = image.flatten(2).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


def test_loss_is_counted_apart_and_shared_weights_once() -> None:
    counted = count_parameters(Tiny())
    assert counted.network == Count(108, 108 + 10)
    assert counted.loss == Count(7, 7)
    assert counted.parts == {"first": Count(108, 108), "second": Count(0, 10)}
    assert str(Count(589_824, 87_157_480)) == "589,824 trainable of 87,157,480"


def test_a_lone_wrapper_is_opened() -> None:
    assert count_parameters(Attention()).parts == {"inner.1": Count(12, 12)}


def test_multiply_adds_by_hand() -> None:
    model = Tiny().train()
    assert count_gmacs(model, 8) == (8 * 8 * 4 * 27 + 8 * 8 * 2 * 4) / 1e9
    assert model.training
    # attention: two products of 16 x 3 and 3 x 16 matrices, whatever kernel runs otherwise
    assert count_gmacs(Attention(), 4) == 2 * 16 * 16 * 3 / 1e9
