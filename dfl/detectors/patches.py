"""Patch-Forensics (Chai et al., ECCV 2020), and what Tantaru et al. (WACV 2024) made of it: "Patches".

The first blocks of an Xception see 43 pixels at most; a 1 x 1 convolution calls every such patch real or fake, and the
mean probability of the patches is the image's score. Trained with image labels the label of every patch is its image's;
trained with masks each has its own.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from timm.models.xception import Block
from torch import Tensor, nn, no_grad, optim

from dfl.detectors.base import Detector, Losses
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError, near
from dfl.losses import mask_loss, mean_logit, patch_loss
from dfl.metrics.localization import Protocol
from dfl.networks import About, create_backbone, load_named
from dfl.networks.backbone import skips_weights

#: Channels after each unit, in the order in which they run.
WIDTHS = {
    "relu1": 32,
    "relu2": 64,
    "block1": 128,
    "block2": 256,
    **{f"block{i}": 728 for i in range(3, 12)},
    "block12": 1024,
}
#: Beginnings of the names that whole networks have and their parts do not.
BEYOND = ("block", "conv3.", "bn3.", "conv4.", "bn4.", "fc.")


class PatchForensics(Detector):
    """A truncated Xception that scores every patch; the map is what it decides by.

    Args:
        cut: Last unit of Xception: ``relu1``, ``relu2``, ``block1`` ... ``block12``. With the head,
            ``block2`` has 191,330 parameters, sees 43 px, and gives maps of 32 x 32 at 256 px, 37 x 37 at 299 px.
        tap: The head sees the ``raw`` sum of the block, as published, or its ``relu``.
        supervision: ``label``: image labels, by ``pooling``; ``mask``: masks, of the images that have one.
        pooling: How a map is compared with a label: ``expand`` (the one that papers use), ``pooled_max``,
            ``pooled_avg``.
        score: The image's score: ``after_softmax``, the mean probability (the one of the papers); ``before_softmax``,
            of the mean logits; ``vote``, the share of fake patches.
        pretrained: Start from ImageNet weights of timm; the papers do not.
        weights: A local file: official ones of Patch-Forensics or dolos, ImageNet's, or a checkpoint of ``dfl``.
        label_order: What the two outputs of ``weights`` mean: ``real_fake`` in dolos, ``fake_real`` in Patch-Forensics.
        init: Random start: ``default`` of torch (dolos with masks), or ``xavier``, gain 0.02 (Patch-Forensics, and
            dolos with labels).
        input_size: Side of the images in pixels. 256 keeps map and image in line to 0.5 px; at 299, as published, a
            map that is stretched over the image is up to 3.5 px off.
        protocol: Whose localization metrics, see `Localization`.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Detector`.

    Raises:
        UserError: For a cut that is none, and for weights that do not fit.
    """

    about = About("localization", "Chai et al.", 2020)

    channels_last = True

    def __init__(
        self,
        cut: str = "block2",
        tap: Literal["raw", "relu"] = "raw",
        supervision: Literal["label", "mask"] = "label",
        pooling: Literal["expand", "pooled_max", "pooled_avg"] = "expand",
        score: Literal["after_softmax", "before_softmax", "vote"] = "after_softmax",
        pretrained: bool = False,
        weights: str | None = None,
        label_order: Literal["real_fake", "fake_real"] = "real_fake",
        init: Literal["default", "xavier"] = "default",
        input_size: int = 256,
        protocol: Protocol = "dfl",
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=1e-3),
        **kwargs: Any,
    ) -> None:
        super().__init__(input_size, optimizer, **kwargs)
        self.network = TruncatedXception(cut, relu=tap == "relu")
        self.protocol = protocol
        self.supervision, self.pooling, self.score = supervision, pooling, score
        if init == "xavier":
            xavier(self.network)
        if skips_weights():
            return
        if weights is not None:
            load_named(self.network, weights, spare=BEYOND, fresh=("convout.",))
            if label_order == "fake_real":
                with no_grad():
                    for parameter in self.network.convout.parameters():
                        parameter.copy_(parameter.flip(0))
        elif pretrained:
            whole = create_backbone("legacy_xception", num_classes=2).state_dict()
            own = self.network.state_dict()
            self.network.load_state_dict({k: v for k, v in whole.items() if k in own}, strict=False)
            self.network.at_random = tuple(k for k in own if k not in whole)  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Outputs:
        """Return ``logit`` (N,) float32 and ``mask_logit`` (N, h, w)."""
        logits = self.network(self.normalize(image))
        map_logit = logits[:, 1] - logits[:, 0]
        return {"logit": image_logit(map_logit, self.score), "mask_logit": map_logit}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` = ``patch``, or ``mask``."""
        loss = self.image_loss(out, batch, each=False)
        return {"loss": loss, "mask" if self.supervision == "mask" else "patch": loss}

    def image_loss(self, out: Any, batch: Mapping[str, Any], each: bool = True) -> Tensor:
        """Return the loss of every image, or their mean."""
        if self.supervision == "mask":
            return mask_loss(out["mask_logit"], batch["mask"], batch["has_mask"], each=each)
        return patch_loss(out["mask_logit"], batch["label"], self.pooling, batch.get("weight"), each)


def image_logit(map_logit: Tensor, score: str) -> Tensor:
    """Return the log-odds of an image's score, (N,) float32, from its map (N, h, w).

    Source: Patch-Forensics. ``vote`` is kept inside (0, 1) by half a patch.
    """
    if score == "after_softmax":
        return mean_logit(map_logit)
    flat = map_logit.float().flatten(1)
    if score == "before_softmax":
        return flat.mean(1)
    n = flat.shape[1]
    share = (flat > 0).float().mean(1).clamp(0.5 / n, 1 - 0.5 / n)
    return share.logit()


class TruncatedXception(nn.Module):
    """Xception up to a cut, under the names of timm, with a 1 x 1 convolution to two classes on top.

    Only the kept part is built and run; weights of the whole network load into it by name. timm's ``features_only``
    gives other tensors (after the ReLU that begins the next block), knows only some of the cuts, and keeps all 20.8
    million parameters.

    Args:
        cut: Last unit: ``relu1``, ``relu2``, ``block1`` ... ``block12``.
        relu: Whether the convolution sees the ReLU of the cut's output, or the raw sum of the block.

    Raises:
        UserError: For a cut that is none.
    """

    def __init__(self, cut: str = "block2", relu: bool = False) -> None:
        super().__init__()
        if cut not in WIDTHS:
            raise UserError(f"cut is {cut!r}{near(cut, list(WIDTHS))}; choose from {', '.join(WIDTHS)}")
        self.relu = relu
        # the stem is unpadded, unlike in most networks
        self.conv1, self.bn1 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32)
        units = list(WIDTHS)[: list(WIDTHS).index(cut) + 1]
        self.deep = "relu2" in units
        if self.deep:
            self.conv2, self.bn2 = nn.Conv2d(32, 64, 3, bias=False), nn.BatchNorm2d(64)
        self.blocks = [name for name in units if name.startswith("block")]
        for before, name in zip(["relu2", *self.blocks], self.blocks, strict=False):
            number = int(name.removeprefix("block"))
            halves = number in (1, 2, 3, 12)
            block = Block(
                WIDTHS[before],
                WIDTHS[name],
                2 if halves else 3,
                2 if halves else 1,
                start_with_relu=number > 1,
                grow_first=number < 12,
            )
            setattr(self, name, block)
        self.convout = nn.Conv2d(WIDTHS[cut], 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 3, H, W) to logits of real and fake (N, 2, h, w)."""
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        if self.deep:
            x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        for name in self.blocks:
            x = getattr(self, name)(x)
        out: Tensor = self.convout(F.relu(x) if self.relu else x)
        return out


def xavier(model: nn.Module) -> None:
    """Set weights as Patch-Forensics does: Xavier-normal convolutions, BatchNorm around 1 by 0.02, biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_normal_(module.weight, gain=0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
