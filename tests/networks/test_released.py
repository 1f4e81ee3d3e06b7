"""Files of DeepfakeBench, written here in its layout, open as the network that they hold, or say which it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from dfl.detectors import Classifier, Lsda
from dfl.detectors.untrained import untrained
from dfl.errors import UserError

Table = dict[str, Tensor]


def adjust(width: int) -> Table:
    """Return the layer that their backbones have beside, used or not."""
    return {"adjust_channel.0.weight": torch.rand(512, width, 1, 1), "adjust_channel.1.running_mean": torch.rand(512)}


def xception(state: Table) -> Table:
    return {key.replace("fc.", "last_linear."): value for key, value in state.items()} | adjust(2048)


def old_xception(state: Table) -> Table:
    return {k: v[..., 0, 0] if "pointwise" in k else v for k, v in xception(state).items()}


def resnet34(state: Table) -> Table:
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}

    def name(key: str) -> str:
        first, _, rest = key.partition(".")
        return f"resnet.{numbers[first]}.{rest}" if first in numbers else key

    return {name(key): value for key, value in state.items()} | adjust(512)


def efficientnet(state: Table) -> Table:
    """Return the table under the names of efficientnet_pytorch, which has its tensors in timm's order."""
    around = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    first = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "se": "", "conv_pw": "_project_conv", "bn2": "_bn2"}
    other = {
        **{"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1", "se": ""},
        **{"conv_pwl": "_project_conv", "bn3": "_bn2"},
    }
    blocks = sorted({tuple(map(int, key.split(".")[1:3])) for key in state if key.startswith("blocks.")})
    table = {}
    for key, value in state.items():
        words = key.split(".")
        if words[0] == "blocks":
            layer = (first if words[1] == "0" else other)[words[3]] or words.pop(4).replace("conv_", "_se_")
            rest = ".".join(words[4:])
            table[f"efficientnet._blocks.{blocks.index((int(words[1]), int(words[2])))}.{layer}.{rest}"] = value
        elif words[0] == "classifier":
            table[f"last_layer.{words[1]}"] = value
        else:
            table[f"efficientnet.{around[words[0]]}.{words[1]}"] = value
    return table | adjust(1792)


LAYOUTS: dict[str, tuple[str, Callable[[Table], Table]]] = {
    "xception": ("legacy_xception", xception),
    "xception, pointwise as matrices": ("legacy_xception", old_xception),
    "cnn-aug": ("resnet34", resnet34),
    "efficientnet-b4": ("dfb_efficientnet_b4", efficientnet),
}


def write(path: Path, backbone: str, layout: Callable[[Table], Table], ddp: bool = False) -> Any:
    """Write a random network as they would; return it."""
    torch.manual_seed(3)
    model = timm.create_model(backbone, num_classes=2).eval()
    prefix = "module.backbone." if ddp else "backbone."
    torch.save({f"{prefix}{key}": value for key, value in layout(model.state_dict()).items()}, path)
    return model


@pytest.mark.parametrize("case", LAYOUTS)
def test_it_opens_as_the_network_that_it_is(case: str, tmp_path: Path) -> None:
    backbone, layout = LAYOUTS[case]
    donor = write(tmp_path / "ckpt_best.pth", backbone, layout, ddp=case == "cnn-aug")
    detector = Classifier(backbone=backbone, weights=str(tmp_path / "ckpt_best.pth"))
    assert untrained(detector) == []
    own = detector.network.state_dict()
    assert [key for key, value in donor.state_dict().items() if not torch.equal(value, own[key])] == []


def test_their_efficientnet_says_which_network_it_is(tmp_path: Path) -> None:
    write(tmp_path / "effnb4_best.pth", *LAYOUTS["efficientnet-b4"])
    for other in ("efficientnet_b4", "tf_efficientnet_b4"):
        with pytest.raises(UserError, match=r"effnb4_best.pth holds .* set model.backbone to dfb_efficientnet_b4"):
            Classifier(backbone=other, weights=str(tmp_path / "effnb4_best.pth"))


def test_the_package_its_efficientnet_is_from_is_padded_as_tensorflow(tmp_path: Path) -> None:
    state = efficientnet(timm.create_model("efficientnet_b4", num_classes=2).state_dict())
    state = {k.removeprefix("efficientnet.").replace("last_layer.", "_fc."): v for k, v in state.items()}
    torch.save({k: v for k, v in state.items() if "adjust" not in k}, tmp_path / "efficientnet-b4-6ed6700e.pth")
    words: dict[str, Any] = {"weights": str(tmp_path / "efficientnet-b4-6ed6700e.pth")}
    assert untrained(Classifier(backbone="tf_efficientnet_b4", **words)) == []
    with pytest.raises(UserError, match=r"set model.backbone to tf_efficientnet_b4"):
        Classifier(backbone="efficientnet_b4", **words)


def test_their_lsda_opens_as_its_student(tmp_path: Path) -> None:
    file, words = tmp_path / "lsda.pth", {"methods": 1, "real": "resnet18"}
    torch.manual_seed(3)
    donor: Any = Lsda("dfb_lsda_efficientnet_b4", pretrained=False, **words).eval()
    trunk = efficientnet(donor.student.network.state_dict())
    parts = {k.replace("efficientnet.", "student_encoder.model."): v for k, v in trunk.items() if "adjust" not in k}
    parts |= {f"student_encoder.conv.{k}": v for k, v in donor.student.adjust.state_dict().items()}
    parts |= {f"binary_classifier.{int(k[0]) + 2}{k[1:]}": v for k, v in donor.head.mlp.state_dict().items()}
    unused = ("student_encoder.model._fc.bias", "encoders_f.0.conv.bias", "fc_weights.0.bias", "mlp.2.bias")
    torch.save({f"model.{k}": v for k, v in (parts | dict.fromkeys(unused, torch.zeros(1000))).items()}, file)
    opened: Any = Lsda("dfb_lsda_efficientnet_b4", weights=str(file), **words).eval()
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(opened(image)["logits"], donor(image)["logits"])
    torn = tmp_path / "torn.pth"
    torch.save({f"model.{k}": v for k, v in parts.items() if "binary_classifier.4" not in k}, torn)
    with pytest.raises(
        UserError, match=r"torn.pth does not fit the network: 2 missing \(head.mlp.2.bias, head.mlp.2.weight\)"
    ):
        Lsda("dfb_lsda_efficientnet_b4", weights=str(torn), **words)
    for other in (Classifier, Lsda):
        with pytest.raises(
            UserError, match="lsda.pth holds LSDA .* padded as for 380 px.* --config lsda_deepfakebench.yaml"
        ):
            other("efficientnet_b4", weights=str(file))


def test_their_efficientnet_has_tensorflows_borders_of_380_px() -> None:
    model = timm.create_model("dfb_efficientnet_b4", num_classes=2).eval()
    side, borders = 190, {}  # what the first convolution, with its padding, would make of 380
    for stage, blocks in enumerate(model.blocks):
        convolution = blocks[0].conv_dw
        stride, size = convolution.stride[0], convolution.kernel_size[0]
        if stride == 2:
            total = max((-(-side // 2) - 1) * 2 + size - side, 0)
            borders[stage] = (total // 2, total - total // 2) * 2
            side = -(-side // 2)
    assert {s: model.blocks[s][0].conv_dw.border for s in borders} == borders
    assert model.conv_stem(torch.zeros(1, 3, 256, 256)).shape[-1] == 127
    assert timm.create_model("dfb_lsda_efficientnet_b4").conv_stem.border == (0, 1, 0, 1)
