"""Grad-CAM as a localizer (Selvaraju et al. 2017; as a baseline of Tantaru et al., WACV 2024), and its trained form.

``cam``: a classifier of whole images, trained with labels alone; where a feature map speaks for "fake" is its map.
``fcn``: the same network up to the same layer with two convolutions on top, trained with masks.

The map takes one extra backward pass from a logit to one layer. Everything before the layer runs without gradients, as
in any evaluation; at the layer they are switched on. So the cost is the backward pass of what comes after it, and no
memory is held for what comes before.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import OptimizerCallable
from torch import Tensor, nn, optim
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.models.segmentation.fcn import FCNHead

from dfl.detectors.base import Losses
from dfl.detectors.classifier import Classifier
from dfl.detectors.outputs import Outputs
from dfl.errors import UserError
from dfl.losses import mask_loss, mean_logit, patch_loss
from dfl.metrics.localization import Protocol
from dfl.networks import About, find_layer, layer_width, usual_layer


class GradCam(Classifier):
    """A CNN whose map is its Grad-CAM for the class fake; or, with an FCN head, one that is trained with masks.

    With ``cam`` training is that of `Classifier`; the map is made in evaluation only, where it costs one backward pass
    from the logit to the layer. To open a trained `Classifier` so: ``detectors.load(file, kind=GradCam)``, or
    ``--model GradCam --model.weights checkpoints/NAME/best.ckpt``.

    Args:
        backbone: timm name of a CNN.
        head: ``cam``, or ``fcn``: the backbone ends at ``layer``; two convolutions and dropout give the map.
        layer: Dotted name of the layer, ``block11`` of Xception by default, of others the last feature map.
        supervision: Of ``fcn``: ``mask``, or ``label``, which is then the label of every position.
        protocol: Whose localization metrics, see `Localization`.
        optimizer: Makes the optimizer from the trainable parameters.
        **kwargs: Of `Classifier`.

    Raises:
        UserError: For a layer that the backbone does not have, or that gives no feature maps.
    """

    about = About("localization", "Tantaru et al.", 2024)

    def __init__(
        self,
        backbone: str = "legacy_xception",
        head: Literal["cam", "fcn"] = "cam",
        layer: str | None = None,
        supervision: Literal["label", "mask"] = "mask",
        protocol: Protocol = "dfl",
        optimizer: OptimizerCallable = lambda p: optim.Adam(p, lr=1e-3),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone=backbone, optimizer=optimizer, **kwargs)
        self.head, self.protocol = head, protocol
        self.supervision = supervision if head == "fcn" else "label"  # a map that is not trained learns from no mask
        self.layer = layer or usual_layer(self.network, "block11")
        find_layer(self.network, self.layer)
        if head == "fcn":
            width = layer_width(self.network, self.layer)
            self.network = create_feature_extractor(self.network, {self.layer: "feature"})
            self.fcn = FCNHead(width, 2)  # of Long et al. (2015)

    def forward(self, image: Tensor) -> Outputs:
        """Return ``logit`` (N,) and, of ``cam`` in evaluation and of ``fcn`` always, ``mask_logit``.

        It is (N, H, W) as large as the image with ``cam``, (N, h, w) as large as the layer's maps with ``fcn``.
        """
        if self.head == "fcn":
            logits = self.fcn(self.network(self.normalize(image))["feature"])
            map_logit = logits[:, 1] - logits[:, 0]
            return {"logit": mean_logit(map_logit), "mask_logit": map_logit}
        if self.training:
            return super().forward(image)
        layer = find_layer(self.network, self.layer)
        # of the logit of fake alone, as published, not of its difference to that of real
        out, cam = grad_cam(super().forward, layer, image, lambda out: out["logits"][:, 1])
        prob = stretch(cam, (image.shape[2], image.shape[3]))
        return out | {"mask_logit": prob.clamp(1e-6, 1 - 1e-6).logit()}

    def loss(self, out: Any, batch: Mapping[str, Any]) -> Losses:
        """Return the criterion of the image's logits, or with ``fcn`` ``loss`` = ``mask`` or ``patch`` of the map."""
        if self.head == "cam":
            return super().loss(out, batch)
        loss = self._map_loss(out, batch, each=False)
        return {"loss": loss, "mask" if self.supervision == "mask" else "patch": loss}

    def image_loss(self, out: Any, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss of every image."""
        return super().image_loss(out, batch) if self.head == "cam" else self._map_loss(out, batch, each=True)

    def _map_loss(self, out: Any, batch: Mapping[str, Any], each: bool) -> Tensor:
        if self.supervision == "mask":
            return mask_loss(out["mask_logit"], batch["mask"], batch["has_mask"], each=each)
        return patch_loss(out["mask_logit"], batch["label"], "expand", batch.get("weight"), each)


def grad_cam(
    run: Callable[[Tensor], Any],
    layer: nn.Module,
    image: Tensor,
    target: Callable[[Any], Tensor],
) -> tuple[Any, Tensor]:
    """Return the outputs, without gradients, and the map of a target (N, h, w), float32, not negative.

    The map is ReLU(sum over channels of a_k A_k), where A (N, K, h, w) is what the layer gives and a_k the mean over
    the positions of the target's derivative after A_k (Selvaraju et al. 2017, equations 1 and 2).

    Args:
        run: Maps images to outputs, through the layer.
        layer: Gives (N, K, h, w).
        image: (N, 3, H, W); may come from inference mode.
        target: Picks one score of each image (N,) from the outputs.

    Raises:
        UserError: If the layer gives no feature map, or is not run.
    """
    leaves: list[Tensor] = []

    def hold(module: nn.Module, args: Any, out: Tensor) -> Tensor:
        if not isinstance(out, Tensor) or out.ndim != 4:
            raise UserError("Grad-CAM needs a layer that gives feature maps (N, K, h, w); choose another layer")
        leaf = out.detach().requires_grad_()
        leaves[:] = [leaf]
        torch.set_grad_enabled(True)
        return leaf.clone()  # the next layer may work in place, which a leaf does not allow

    # tensors made in inference mode cannot be differentiated, so a copy of the image is made outside of it
    with torch.inference_mode(False), torch.no_grad():
        handle = layer.register_forward_hook(hold)
        try:
            out = run(image.clone() if image.is_inference() else image)
        finally:
            handle.remove()
        if not leaves:
            raise UserError("the layer of Grad-CAM is not run by the backbone; choose another layer")
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(target(out).sum(), leaves[0])
        weight = gradient.float().mean((2, 3), keepdim=True)
        cam = (weight * leaves[0].detach().float()).sum(1).relu()
    return {name: value.detach() for name, value in out.items()}, cam


def stretch(cam: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring maps (N, h, w) to a size and each into [0, 1], as pytorch-grad-cam and dolos do.

    The least value becomes 0 and the largest 1, before and after the bilinear resize: so every image has a place of
    probability 1, real ones too. A map of zeros stays zeros, where dolos divides 0 by 0.
    """

    def unit(x: Tensor) -> Tensor:
        x = x - x.amin((1, 2), keepdim=True)
        return x / (1e-7 + x.amax((1, 2), keepdim=True))

    x = F.interpolate(unit(cam)[:, None], size, mode="bilinear", align_corners=False)[:, 0].clamp(min=0)
    x = unit(x)
    return x / x.amax((1, 2), keepdim=True).clamp(min=1e-7)
