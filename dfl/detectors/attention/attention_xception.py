"""FFD (Dang et al., CVPR 2020), and what Tantaru et al. (WACV 2024) made of it: "Attention".

A map is computed from the features in the middle of an Xception, and the features are multiplied by it. It says where
the image is manipulated, and the classifier behind it sees those places only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn, optim
from torchvision.models.feature_extraction import create_feature_extractor

from dfl.detectors.attention.attention_map import Appearance, Regression, read_templates
from dfl.detectors.base import Detector, Losses
from dfl.detectors.outputs import Outputs
from dfl.losses import cross_entropy, largest_loss, mask_loss
from dfl.metrics.localization import Protocol
from dfl.networks import About, create_backbone, find_layer, layer_width, load_named, usual_layer
from dfl.networks.backbone import is_file, skips_weights

#: What the files of FFD hold beyond what it uses.
UNUSED = ("map.", "bnmap.", "convmap", "linearmap.")


class AttentionOutputs(Outputs, total=False):
    """Outputs with the map that features are multiplied by."""

    map: Tensor  # (N, h, w)


class AttentionXception(Detector):
    """An Xception (or another timm CNN) with an attention map in its middle that labels or masks supervise.

    Args:
        map: ``regression``, one convolution; ``appearance``, a weighted sum of fixed templates (MAM).
        supervision: ``label``: the largest value of the map is compared with the image's label; ``mask``: the map
            against the mask, of the images that have one.
        map_loss: ``bce`` (dolos), in its exact form with logits; ``l1`` (FFD; with labels the largest value is drawn
            to 0 for real and 0.75 for fake images).
        map_weight: Weight of the map's loss; 1 in the released configs of both.
        label_weight: Weight of the cross-entropy of the image. With 0 (dolos with masks) nothing behind the map would
            be trained, so it is left out, and the image's score is the map's largest value.
        mask_resize: How masks are brought to the map's size: ``nearest``; ``bilinear`` as dolos does for this detector.
        backbone: timm name of a CNN.
        layer: Dotted name of the layer after which the map is, ``block7`` of Xception by default, of others the last
            feature map.
        templates: Of ``appearance``: a file that ``dfl data templates`` made of masks (``.npz``: mean and components,
            the paper's form), an ``.npy`` file, or a folder of PNG files as FFD's code has; by default ten of our own.
        pretrained: Start from ImageNet weights.
        weights: Where from: a local file (official ones of FFD and dolos, ImageNet's, a checkpoint of ``dfl``), or a
            timm tag. dolos starts from FFD's, which were trained with masks.
        input_size: Side of the images in pixels.
        protocol: Whose localization metrics, see `Localization`.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Detector`.

    Raises:
        UserError: For a layer that the backbone does not have, and for weights that do not fit.
    """

    about = About("localization", "Dang et al.", 2020)

    channels_last = True

    places = (*Detector.places, "templates")
    shaping = ("templates",)

    def __init__(
        self,
        map: Literal["regression", "appearance"] = "regression",
        supervision: Literal["label", "mask"] = "label",
        map_loss: Literal["bce", "l1"] = "bce",
        map_weight: float = 1.0,
        label_weight: float = 1.0,
        mask_resize: Literal["nearest", "bilinear"] = "nearest",
        backbone: str = "legacy_xception",
        layer: str | None = None,
        templates: str | None = None,
        pretrained: bool = True,
        weights: str | None = None,
        input_size: int = 256,
        protocol: Protocol = "dfl",
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=1e-4),
        **kwargs: Any,
    ) -> None:
        super().__init__(input_size, optimizer, **kwargs)
        self.protocol = protocol
        self.supervision, self.map_loss, self.mask_resize = supervision, map_loss, mask_resize
        self.map_weight, self.label_weight = map_weight, label_weight
        own = weights is not None and is_file(weights)
        network: Any = create_backbone(backbone, pretrained and not own, None if own else weights, num_classes=2)
        self.network = network
        self.layer = layer or usual_layer(network, "block7")
        channels = layer_width(network, self.layer)
        network.map = Regression(channels) if map == "regression" else self._appearance(channels, templates)
        if own and not skips_weights():
            load_named(network, str(weights), spare=UNUSED, fresh=("fc.", "map."))
        self._of_layer: list[tuple[Tensor, Tensor]] = []
        if label_weight == 0:
            attention = network.map
            del network.map
            self.network = create_feature_extractor(network, {self.layer: "feature"})
            self.network.map = attention
        else:
            find_layer(network, self.layer).register_forward_hook(self._gate)

    @staticmethod
    def _appearance(channels: int, file: str | None) -> Appearance:
        """Return the map of templates; a checkpoint brings its own, so their file need not be there to open it."""
        if file is not None and skips_weights() and not Path(file).expanduser().exists():
            file = None
        return Appearance(channels, *read_templates(file))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the templates of the checkpoint, however many they are."""
        super().on_load_checkpoint(checkpoint)
        state, own = checkpoint["state_dict"], self.network.map
        if isinstance(own, Appearance) and (templates := state.get("network.map.templates")) is not None:
            own.set_templates(templates, state.get("network.map.mean"))

    def _gate(self, module: nn.Module, args: Any, out: Tensor) -> Tensor:
        """Multiply what the layer gives by the map."""
        value, logit = self.network.map(out)
        self._of_layer[:] = [(value, logit)]
        return out * value.to(out.dtype)

    def forward(self, image: Tensor) -> AttentionOutputs:
        """Return ``logit`` (N,), ``mask_logit`` (N, h, w) float32, ``map`` (N, h, w), and ``logits`` (N, 2).

        ``map`` is what the features are multiplied by; ``logits`` are not there with a ``label_weight`` of 0.
        """
        if self.label_weight == 0:
            value, logit = self.network.map(self.network(self.normalize(image))["feature"])
            return {"logit": logit.flatten(1).amax(1), "mask_logit": logit[:, 0], "map": value[:, 0]}
        logits = self.network(self.normalize(image))
        value, logit = self._of_layer.pop()
        score = logits[:, 1] - logits[:, 0]
        return {"logit": score, "logits": logits, "mask_logit": logit[:, 0], "map": value[:, 0]}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return ``loss`` = label_weight x ``ce`` + map_weight x ``map``."""
        return self._losses(out, batch, each=False)

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of every image."""
        return self._losses(out, batch, each=True)["loss"]

    def _losses(self, out: Any, batch: Mapping[str, Any], each: bool) -> Losses:
        weight, kind = batch.get("weight"), self.map_loss
        if self.supervision == "mask":
            has_mask, resize = batch["has_mask"], self.mask_resize
            of_map = mask_loss(out["mask_logit"], batch["mask"], has_mask, resize, kind, out["map"], each)
        else:
            of_map = largest_loss(out["mask_logit"], batch["label"], kind, out["map"], weight, each)
        losses = {"loss": self.map_weight * of_map, "map": of_map}
        if self.label_weight:
            losses["ce"] = cross_entropy(out["logits"], batch["label"], weight, each)
            losses["loss"] = losses["loss"] + self.label_weight * losses["ce"]
        return losses
