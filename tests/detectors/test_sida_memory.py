"""The memory table of SIDA counts what it says: by hand on a small network, by formula on a language model."""

from pathlib import Path

import pytest
import torch
from bench.sida_memory import GIB, SIZES, counting
from torch import nn

import dfl


def test_saved_bytes_by_hand() -> None:
    frozen, trained = nn.Linear(8, 16).requires_grad_(False), nn.Linear(16, 4)
    x = torch.zeros(3, 8, requires_grad=True)
    with counting(frozen, trained) as total:
        frozen(x)
    assert total == [0]  # of a frozen layer only its weight is needed, which is a parameter
    with counting(frozen, trained) as total:
        h = frozen(x).relu()  # keeps its result
        trained(h)  # needs the same tensor again
        h.square()
    assert total == [3 * 16 * 4]


def test_a_small_model_is_counted_and_the_page_says_the_same() -> None:
    size = SIZES[-2]
    one, dim, hidden, layers = size.count(), 960, 2560, 32
    assert size.name.startswith("SmolVLM 500M")
    attention, mlp = 2 * dim * dim + 2 * dim * (dim // 3), 3 * dim * hidden
    assert one.linear == layers * (attention + mlp)
    lora = layers * 8 * ((dim + dim) + (dim + dim // 3))
    heads = (dim * dim // 2 + dim // 2) + (dim // 2 * 3 + 3) + (dim * dim + dim) + (dim * 256 + 256)
    fusion, rows = 3 * 256 + 256 + 4 * (256 * 256 + 256), 2 * 3 * dim
    assert one.trainable == lora + heads + fusion + rows + 4_058_340  # SAM's mask decoder
    assert one.frozen_bytes == 2 * one.base + 4 * (one.sam - 4_058_340)
    # at least the inputs of a layer's norms and products, at most thirty times its input
    assert 8 * one.layer_input < one.of_layer < 30 * one.layer_input
    assert one.peak("ddp", 8, 2) == one.peak("ddp", 1, 2)
    assert one.peak("fsdp", 8, 2) < one.peak("fsdp", 2, 2)
    # in no layer: SmolVLM's embedding, output and connector, and less than a tower's or SAM's layer of others
    outside = 2 * (2 * 49280 * dim + 12288 * dim) + 4 * 4_058_340
    assert outside < one.together < outside + 2 * 12e6
    assert one.peak("4-bit", 1, 2) < one.peak("ddp", 1, 2) < one.peak("ddp", 1, 2, checkpointing=False)
    with pytest.raises(ValueError, match="zero9"):
        one.peak("zero9", 1, 2)
    page = (Path(dfl.__file__).parents[1] / "docs/detectors/sida.md").read_text()
    cells = " | ".join(f"{one.peak('fsdp', n, 2) / GIB:.1f}" for n in (1, 2, 4, 8))
    assert f"| {size.name} | fsdp | {cells} |" in page
    assert one.peak("ddp", 1, 2, checkpointing=False) < 15e9
