"""A learned denoiser: DnCNN for colour images under noise of unknown strength (Zhang et al., IEEE TIP 2017).

    image -> 20 convolutions of 3 x 3, 64 channels, ReLU between -> the noise; image - noise = image without it

The file is the authors' ``dncnn_color_blind.pth`` (repository cszn/KAIR), whose batch normalisation is merged into the
convolutions; any other with as many convolutions of these shapes, in this order, will do.
"""

import re
from itertools import pairwise

import torch
from torch import Tensor, nn

from dfl.errors import UserError
from dfl.networks.backbone import skips_weights, wants_file
from dfl.networks.weights import read_state, refuse_misfit

LAYERS, CHANNELS = 20, 64


class DnCnn(nn.Module):
    """The denoiser, frozen.

    Args:
        weights: A local file.

    Raises:
        UserError: If there is none, for at random it would be no denoiser; or the file does not fit.
    """

    def __init__(self, weights: str | None) -> None:
        super().__init__()
        widths = [3, *[CHANNELS] * (LAYERS - 1), 3]
        layers = [nn.Conv2d(*ends, 3, padding=1) for ends in pairwise(widths)]
        self.layers = nn.ModuleList(layers).requires_grad_(False)
        if skips_weights():
            return
        if weights is None or not wants_file(weights):
            raise UserError(
                f"model.denoiser is {weights!r}, and noise=dncnn wants weights: set it to dncnn_color_blind.pth of "
                "cszn/KAIR with its path, or take noise=median or nlm"
            )
        self._load(weights)

    def _load(self, file: str) -> None:
        state = read_state(file)
        order = sorted(state, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
        found = {kind: [name for name in order if name.rpartition(".")[2] == kind] for kind in ("weight", "bias")}
        if [len(names) for names in found.values()] != [LAYERS, LAYERS] or len(state) != 2 * LAYERS:
            raise UserError(
                f"{file} holds {len(found['weight'])} weights and {len(found['bias'])} biases among {len(state)} "
                f"tensors, and DnCNN for colour images has {LAYERS} of each and nothing else"
            )
        named = {f"{i}.{kind}": state[name] for kind, names in found.items() for i, name in enumerate(names)}
        refuse_misfit(file, self.layers.state_dict(), named)
        self.layers.load_state_dict(named)

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Return images (N, 3, H, W) of values 0 ... 255 without their noise, whole numbers of the same type."""
        image = pixels.float() / 255
        noise = image
        for i, layer in enumerate(self.layers):
            noise = layer(noise if i == 0 else noise.relu())
        return (255 * (image - noise)).round().clamp(0, 255).to(pixels.dtype)
