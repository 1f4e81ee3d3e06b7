"""A new run begins with what an earlier stage learned: by name and shape, said in one line, and never on resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dfl.errors import UserError
from dfl.runs.find import stage
from dfl.runs.init_from import InitFrom


class Small(LightningModule):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.register_buffer("threshold", torch.tensor(0.5))

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return sum(p.sum() for p in self.parameters())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


class Renamed(Small):
    def stage_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.replace("body", "encoder"): value for name, value in state.items()}


def ones(*shape: int) -> nn.Linear:
    layer = nn.Linear(*shape)
    nn.init.ones_(layer.weight)
    return layer


def fit(module: LightningModule, callback: InitFrom, **words: Any) -> LightningModule:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = Trainer(max_steps=1, callbacks=[callback], enable_checkpointing=False, **quiet)
    trainer.fit(module, DataLoader(torch.zeros(2, 1)), **words)
    return module


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    state = Small(body=ones(2, 3), head=ones(3, 5), old=ones(1, 1)).state_dict() | {"threshold": torch.tensor(0.9)}
    torch.save({"state_dict": state}, tmp_path / "earlier.ckpt")
    return tmp_path / "earlier.ckpt"


def test_names_and_shapes_that_match_are_taken_and_the_rest_is_said(
    earlier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = fit(Small(body=nn.Linear(2, 3), head=nn.Linear(3, 2), new=nn.Linear(1, 1)), InitFrom(earlier))
    assert bool((module.body.weight == 1).all())
    assert not bool((module.head.weight == 1).any())
    assert float(module.threshold) == 0.5
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "earlier.ckpt" in line]
    assert line == (
        f"dfl: {earlier} gives 2 of 7 tensors; "
        "2 of another shape: head.weight (5, 3), not (2, 3), head.bias (5,), not (2,); "
        "2 not in the file: new.weight, new.bias; 2 only in the file: old.weight, old.bias"
    )


def test_a_detector_may_bring_the_weights_under_its_own_names(earlier: Path) -> None:
    assert bool((fit(Renamed(encoder=nn.Linear(2, 3)), InitFrom(earlier)).encoder.weight == 1).all())


def test_a_file_of_which_nothing_fits_is_refused(earlier: Path) -> None:
    with pytest.raises(UserError, match=r"earlier.ckpt has none of the 3 tensors of Small: its first is threshold"):
        fit(Small(other=nn.Linear(2, 3)), InitFrom(earlier))


def test_a_run_that_goes_on_does_not_load_it_again(tmp_path: Path) -> None:
    module = Small(body=nn.Linear(2, 3))
    trainer = Trainer(max_steps=1, logger=False, accelerator="cpu", enable_checkpointing=False, barebones=False)
    trainer.fit(module, DataLoader(torch.zeros(2, 1)))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = fit(Small(body=ones(2, 3)), InitFrom("nowhere.ckpt"), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(again.body.weight, module.body.weight)


def test_a_run_is_found_by_its_name(earlier: Path) -> None:
    root = earlier.parent
    (root / "checkpoints" / "first").mkdir(parents=True)
    for which in ("best", "last"):
        (root / "checkpoints" / "first" / f"{which}.ckpt").write_bytes(earlier.read_bytes())
    assert stage(str(earlier), root) == earlier
    assert stage("first", root) == root / "checkpoints/first/best.ckpt"
    assert stage("first/last", root) == root / "checkpoints/first/last.ckpt"
    for word, said in (("frist", "did you mean 'first'"), ("..", "no such run"), ("https://x.org/a", "not the URL")):
        with pytest.raises(UserError, match=said):
            stage(word, root)
