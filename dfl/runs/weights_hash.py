"""The hash of weights, which tells whether two networks are the same one."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


class WeightsHash:
    """sha256 of names and bytes; that of the newest weights is cached until one of them is moved or written to.

    What is written through ``.data`` is not seen. All ranks must ask for sharded weights, which are gathered singly.
    """

    def __init__(self) -> None:
        self._state: object = None
        self._digest = ""

    def __call__(self, weights: Mapping[str, Tensor]) -> str:
        """Return the hash in hexadecimal."""
        local = {n: w.to_local() if isinstance(w, DTensor) else w for n, w in weights.items()}
        state = [(n, w.data_ptr(), w.dtype, 0 if w.is_inference() else w._version) for n, w in local.items()]
        if state != self._state:
            digest = hashlib.sha256()
            for name, weight in weights.items():
                whole = weight.full_tensor() if isinstance(weight, DTensor) else weight
                digest.update(name.encode())
                digest.update(whole.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
            self._state, self._digest = state, digest.hexdigest()
        return self._digest
