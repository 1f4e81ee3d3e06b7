"""Half precision, clipping: what must stay float32 does, and the trainer's flags reach the training."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from test_contract import PARTS, trainer
from torch import optim

from dfl.data import DataModule, Folder
from dfl.detectors import VitScl
from dfl.training.precision import BestMixedPrecision


class Types(pl.Callback):
    """The types of what must not be halved."""

    def __init__(self) -> None:
        self.found: set[torch.dtype] = set()

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        self.found |= {value.dtype for value in module.losses.values()}
        self.found |= {p.dtype for p in module.parameters()}

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.found |= {module.metrics["val"].rows(domain)["score"].dtype for domain in module.metrics["val"]}


def fit(faces: Path, module: VitScl, *callbacks: pl.Callback, **words: Any) -> None:
    data = DataModule(Folder(str(faces), fractions=PARTS), batch_size=12, num_workers=0)
    trainer(Path(), max_epochs=1, callbacks=list(callbacks), **words).fit(module, datamodule=data)


def small(**words: Any) -> VitScl:
    return VitScl("test_vit", pretrained=False, input_size=32, rank=2, **words)


@pytest.mark.parametrize(
    "words", [{"precision": "bf16-mixed"}, {"plugins": [BestMixedPrecision()]}], ids=["bf16", "best"]
)
def test_losses_scores_and_weights_stay_float32(faces: Path, words: dict[str, Any]) -> None:
    types, halved = Types(), []
    module = small()
    module.network.blocks[0].attn.register_forward_hook(lambda m, i, out: halved.append(out.dtype))
    fit(faces, module, types, **words)
    assert set(halved) == {torch.bfloat16}
    assert types.found == {torch.float32}


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_losses_of_half_outputs_are_those_of_their_float32_values(half: torch.dtype) -> None:
    """Under autocast the exponentials of a loss would overflow in fp16 at 12."""
    module = small()
    out = {"logits": torch.tensor([[-40.0, 40.0], [30.0, -30.0]]), "feature": 20 * torch.randn(2, 64)}
    batch = {"label": torch.tensor([0, 0]), "weight": torch.ones(2)}
    out = {name: value.to(half) for name, value in out.items()}
    with torch.autocast("cpu", half):
        losses = module.loss(out, batch)
    exact = module.loss({name: value.float() for name, value in out.items()}, batch)
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        torch.testing.assert_close(value, exact[name], rtol=1e-6, atol=0)


@pytest.mark.parametrize(("native", "precision", "scaled"), [(True, "bf16-mixed", False), (False, "16-mixed", True)])
def test_an_old_card_gets_fp16_with_a_scaler(
    monkeypatch: pytest.MonkeyPatch, native: bool, precision: str, scaled: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    # a T4 says yes when it may emulate
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native or including_emulation)
    plugin = BestMixedPrecision()
    assert (plugin.precision, plugin.scaler is not None) == (precision, scaled)


def test_gradients_are_clipped(faces: Path) -> None:
    module = small(optimizer=lambda p: optim.SGD(p, lr=1.0))
    before = [p.detach().clone() for p in module.parameters() if p.requires_grad]
    fit(faces, module, gradient_clip_val=1e-3, limit_train_batches=1, limit_val_batches=0)
    after = [p for p in module.parameters() if p.requires_grad]
    moved = torch.cat([(a - b).flatten() for a, b in zip(after, before, strict=True)]).norm()
    assert 0.5e-3 < float(moved) < 1.01e-3
