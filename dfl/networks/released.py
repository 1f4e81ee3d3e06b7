"""Released weights of others in timm's names: the one place that knows how their files call what timm calls otherwise.

A network of ours that knows the files of its authors has ``from_released(state, file)``; the others are here, by the
name of a tensor that only such a file has.
"""

import re
from collections.abc import Callable

from torch import Tensor, nn

from dfl.errors import UserError

Table = dict[str, Tensor]
#: How official files call what is here called by timm's names.
XCEPTION = (
    (r"(^|\.)c\.weight$", r"\1conv1.weight"),  # FFD as published: depthwise convolutions
    (r"skip_bn\.", "skipbn."),
    (r"^last_linear\.", "fc."),
    (r"^map\.c\.(conv1|pointwise)\.", r"map.\1."),  # FFD: direct regression
    (r"^(map\.c|map_conv1)\.", "map.block."),  # FFD: manipulation appearance model
    (r"^(map\.l|map_linear)\.", "map.linear."),
)
#: Blocks of the stages of EfficientNet-B4, which others count through.
_B4 = (2, 4, 4, 6, 6, 8, 2)


def renamed(state: Table, model: nn.Module, file: str) -> Table:
    """Return a table of weights in the names of a network, if it is known how the file calls them; else as it is.

    Raises:
        UserError: If it is known that the file holds another network.
    """
    own: Callable[[Table, str], Table] | None = getattr(model, "from_released", None)
    if own is not None:
        return own(state, file)
    for mark, rename in _LAYOUTS.items():
        if any(key.endswith(mark) for key in state):
            return rename(state, model, file)
    return state


def _xception(state: Table, model: nn.Module, file: str) -> Table:
    """DeepfakeBench and FaceForensics++: Cadene's names; in old files pointwise convolutions are matrices."""
    state = {re.sub(r"^(backbone|model)\.", "", key): value for key, value in state.items()}
    state = {re.sub(r"^last_linear\.", "fc.", k): v for k, v in state.items() if not k.startswith("adjust_channel.")}
    return {k: v[..., None, None] if "pointwise" in k and v.ndim == 2 else v for k, v in state.items()}


def _resnet(state: Table, model: nn.Module, file: str) -> Table:
    """DeepfakeBench: the children of torchvision's ResNet by number."""
    parts = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
    state = {key.removeprefix("backbone."): value for key, value in state.items()}
    state = {k: v for k, v in state.items() if not k.startswith("adjust_channel.")}
    return {re.sub(r"^resnet\.(\d)", lambda m: parts.get(m[1], m[0]), key): value for key, value in state.items()}


def _efficientnet(state: Table, model: nn.Module, file: str) -> Table:
    """DeepfakeBench's EfficientNet-B4: the names of efficientnet_pytorch, and its own head ``last_layer``."""
    stem = getattr(model, "conv_stem", None)
    border = getattr(stem, "border", None)
    if student := _below(_STUDENT, state):
        if border != (0, 1, 0, 1) or model.num_classes:
            raise UserError(
                f"{file} holds LSDA of DeepfakeBench: an EfficientNet-B4 padded as for 380 px, and a head: open it "
                "with --config lsda_deepfakebench.yaml, whose model.backbone is dfb_lsda_efficientnet_b4"
            )
        state = {k.removeprefix("model."): v for k, v in student.items() if k.startswith("model.")}
    if any("efficientnet._conv_stem." in key for key in state) and border != (0, 0, 0, 0):
        raise UserError(
            f"{file} holds the EfficientNet-B4 of DeepfakeBench, whose first convolution has no padding and whose "
            "others have that of 380 px, so its scores would be others: set model.backbone to dfb_efficientnet_b4"
        )
    if stem is None or getattr(stem, "padding", None) != (0, 0):
        raise UserError(
            f"{file} holds a network of efficientnet_pytorch, padded as TensorFlow does: set model.backbone to "
            "tf_efficientnet_b4"
        )
    state = {re.sub(r"^(backbone\.)?(efficientnet\.)?", "", key): value for key, value in state.items()}
    table: Table = {}
    for key, value in state.items():
        if key.startswith("adjust_channel."):
            continue
        if block := re.match(r"_blocks\.(\d+)\._(\w+)\.(.*)", key):
            stage, place = _place(int(block[1]))
            words = _FIRST if stage == 0 else _OTHERS
            key = f"blocks.{stage}.{place}.{words.get(block[2], block[2])}.{block[3]}"
        else:
            key = re.sub(r"^(_conv_stem|_conv_head|_bn0|_bn1|_fc|last_layer)\b", lambda m: _AROUND[m[1]], key)
        table[key] = value
    return table


def lsda_student(state: Table) -> Table:
    """Return what a file of DeepfakeBench's LSDA has beside the student's network, in `Lsda`'s names; or nothing."""
    adjust, head = _below(rf"{_STUDENT}conv\.", state), _below(r"binary_classifier\.", state)
    layers = {"2": "0", "4": "2"}  # its pooling and flattening are numbered too
    named = {f"head.mlp.{layers[k[0]]}{k[1:]}": v for k, v in head.items() if k[0] in layers}
    return {f"student.adjust.{k}": v for k, v in adjust.items()} | named


def _below(beginning: str, state: Table) -> Table:
    """Return the tensors whose names have a beginning, without it."""
    pattern = re.compile(rf"^(?:module\.)?(?:model\.)?{beginning}")
    return {key[found.end() :]: value for key, value in state.items() if (found := pattern.match(key))}


#: Beginning of the names of the student of DeepfakeBench's LSDA.
_STUDENT = r"student_encoder\."
_AROUND = {
    **{"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"},
    **{"_fc": "classifier", "last_layer": "classifier"},
}
_SQUEEZE = {"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand", "depthwise_conv": "conv_dw"}
_FIRST = _SQUEEZE | {"bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
_OTHERS = _SQUEEZE | {"expand_conv": "conv_pw", "bn0": "bn1", "bn1": "bn2", "project_conv": "conv_pwl", "bn2": "bn3"}


def _place(number: int) -> tuple[int, int]:
    """Return stage and block of the block with a number."""
    for stage, blocks in enumerate(_B4):
        if number < blocks:
            return stage, number
        number -= blocks
    return len(_B4), number


#: What the name of a tensor ends with that only such a file has.
_LAYOUTS: dict[str, Callable[[Table, nn.Module, str], Table]] = {
    "block1.rep.0.conv1.weight": _xception,
    "resnet.4.0.conv1.weight": _resnet,
    "_blocks.0._depthwise_conv.weight": _efficientnet,
}
