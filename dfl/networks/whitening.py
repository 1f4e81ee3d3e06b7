"""A start for a ViT without pretrained weights: its patch embedding whitens the patches of the training images.

In photographs the power falls with frequency: the pixels of a patch vary a thousand times more along slow changes than
along fast ones, and what generators leave behind is in the fast ones. The eigenvectors of the patches' covariance, each
divided by its deviation, make all of them equally loud. No label is looked at, and it takes a second.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def whiten_patch_embed(conv: nn.Conv2d, image: Tensor, noise: float = 1 / 127.5) -> None:
    """Set a patch embedding to the whitening of the patches of images, in place.

    If it has fewer outputs than a patch has values, they are the strongest directions; outputs beyond stay as they are.

    Args:
        conv: The projection of the patches; kernel and stride are the patch's side.
        image: (N, C, H, W) float, normalised as the network gets them.
        noise: Deviation under which a direction is taken for noise, in the units of ``image``; about a grey level.
    """
    kernel = conv.kernel_size[0]
    patches = F.unfold(image, kernel, stride=kernel).transpose(1, 2).reshape(-1, conv.weight[0].numel()).double()
    mean = patches.mean(0)
    variance, direction = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    white = (direction / (variance + noise**2).sqrt()).T.flip(0)[: conv.out_channels]
    with torch.no_grad():
        conv.weight[: len(white)] = white.view(-1, *conv.weight.shape[1:]).to(conv.weight)
        if conv.bias is not None:
            conv.bias[: len(white)] = (-white @ mean).to(conv.bias)
