"""CNNDetection: its published files open by name, and its config is its recipe."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from dfl.__main__ import main
from dfl.data import DataModule, Transform
from dfl.detectors import Classifier
from dfl.detectors.untrained import untrained
from dfl.errors import UserError

#: Names and shapes of the published files, which are those of torchvision's ResNet-50.
FACTS = {
    "conv1.weight": (64, 3, 7, 7),
    "bn1.running_var": (64,),
    "layer1.0.downsample.0.weight": (256, 64, 1, 1),
    "layer3.5.conv2.weight": (256, 256, 3, 3),
    "layer4.2.bn3.num_batches_tracked": (),
    "fc.weight": (1, 2048),
    "fc.bias": (1,),
}


def test_a_file_of_its_layout_opens_whole_and_gives_its_logit() -> None:
    model = torchvision.models.resnet50(num_classes=1).eval()
    state = model.state_dict()
    assert {name: tuple(state[name].shape) for name in FACTS} == FACTS
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    torch.save({"model": state, "optimizer": optimizer, "total_steps": 7}, "blur_jpg_prob0.5.pth")
    words = {"pretrained": False, "timm_args": {"num_classes": 1}, "head_std": 0.02}
    detector = Classifier("resnet50", weights="blur_jpg_prob0.5.pth", **words).eval()
    assert untrained(detector) == []
    assert sum(p.numel() for p in detector.network.parameters()) == 23_510_081
    image = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(detector(image)["logit"], model((image - mean) / std)[:, 0])


def test_images_without_a_crop_have_the_scores_that_they_have_alone() -> None:
    generator, alone = np.random.default_rng(0), []
    for i, shape in enumerate([(40, 33, 3), (64, 50, 3), (31, 90, 3), (128, 128, 3)]):
        folder = Path("images", "fake" if i % 2 else "real")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        alone.append((i % 2, torch.tensor(pixels).permute(2, 0, 1)[None] / 255))
    detector = Classifier("test_resnet", pretrained=False, timm_args={"num_classes": 1}).eval()
    torch.save(detector.network.state_dict(), "w.pth")
    model = ["--model=Classifier", "--model.backbone=test_resnet", "--model.weights=w.pth"]
    model += ["--model.timm_args={num_classes: 1}", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    data = ["--data=data/folder.yaml", "--data.train.root=images", "--data.train.fractions={train: 0, val: 0, test: 1}"]
    data += ["--data.num_workers=0", "--data.transform.resize=whole", "--data.eval_batch_size=1"]
    rows = main(["test", *model, *data]).model.metrics["test"].rows("same")
    with torch.no_grad():
        said = sorted((label, float(detector(image)["logit"].sigmoid())) for label, image in alone)
    tested = sorted(zip(rows["label"].tolist(), rows["score"].tolist(), strict=True))
    assert np.array(tested) == pytest.approx(np.array(said))
    with pytest.raises(UserError, match="set data.eval_batch_size to 1"):
        DataModule(transform=Transform(resize="whole"))
