"""Xception as UCF and PG-FDD cut it: no ReLU after the last norm, and a 1x1 convolution to fewer channels."""

from collections.abc import Mapping

import torch
from timm.models.xception import Xception
from torch import Tensor, nn

from dfl.networks.weights import refuse_misfit


class XceptionEncoder(Xception):
    """Images (N, 3, H, W) to maps (N, dim, H/32, W/32), rounded up; parameter names are timm's and the published ones.

    Args:
        dim: Channels of the maps.
    """

    def __init__(self, dim: int = 512) -> None:
        super().__init__(num_classes=0)
        self.act4: nn.Module = nn.Identity()  # type: ignore[assignment]
        self.adjust_channel = adjust_channel(self.num_features, dim)

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps."""
        return self.adjust_channel(self.forward_features(image))


class BackboneEncoder(nn.Module):
    """The same of any timm network whose features are maps.

    Args:
        network: Its ``forward_features`` gives (N, num_features, h, w).
        dim: Channels of the maps.
    """

    def __init__(self, network: nn.Module, dim: int = 512) -> None:
        super().__init__()
        self.network = network
        self.adjust_channel = adjust_channel(int(network.num_features), dim)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        """Return the maps."""
        return self.adjust_channel(self.network.forward_features(image))  # type: ignore[operator]


def adjust_channel(inner: int, outer: int) -> nn.Sequential:
    """Return the layer after the backbone."""
    return nn.Sequential(nn.Conv2d(inner, outer, 1), nn.BatchNorm2d(outer), nn.ReLU())


def load_cadene(encoder: XceptionEncoder, state: Mapping[str, Tensor], source: str) -> None:
    """Load ImageNet weights of Xception as Cadene and FaceForensics give them; what follows the backbone stays.

    Their pointwise weights may lack the two dimensions of size 1; their classifier, ``fc`` or ``last_linear``, is left.

    Raises:
        UserError: If names or shapes do not fit.
    """
    own = {k: v for k, v in encoder.state_dict().items() if not k.startswith("adjust_channel.")}
    state_of_file = {
        k: v[:, :, None, None] if "pointwise" in k and v.ndim == 2 else v
        for k, v in state.items()
        if not k.startswith(("fc.", "last_linear.", "adjust_channel."))
    }
    # files from before torch 0.4.1 do not count batches
    uncounted = {k: torch.zeros_like(v) for k, v in own.items() if k.endswith("num_batches_tracked")}
    fit_names(own, uncounted | state_of_file, source)
    encoder.load_state_dict(uncounted | state_of_file, strict=False)
    encoder.at_random = ("adjust_channel",)  # type: ignore[assignment]


def fit_names(own: Mapping[str, Tensor], state_of_file: Mapping[str, Tensor], source: str) -> None:
    """Check that names and shapes agree.

    Raises:
        UserError: If they do not, with the keys.
    """
    misfits = {
        "missing": [k for k in own if k not in state_of_file],
        "unknown": [k for k in state_of_file if k not in own],
        "of another shape": [k for k in state_of_file if k in own and own[k].shape != state_of_file[k].shape],
    }
    refuse_misfit(source, misfits, most=8)
