"""Several views of an image: their log-odds are averaged, all else is the centre's, and the centre alone is as ever."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from brightness import trainer
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from dfl.data import DataModule, Folder, Transform
from dfl.detectors import Detector
from dfl.evaluation.examples import Examples
from dfl.evaluation.report import Report


class Corner(Detector):
    """Log-odds by the first pixel, a map of the image, and a text; it notes what comes in."""

    input_size = 24

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(4.0))
        self.sizes: list[int] = []

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        self.sizes.append(len(image))
        logit = self.weight * (0.4 - image.flatten(1)[:, 0])
        classes = torch.stack([-logit, logit, image.flatten(1)[:, 1]], 1)
        return {"logit": logit.bfloat16(), "class_logit": classes, "mask_logit": image[:, 0], "feature": image[:, 0, 0]}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        return {"loss": self.image_loss(out, batch).mean()}

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        return out["logit"].float()


def data(faces: Path, **words: Any) -> DataModule:
    module = DataModule(Folder(str(faces)), size=24, num_workers=0, batch_size=7, **words)
    module.transform = Transform(resize="none", augment="none")
    module.sets["test"] = dict(module.datasets("test"))
    return module


def test_the_mean_over_views_goes_with_the_centres_maps(faces: Path) -> None:
    batch = next(iter(data(faces, views="five").test_dataloader()[0]))
    detector, views = Corner(), torch.cat([batch["image"][:, None], batch["views"]], 1)
    each = [detector(view / 255) for view in views.unbind(1)]
    detector.sizes.clear()
    centre, out = detector.over_views(detector.on_after_batch_transfer(dict(batch), 0))
    assert detector.sizes == [7] * 5, "one view after the other"
    assert out["logit"].dtype == torch.float32
    assert torch.allclose(out["logit"], torch.stack([one["logit"].float() for one in each]).mean(0), atol=1e-6)
    assert torch.allclose(out["class_logit"], torch.stack([one["class_logit"] for one in each]).mean(0), atol=1e-6)
    assert not torch.equal(out["logit"], centre["logit"].float())
    for name in ("mask_logit", "feature"):
        assert torch.equal(out[name], each[0][name])
    assert all(torch.equal(centre[name], each[0][name]) for name in centre)


def test_the_centre_alone_is_what_the_detector_gives(faces: Path) -> None:
    batch = next(iter(data(faces).test_dataloader()[0]))
    assert "views" not in batch
    detector = Corner()
    batch = detector.on_after_batch_transfer(batch, 0)
    out = detector.over_views(batch)[1]
    assert detector.sizes == [7]
    assert out["logit"].dtype == torch.bfloat16
    assert all(torch.equal(out[name], value) for name, value in detector.outputs(batch).items())


@pytest.mark.filterwarnings("ignore:domain ", "ignore:.*video", "ignore:validation AUROC")
def test_metrics_predictions_and_pages_agree(faces: Path, tmp_path: Path) -> None:
    module = data(faces, views="tiles", allow_overlap=True)
    batches = list(module.test_dataloader()[0])
    views = torch.cat([torch.cat([batch["image"][:, None], batch["views"]], 1) for batch in batches]) / 255
    label = torch.cat([batch["label"] for batch in batches])
    scores = torch.stack([Corner()(view)["logit"].float() for view in views.unbind(1)]).mean(0).sigmoid()
    detector = Corner()
    detector.threshold.fill_(0.5)
    trainer(tmp_path, Report(pictures=2)).test(detector, module, verbose=False)
    wanted = roc_auc_score(label, scores.detach())
    assert detector.results["test"]["same"]["auroc"] == pytest.approx(wanted)
    assert wanted != pytest.approx(roc_auc_score(label, Corner()(views[:, 0])["logit"].detach().float()))
    (item, _), *_ = Examples.of(detector.trainer, detector, "test").most_wrong("same", 1)
    assert item["image"].shape == (3, 24, 24)
    predicted = trainer(tmp_path).predict(detector, module)
    assert torch.allclose(torch.cat([one["score"] for one in predicted]), scores, atol=1e-6)
    assert predicted[0]["map"].shape == (7, 24, 24)
    trainer(tmp_path).validate(detector, module, verbose=False)
    loss = detector.results["val"]["same"]["loss"]
    assert loss == pytest.approx(Corner()(views[:, 0])["logit"].float().mean().item(), abs=1e-4), "of the centre"
