"""CNNDetection: its published files open by name, and its config is its recipe."""

import torch
import torchvision

from dfl.detectors import Classifier
from dfl.detectors.untrained import untrained

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
