"""Grad-CAM (Selvaraju et al. 2017) inside a forward pass: one extra backward pass from a logit to one layer.

Everything before the layer runs without gradients, as in any evaluation; at the layer they are switched on. So the
cost is the backward pass of what comes after it, and no memory is held for what comes before.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfl.errors import UserError


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
