"""Linear layers of which all but the last singular directions stay frozen: Effort (Yan et al., ICML 2025).

    W = U S V^T, singular values falling;   W' = W - U0 S0 V0^T + U1 S1 V1^T

U0, S0, V0 are the last k directions of W, and the trained U1, S1, V1 start there. So what the first directions know
stays, and what is learned has k directions of its own. W itself is kept whole, as its file has it, and the two terms
are added to the layer's output: they cancel exactly before the first step, and a checkpoint that leaves frozen weights
out does not hang on how a processor rounds a decomposition.

A fused layer such as timm's ``qkv``, three square matrices in one, is decomposed matrix by matrix, as the published
code, whose query, key and value are layers of their own, does.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfl.errors import UserError
from dfl.networks.backbone import skips_weights
from dfl.networks.lora import linear_layers

#: Vectors beside those that are looked for, and steps: the error falls with (value k / value k + SPARE) ^ (2 * STEPS).
SPARE, STEPS = 16, 8


class SvdLinear(nn.Module):
    """A linear layer whose last singular directions are trained.

    Args:
        layer: A layer of m * o outputs, m matrices one below the other; its weight and bias are frozen, in place.
        rank: k, directions of each matrix that are trained.
        matrices: m.
    """

    start_u: Tensor
    start_s: Tensor
    start_v: Tensor

    def __init__(self, layer: nn.Linear, rank: int, matrices: int = 1) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight.requires_grad_(False), layer.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        last = _last_directions(layer.weight.detach().unflatten(0, (matrices, -1)), rank)
        for name, value in zip("usv", last, strict=True):
            self.register_buffer(f"start_{name}", value)
            setattr(self, name, nn.Parameter(value.clone()))
        self.u: nn.Parameter
        self.s: nn.Parameter
        self.v: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., i) to (..., m * o)."""
        learned = _term(x, self.u, self.s, self.v) - _term(x, self.start_u, self.start_s, self.start_v)
        return F.linear(x, self.weight, self.bias) + learned


def _term(x: Tensor, u: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Return x V diag(S) U^T of m matrices, (..., m * o), from u (m, o, k), s (m, k) and v (m, i, k)."""
    inner = torch.einsum("...i,mik->...mk", x, v) * s
    return torch.einsum("...mk,mok->...mo", inner, u).flatten(-2)


def _last_directions(weight: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last U (m, o, k), S (m, k) and V (m, i, k) of matrices (m, o, i).

    Where weights are not looked for, since a checkpoint brings them, they are zeros.
    """
    m, o, i = weight.shape
    if skips_weights() or weight.is_meta:
        return weight.new_zeros(m, o, rank), weight.new_zeros(m, rank), weight.new_zeros(m, i, rank)
    parts = zip(*(last_directions(one.double(), rank) for one in weight), strict=True)
    return tuple(torch.stack(part).to(weight.dtype) for part in parts)  # type: ignore[return-value]


def last_directions(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the last U (o, k), S (k,) and V (i, k) of the singular value decomposition of a float64 matrix (o, i).

    Of a square matrix by inverse iteration of a few more vectors: the whole decomposition of the 96 matrices of 1,024 x
    1,024 of CLIP ViT-L/14 takes a core a quarter of an hour, this less than a minute.
    """
    start = torch.randn(matrix.shape[1], rank + SPARE, generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
    lu, pivots, singular = torch.linalg.lu_factor_ex(matrix) if matrix.shape[0] == matrix.shape[1] else (0, 0, 1)
    if singular or start.shape[1] >= matrix.shape[1]:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        return u[:, -rank:], s[-rank:], vh[-rank:].T
    basis = start.to(matrix.device)
    for _ in range(STEPS):
        basis = torch.linalg.lu_solve(lu, pivots, torch.linalg.lu_solve(lu, pivots, basis, adjoint=True))
        basis = torch.linalg.qr(basis).Q
    u, s, vh = torch.linalg.svd(matrix @ basis, full_matrices=False)
    return u[:, -rank:], s[-rank:], (basis @ vh.T)[:, -rank:]


def add_svd(model: nn.Module, rank: int = 1, targets: Sequence[str] = ("qkv", "proj")) -> nn.Module:
    """Freeze a network and train the last singular directions of its linear layers, in place.

    Args:
        model: The network.
        rank: Directions of each matrix that are trained.
        targets: Ends of the names of the layers.

    Returns:
        The same network.

    Raises:
        UserError: If a target meets nothing, or a matrix has no more directions than that.
    """
    names = linear_layers(model, targets)
    model.requires_grad_(False)
    for name in names:
        parent, _, child = name.rpartition(".")
        layer = model.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        matrices = 3 if child == "qkv" else 1
        most = min(layer.in_features, layer.out_features // matrices)
        if not 0 < rank < most:
            raise UserError(f"rank is {rank}, and {name} has {most} singular directions: take 1 to {most - 1}")
        setattr(model.get_submodule(parent), child, SvdLinear(layer, rank, matrices))
    return model
