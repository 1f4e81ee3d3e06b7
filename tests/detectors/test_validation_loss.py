"""The loss that validation reports of detectors whose loss one image has alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from brightness import trainer

from dfl.data import DataModule, Toy, Transform
from dfl.data.sources import to_table
from dfl.data.sources.base import Source
from dfl.data.toy import make
from dfl.detectors import AttentionXception, Classifier, GradCam, PatchForensics
from dfl.losses import SingleCenter

TINY: dict[str, Any] = {"backbone": "test_resnet", "pretrained": False, "input_size": 32}


def small(**words: Any) -> AttentionXception:
    return AttentionXception(**TINY, layer="layer2", **words)


def masked(n: int = 4, size: int = 32) -> dict[str, Any]:
    torch.manual_seed(3)
    mask = (torch.rand(n, size, size) > 0.6).float()
    label = torch.arange(n) % 2
    return {"label": label, "mask": mask, "has_mask": torch.ones(n, dtype=torch.bool), "weight": torch.ones(n)}


@pytest.mark.parametrize(
    "detector",
    [
        lambda: PatchForensics("relu2"),
        lambda: PatchForensics("relu2", pooling="pooled_avg"),
        lambda: PatchForensics("relu2", supervision="mask"),
        lambda: GradCam(**TINY),
        lambda: GradCam(**TINY, head="fcn"),
        lambda: GradCam(**TINY, head="fcn", supervision="label"),
        lambda: small(),
        lambda: small(map_loss="l1", map_weight=0.5),
        lambda: small(supervision="mask", label_weight=0.0, mask_resize="bilinear"),
        lambda: small(supervision="mask", label_weight=2.0),
        lambda: Classifier(**TINY, criterion=SingleCenter()),
    ],
)
def test_the_loss_of_each_image_is_the_loss_of_it_alone(detector: Any) -> None:
    made, batch = detector().eval(), masked()
    with torch.no_grad():
        out = made(torch.randn(4, 3, 32, 32))
        each = made.image_loss(out, batch)
        assert each.shape == (4,)
        assert each.dtype == torch.float32
        one = [made.loss(*({k: v[i : i + 1] for k, v in d.items()} for d in (out, batch))) for i in range(4)]
        alone = [losses["ce" if type(made) in (Classifier,) else "loss"] for losses in one]
        torch.testing.assert_close(each, torch.stack(alone))
        assert len(set(each.tolist())) == 4


class Told(Source):
    """Twelve fakes and reals of the toy images, every third fake without its mask."""

    def __init__(self, toy: Path) -> None:
        super().__init__()
        self.toy = Toy(str(toy), n=80, size=32)

    def items(self, split: str) -> Any:
        rows = self.toy.load(split).to_pylist()
        return to_table(row | ({"mask": "", "mask_rule": ""} if i % 3 == 0 else {}) for i, row in enumerate(rows))


def test_validation_reports_the_mean_loss_of_images_with_a_mask(tmp_path: Path) -> None:
    make(tmp_path / "toy", n=80, size=32, workers=1, progress=False)
    detector = PatchForensics("relu2", supervision="mask", input_size=32)
    found = []
    for batch in (1, 5):
        data = DataModule(Told(tmp_path / "toy"), transform=Transform(augment="none"), batch_size=batch, num_workers=0)
        run = trainer(tmp_path)
        run.validate(detector, data, verbose=False)
        found.append(detector.results["val"]["mean"]["loss"])
        assert float(run.callback_metrics["val/mean/loss"]) == pytest.approx(found[-1], rel=1e-6)
        assert "loss" in detector.results["val"]["same"]
    items = [item for item in data.sets["val"]["same"] if item["has_mask"]]
    assert 0 < len(items) < len(data.sets["val"]["same"])
    losses = [
        detector.loss(
            detector.eval()(item["image"][None] / 255),
            {"mask": item["mask"][None], "has_mask": torch.tensor([True])},
        )["loss"]
        for item in items
    ]
    assert found == pytest.approx([float(torch.stack(losses).mean())] * 2, rel=1e-5)
    run = trainer(tmp_path)
    run.test(detector, data, verbose=False)
    assert "loss" not in detector.results["test"]["same"]
