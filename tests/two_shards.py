"""Run by training/test_sharded.py in two processes: a small Sida, sharded and under DDP."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from killing import sha256
from pytorch_lightning.callbacks import ModelCheckpoint
from test_contract import trainer

from dfl.data import DataModule, Toy, Transform
from dfl.detectors import Detector, Sida
from dfl.training import AtomicCheckpointIO, FiniteLoss, KeyedRandomness
from dfl.training.sharded import FullyShardStrategy

# of SAM's small layers, which are sharded here only
warnings.filterwarnings("ignore", message=".*returned a view tensor")


def build(models: dict[str, Any]) -> Detector:
    """A Sida of these arguments."""
    torch.manual_seed(0)
    return Sida(**models["sida"])


def data(models: dict[str, Any], **words: Any) -> DataModule:
    """Pictures with masks and sentences."""
    plain = Transform(augment="none")
    return DataModule(
        Toy(models["toy"], n=96, size=64), batch_size=2, eval_batch_size=4, num_workers=0, transform=plain, **words
    )


def work(rank: int, out: Path, models: dict[str, Any]) -> None:
    """Train for two steps, under DDP, sharded, and sharded from the first step's checkpoint; test it sharded."""

    def fit(how: str, strategy: Any, start: str | None = None) -> Detector:
        keep = ModelCheckpoint(out / how, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        run = trainer(
            out, devices=2, strategy=strategy, max_epochs=1, limit_train_batches=4, limit_val_batches=1,
            gradient_clip_val=1.0, accumulate_grad_batches=2, plugins=[AtomicCheckpointIO()],
            callbacks=[KeyedRandomness(), FiniteLoss(), keep], enable_checkpointing=True,
        )  # fmt: skip
        detector = build(models)
        run.fit(detector, data(models, val=None), ckpt_path=start, weights_only=True)
        return detector

    fit("ddp", "ddp")
    whole = fit("cut", FullyShardStrategy(smallest=0))
    again = fit("resumed", FullyShardStrategy(smallest=0), str(out / "cut/step=1.ckpt"))
    run, tested = trainer(out, devices=2, strategy=FullyShardStrategy(smallest=0)), build(models)
    run.test(tested, data(models), ckpt_path=str(out / "cut/step=2.ckpt"), verbose=False, weights_only=True)
    done = {
        "slices": [sha256({n: bits(p.to_local()) for n, p in d.named_parameters()}) for d in (whole, again)],
        "held": sum(p.to_local().numel() for p in whole.parameters()),
        "test": tested.results["test"],
    }
    (out / f"cut{rank}.json").write_text(json.dumps(done))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """What NumPy can take of any number format."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
