"""Weights that Keras 2 wrote, in HDF5: tables of arrays, of which nothing is run."""

from pathlib import Path

import torch
from torch import Tensor

from dfl.errors import UserError

#: How an HDF5 file begins.
SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_h5(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a Keras file as ``layer.word``, such as ``conv2d_5.kernel``, as they lie there.

    Raises:
        UserError: If h5py is not installed, or an array is larger than the file or lies outside it.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} is a file of Keras, which h5py reads: pip install 'dfl[keras]'") from error

    tensors: dict[str, Tensor] = {}

    def take(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset) or item.dtype.kind != "f":
            return
        if item.is_virtual or item.external or item.nbytes > path.stat().st_size:
            raise UserError(f"{path}: {name} is larger than the file or lies outside it, so Keras did not write it")
        layer, word = name.split("/")[-2:] if "/" in name else ("", name)
        tensors[f"{layer}.{word.partition(':')[0]}"] = torch.from_numpy(item[()]).float()

    with h5py.File(path) as file:
        file.visititems(take)
    return tensors
