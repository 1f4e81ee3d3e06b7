"""NPR: the published residual, its files, images with odd sides."""

from pathlib import Path

import numpy as np
import timm
import torch

from dfl.detectors import Classifier
from dfl.detectors.untrained import untrained
from dfl.networks.zoo.npr import residual

GOLDEN = {k: torch.from_numpy(v) for k, v in np.load(Path(__file__).parents[1] / "golden" / "npr.npz").items()}


def test_residual_is_the_published_one_to_the_last_bit() -> None:
    found = residual(GOLDEN["x"])
    assert torch.equal(found, GOLDEN["npr"])
    assert torch.equal(found * 2.0 / 3.0, GOLDEN["conv_in"])


def test_an_image_enlarged_twofold_by_the_nearest_pixel_leaves_nothing() -> None:
    small = torch.rand(2, 3, 9, 7)
    assert not residual(small.repeat_interleave(2, 2).repeat_interleave(2, 3)).any()
    assert residual(torch.rand(2, 3, 18, 14)).any()


def test_odd_last_rows_and_columns_go() -> None:
    x = torch.rand(1, 3, 33, 47)
    assert torch.equal(residual(x), residual(x[..., :32, :46]))
    model = timm.create_model("npr_resnet50", num_classes=1).eval()
    assert model.forward_features(x).shape == (1, 512, 4, 6)
    torch.testing.assert_close(model(x), model(x[..., :32, :46]))


def test_a_published_file_opens_without_the_head_that_nothing_uses(tmp_path: Path) -> None:
    donor = timm.create_model("npr_resnet50", num_classes=1).eval()
    state = {key.replace("fc.", "fc1."): value for key, value in donor.state_dict().items()}
    extra = {"fc.weight": torch.rand(1, 2048), "fc.bias": torch.rand(1)}
    torch.save(
        {"model": {f"module.{k}": v for k, v in (state | extra).items()}, "total_steps": 9}, tmp_path / "NPR.pth"
    )
    words = {"backbone": "npr_resnet50", "weights": str(tmp_path / "NPR.pth"), "timm_args": {"num_classes": 1}}
    detector = Classifier(**words, input_size=32).eval()
    assert untrained(detector) == []
    image = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(detector(image)["logit"], donor(detector.normalize(image))[:, 0])
