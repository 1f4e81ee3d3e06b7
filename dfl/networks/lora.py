"""LoRA (Hu et al. 2021) on a frozen network: W x becomes W x + (alpha / r) B A x, with A and B trained.

B starts at zero, so the network starts as it was. For evaluation and export the product is added to W, which gives the
same outputs at no extra cost.
"""

import copy
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils.other import TrainableTokensWrapper
from torch import nn

from dfl.errors import UserError


def add_lora(
    model: nn.Module,
    rank: int = 16,
    alpha: int = 32,
    dropout: float = 0.1,
    targets: Sequence[str] = ("qkv",),
    train_also: Sequence[str] = (),
    rows: Mapping[str, list[int]] | None = None,
) -> nn.Module:
    """Freeze a network and put LoRA on its linear layers, in place.

    Args:
        model: The network; timm's ViTs have one fused ``qkv`` in each block, so query, key and value share A.
        rank: r.
        alpha: Numerator of the scale alpha / r.
        dropout: Dropout before A.
        targets: Ends of the names of the layers that get LoRA.
        train_also: Patterns (``*`` allowed) of parameters that are trained in full beside LoRA, for example ``norm*``.
        rows: Rows that are trained beside LoRA, by the end of the name of an embedding or output layer: new tokens.

    Returns:
        The same network.

    Raises:
        UserError: If a target or pattern meets nothing.
    """
    layers = linear_layers(model, targets)
    model.requires_grad_(False)
    # r and alpha by name: peft stores them in the modules, and a checkpoint needs only the tensors
    inject_adapter_in_model(
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=layers,
            trainable_token_indices=dict(rows) if rows else None,
        ),
        model,
    )
    for pattern in train_also:
        met = [p for n, p in model.named_parameters() if fnmatchcase(n, pattern) and "lora_" not in n]
        if not met:
            raise UserError(f"train_also: no parameter is named like {pattern!r}")
        for parameter in met:
            parameter.requires_grad_(True)
    return model


def train_layer_norms(model: nn.Module) -> nn.Module:
    """Freeze a network but for weights and biases of its LayerNorms, in place, and return it.

    Raises:
        UserError: If it has none.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    if not norms:
        raise UserError("tune is layernorm, and the backbone has no LayerNorm: take a ViT, or another tune")
    model.requires_grad_(False)
    for norm in norms:
        norm.requires_grad_(True)
    return model


def linear_layers(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Return the names of the linear layers that end like one of the targets, those of one target after the other.

    Raises:
        UserError: If a target meets nothing.
    """
    names = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    chosen = {t: [n for n in names if n == t or n.endswith(f".{t}")] for t in targets}
    for target, met in chosen.items():
        if not met:
            raise UserError(
                f"no linear layer is named {target!r}: there are {', '.join(sorted({n.split('.')[-1] for n in names}))}"
            )
    return list(dict.fromkeys(n for met in chosen.values() for n in met))


def merge_lora(model: nn.Module) -> nn.Module:
    """Return a copy in which every LoRA layer is the plain linear layer W + (alpha / r) B A, new rows in place."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)
            plain = module.get_base_layer()
        elif isinstance(module, TrainableTokensWrapper):
            module.token_adapter.merge(safe_merge=True)
            plain = module.token_adapter.get_base_layer()
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)
    return model
