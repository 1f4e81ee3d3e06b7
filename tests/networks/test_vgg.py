"""Stages of VGG: where they end, which files fit."""

from pathlib import Path

import pytest
import torch

from dfl.errors import UserError
from dfl.networks import without_weights
from dfl.networks.vgg import CHANNELS, DEPTHS, Vgg


@pytest.mark.parametrize("depth", [*DEPTHS])
def test_stages_end_at_the_first_activation_of_each_block(depth: int) -> None:
    with without_weights():
        vgg = Vgg(None, depth)
    found = vgg(torch.rand(1, 3, 32, 32))
    assert [tuple(one.shape[1:]) for one in found] == [(c, 32 >> i, 32 >> i) for i, c in enumerate(CHANNELS)]
    assert all(float(one.min()) == 0 for one in found)
    assert isinstance(vgg.features[-2], torch.nn.Conv2d)
    assert isinstance(vgg.features[-3], torch.nn.MaxPool2d)  # the first convolution of its block


def test_a_file_of_another_depth_is_one_line(tmp_path: Path) -> None:
    with without_weights():
        torch.save(Vgg(None, 16).half().state_dict(), tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=r"vgg.pth does not fit the network: .*missing"):
        Vgg(str(tmp_path / "vgg.pth"), 19)
    with pytest.raises(UserError, match=r"model.vgg is 'imagenet', and VGG16's weights are wanted: .*vgg16-"):
        Vgg("imagenet", 16)
