"""VGG up to relu5_1, frozen (Simonyan and Zisserman, 2015): what perceptual losses and Gram distances compare.

Only these layers are built: 13 million parameters of VGG19's 144 million, which start in half a second and not in five.
"""

from itertools import pairwise

from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from dfl.errors import UserError
from dfl.networks.backbone import skips_weights, wants_file
from dfl.networks.weights import load_named

#: By depth: torchvision's name of the layers, where its weights lie, and where relu1_1 ... relu5_1 end in the layers.
DEPTHS = {
    16: ("D", "vgg16-397923af.pth", (2, 7, 12, 19, 26)),
    19: ("E", "vgg19-dcbb9e9d.pth", (2, 7, 12, 21, 30)),
}
#: Channels of relu1_1 ... relu5_1.
CHANNELS = (64, 128, 256, 512, 512)


class Vgg(nn.Module):
    """The stages relu1_1 ... relu5_1 of VGG, frozen; images are taken as they are, normalised by whoever has them.

    Args:
        weights: A local file with torchvision's names, which are timm's too.
        depth: 16 or 19.
        otherwise: How to do without it, for errors.

    Raises:
        UserError: If there is none, for features at random would be no features; or the file does not fit.
    """

    def __init__(self, weights: str | None, depth: int = 19, otherwise: str = "") -> None:
        super().__init__()
        name, file, self.ends = DEPTHS[depth]
        layers = make_layers(cfgs[name], batch_norm=False)
        self.features = layers[: self.ends[-1]]
        self.requires_grad_(False)
        if skips_weights():
            return
        if weights is None or not wants_file(weights):
            raise UserError(
                f"model.vgg is {weights!r}, and VGG{depth}'s weights are wanted: set it to the file {file} of "
                f"torchvision with its path{otherwise}"
            )
        beyond = tuple(f"features.{i}." for i in range(self.ends[-1], len(layers)))
        load_named(self, weights, spare=("classifier.", "pre_logits.", "head.", *beyond))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return relu1_1 ... relu5_1 of (N, 3, H, W): (N, C, H / 2^s, W / 2^s) for s = 0 ... 4."""
        found = []
        for start, end in pairwise((0, *self.ends)):
            image = self.features[start:end](image)
            found.append(image)
        return found
