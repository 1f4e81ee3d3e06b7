"""What is trained of a vision-language model: LoRA and tokens beside frozen layers, or all of the language side."""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dfl.detectors.sida.families import Family
from dfl.errors import UserError, near
from dfl.networks import add_lora

#: Arguments of LoRA and their defaults, those of the official code.
LORA: dict[str, Any] = {"rank": 8, "alpha": 16, "dropout": 0.05, "targets": ["q_proj", "v_proj"]}


def choose_trained(
    model: Any,
    family: Family,
    new: list[int],
    lora: Mapping[str, Any] | None,
    tower: bool,
    whole_table: bool,
    writes: bool,
) -> None:
    """Freeze a model but for what is trained, in place.

    Args:
        model: Of transformers.
        family: Knows its parts.
        new: Ids of the new tokens.
        lora: Arguments of LoRA, see `LORA`; None trains the language model and the projector in full.
        tower: Train the vision tower in full.
        whole_table: Beside LoRA, train the whole embedding and not only the rows of the new tokens.
        writes: There is a loss on text, which is the only one that the output layer learns from.

    Raises:
        UserError: If LoRA has no such argument, or no layer is named like its targets.
    """
    text, head, table = family.part(model, "text"), model.get_output_embeddings(), model.get_input_embeddings()
    tied = head.weight is table.weight
    model.requires_grad_(False)
    if lora is None:
        for part in (text, family.part(model, "projector"), table):
            part.requires_grad_(True)
        head.weight.requires_grad_(tied or writes)
    else:
        words = LORA | dict(lora)
        if unknown := sorted(set(words) - set(LORA)):
            raise UserError(f"model.lora has no {unknown[0]!r}{near(unknown[0], list(LORA))}")
        rows: dict[str, list[int]] = {}
        if not whole_table:
            rows = {_last(model, table): new}
            if not tied:  # stage 1 has them too, frozen, so that stage 2 finds the names it looks for
                rows[_last(model, head)] = new
        add_lora(
            model, words["rank"], words["alpha"], words["dropout"], _layers(model, text, words["targets"]), rows=rows
        )
        if rows and not writes and not tied:
            model.get_output_embeddings().requires_grad_(False)
        if whole_table:
            table.requires_grad_(True)
        train_in_float32(model)
    if tower:
        part = family.part(model, "tower")
        part.requires_grad_(True)
        for name, parameter in part.named_parameters():  # what only the pooled output reads
            if ("post_layernorm" in name and family.types == ("llava",)) or ".head." in name:
                parameter.requires_grad_(False)


def _layers(model: nn.Module, text: nn.Module, targets: list[str]) -> list[str]:
    """Return the full names of the layers of the language model proper whose names end so."""
    ends = "|".join(re.escape(t) for t in targets)
    names = [n for n, _ in text.named_modules() if re.search(rf"(^|\.)({ends})$", n)]
    if not names:
        kinds = sorted({n.split(".")[-1] for n, m in text.named_modules() if isinstance(m, nn.Linear)})
        raise UserError(f"no layer of the language model is a {ends}: there are {', '.join(kinds)}")
    prefix = next(n for n, m in model.named_modules() if m is text)
    return [f"{prefix}.{n}" for n in names]


def _last(model: nn.Module, module: nn.Module) -> str:
    return next(n for n, m in model.named_modules() if m is module).split(".")[-1]


def train_in_float32(model: Any) -> None:
    """Hold what is trained of a model in float32, where its frozen weights are in half precision; in place.

    bfloat16 has 8 bits of fraction: an optimizer's step of 1e-4 on a weight of 0.05 would be rounded away. LoRA and
    rows of tokens take care of the mixture; an embedding that is trained whole gives its output in half precision.
    """
    half = (torch.bfloat16, torch.float16)
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    whole = getattr(table, "weight", None)
    if isinstance(whole, nn.Parameter) and whole.requires_grad and whole.dtype in half:
        table.register_forward_hook(partial(_give, dtype=whole.dtype))
        if head.weight is whole:
            head.register_forward_pre_hook(_take)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in half:
            parameter.data = parameter.data.float()


def _give(module: nn.Module, inputs: Any, output: Tensor, dtype: torch.dtype) -> Tensor:
    return output.to(dtype)


def _take(module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].to(module.weight.dtype),)
