"""The rule by which the golden networks were filled: each entry from the CRC-32 of its official name."""

import zlib

import numpy as np
import torch
from torch import Tensor, nn


def fill(module: nn.Module, prefix: str = "") -> None:
    """Fill the floating entries of a module whose parameters have their official names after ``prefix``."""
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(entry(prefix + name, value.shape))


def entry(name: str, shape: torch.Size) -> Tensor:
    """Return the float32 entry of a name."""
    z = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if name.endswith("running_var"):
        z = 1 + 0.2 * abs(z)
    elif name.endswith("running_mean"):
        z = 0.1 * z
    elif name.endswith("bias"):
        z = 0.05 * z
    elif z.ndim == 1:
        z = 1 + 0.1 * z
    else:
        z = z * np.sqrt(1.2 / np.prod(z.shape[1:]))
    return torch.from_numpy(np.asarray(z)).float()
