"""Whole images, padded to a square (`resize: pad`), from the file to the loss, the metrics and the written map."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brightness import trainer
from PIL import Image
from torch import Tensor, nn

from dfl.data import DataModule, Table, Transform
from dfl.detectors import PatchForensics
from dfl.detectors.base import Detector
from dfl.detectors.sida.losses import sida_bce, sida_dice
from dfl.detectors.sida.sida import classes
from dfl.evaluation.examples import Examples, outputs_of
from dfl.evaluation.predictions import PredictionWriter
from dfl.metrics import inside
from dfl.networks import Normalize

SIZES = {"wide": (96, 72), "tall": (30, 120), "square": (64, 64), "small": (20, 15)}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tampered image of each shape, white on the left tenth, which is its mask, and one real image."""
    root, lines = tmp_path_factory.mktemp("shapes"), ["path,label,mask,split"]
    for name, (width, height) in SIZES.items():
        mask = np.zeros((height, width), np.uint8)
        mask[:, : width // 10] = 255
        Image.fromarray(mask).save(root / f"{name}_mask.png")
        for split in ("train", "val", "test"):
            Image.fromarray(np.stack([mask] * 3, 2)).save(root / f"{name}_{split}.png")
            lines.append(f"{name}_{split}.png,1,{name}_mask.png,{split}")
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(root / "real.png")
    lines.append("real.png,0,,test")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    return root / "table.csv"


def data(table: Path, batch: int = 2, **words: Any) -> DataModule:
    view = Transform(**{"resize": "pad", "augment": "none", "soft_masks": True} | words)
    return DataModule(Table(str(table)), transform=view, batch_size=batch, num_workers=0)


class Bright(Detector):
    """Draws what is bright, and everything in the padding."""

    input_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = self.weight * self.normalize(image)[:, 0] * 20
        return {"logit": maps.flatten(1).amax(1), "mask_logit": torch.where(maps == 0, 20.0, maps)}

    def loss(self, out: dict[str, Tensor], batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"loss": out["logit"].mean()}


def test_a_mask_on_the_left_is_there_in_training_and_in_the_test(table: Path) -> None:
    module = data(table)
    module.size = 64
    for split in ("train", "test"):
        for item in next(iter(module.datasets(split).values())):
            rows, columns = item["extent"].tolist()
            name = Path(item["path"]).stem.partition("_")[0]
            width, height = SIZES.get(name, (60, 40))
            assert (max(rows, columns), abs(columns / rows - width / height) < 0.05) == (64, True)
            share = item["mask"][:rows, :columns].mean()
            assert share == pytest.approx(width // 10 / width if item["label"] else 0, abs=0.01)
            assert not item["mask"][rows:].any()
            assert not item["mask"][:, columns:].any()


@pytest.mark.parametrize("batch", [1, 3])
def test_metrics_leave_the_padding_out(table: Path, tmp_path: Path, batch: int) -> None:
    detector = Bright()
    detector.threshold.fill_(0.5)
    trainer(tmp_path).test(detector, data(table, batch, soft_masks=False), verbose=False)
    found = detector.results["test"]["same"]
    assert found["mask_iou"] > 0.85  # what is drawn in the padding does not count; it would be .13
    assert found["mask_iou_all_fake"] == pytest.approx(0.1, abs=0.02)
    assert found["mask_fpa"] == found["mask_false_masks"] == 0


def test_the_padding_is_zero_after_normalisation(table: Path) -> None:
    module = data(table)
    module.size = 64
    images = list(module.datasets("test")["same"])
    batch = {k: torch.stack([item[k] for item in images]) for k in ("image", "extent")}
    detector = PatchForensics("relu1")
    detector.normalize = Normalize((0.485, 0.456, 0.406), (0.5, 0.5, 0.5))
    plain, shown = detector.normalize(batch["image"] / 255), inside(batch)
    assert shown is not None
    assert shown.flatten(1).sum(1).tolist() == batch["extent"].prod(1).tolist()
    seen = detector.on_after_batch_transfer(batch, 0)["image"]
    torch.testing.assert_close(detector.normalize(seen), plain * shown[:, None])
    assert detector.normalize(seen).where(shown[:, None], 0.0).equal(detector.normalize(seen))  # exactly 0 outside
    assert inside({"image": seen}) is None
    for item, one in zip(images, seen, strict=True):
        seen_alone: list[Tensor] = []
        detector.outputs = lambda b, keep=seen_alone: keep.append(b["image"])  # type: ignore[assignment]
        outputs_of(detector, item)
        torch.testing.assert_close(seen_alone[0][0], one)


def test_written_maps_are_of_the_image_alone(table: Path, tmp_path: Path) -> None:
    writer = PredictionWriter(str(tmp_path / "s.csv"), maps=str(tmp_path / "maps"))
    trainer(tmp_path, writer).predict(Bright(), data(table), return_predictions=False)
    for name, (width, height) in SIZES.items():
        (file,) = (tmp_path / "maps").rglob(f"*_{name}_test.png")
        rows, columns = (round(64 * n / max(width, height)) for n in (height, width))
        drawn = np.asarray(Image.open(file))
        assert drawn.shape == (rows, columns)
        assert Image.open(file.with_name(f"{file.stem}_overlay.jpg")).size == (columns, rows)
        back = np.asarray(Image.fromarray((drawn > 32768).astype(np.uint8)).resize((width, height), Image.NEAREST))
        mask = np.asarray(Image.open(table.parent / f"{name}_mask.png")) > 0
        assert (back.astype(bool) & mask).sum() / (back.astype(bool) | mask).sum() > 0.6, name


def test_pictures_of_a_page_are_of_the_image_alone(table: Path, tmp_path: Path) -> None:
    detector, module = Bright(), data(table)
    detector.threshold.fill_(0.5)
    trainer(tmp_path).test(detector, module, verbose=False)
    shown = Examples(detector, "test", module.sets["test"]).maps("same", 2)
    assert shown
    for one in shown:
        assert one.image.shape[1:] == one.mask.shape == one.prob.shape
        assert max(one.mask.shape) == 64
        assert one.prob[:, -1].max() < 0.5


def test_mask_losses_are_those_of_the_images_cut_out() -> None:
    logit, target = torch.randn(3, 16, 16, requires_grad=True), torch.rand(3, 16, 16)
    extent = torch.tensor([[16, 12], [9, 16], [16, 16]])
    shown = inside({"image": torch.zeros(3, 3, 16, 16), "extent": extent})
    for loss in (sida_bce, sida_dice):
        alone = [
            loss(logit[i : i + 1, :rows, :columns], target[i : i + 1, :rows, :columns])
            for i, (rows, columns) in enumerate(extent.tolist())
        ]
        whole = loss(logit, target, shown=shown)
        torch.testing.assert_close(whole, torch.stack(alone).mean())
        (slope,) = torch.autograd.grad(whole, logit)
        assert slope[~shown].abs().max() == 0
        torch.testing.assert_close(loss(logit, target, shown=torch.ones_like(shown)), loss(logit, target))


def test_the_padding_is_no_hole_in_a_whole_mask() -> None:
    batch = {
        "class_label": torch.tensor([-1, -1]),
        "label": torch.tensor([1, 1]),
        "mask": torch.zeros(2, 8, 8),
        "has_mask": torch.tensor([True, True]),
        "image": torch.zeros(2, 3, 8, 8),
        "extent": torch.tensor([[8, 6], [8, 6]]),
    }
    batch["mask"][0, :, :6], batch["mask"][1, :, :5] = 1, 1
    assert classes(batch).tolist() == [1, 2]
