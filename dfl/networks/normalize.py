"""The first layer of every network: whoever gets the network gets its preprocessing."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Mean and standard deviation of the images that CLIP, networks of ImageNet, and SigLIP were trained on.
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Normalize(nn.Module):
    """Subtract a mean from images in [0, 1] and divide by a standard deviation, channel by channel.

    Both are buffers that no checkpoint holds, so the names in a ``state_dict`` are those of the network alone.

    Args:
        mean: Of three channels.
        std: The same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return images (N, 3, H, W) in [0, 1], normalised.

        Raises:
            TypeError: If they are integers, such as uint8: they would pass, and every score be wrong.
        """
        if not image.is_floating_point():
            raise TypeError(f"images are floats in [0, 1], not {image.dtype}: give image / 255")
        return (image - self.mean) / self.std
