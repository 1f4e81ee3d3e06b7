"""Run by training/test_sharded.py in two processes: small detectors, sharded and under DDP."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from killing import sha256
from pytorch_lightning.callbacks import ModelCheckpoint
from test_contract import PARTS, trainer
from test_contract import build as small

from dfl.data import DataModule, Folder, Toy, Transform
from dfl.detectors import Detector, Sida
from dfl.training import AtomicCheckpointIO, FiniteLoss, KeyedRandomness
from dfl.training.sharded import FullyShardStrategy

# of SAM's small layers, which are sharded here only
warnings.filterwarnings("ignore", message=".*returned a view tensor")


def build(name: str, models: dict[str, Any]) -> Detector:
    """A Sida of these arguments, or a detector of the contract test."""
    if name not in models:
        return small(name)
    torch.manual_seed(0)
    return Sida(**models[name])


def data(name: str, models: dict[str, Any], faces: str, **words: Any) -> DataModule:
    """Pictures with masks and sentences for those that write."""
    source = Toy(models["toy"], n=96, size=64) if name in models else Folder(faces, fractions=PARTS)
    plain = Transform(augment="none")
    return DataModule(source, batch_size=2, eval_batch_size=4, num_workers=0, transform=plain, **words)


def work(rank: int, faces: str, out: Path, models: dict[str, Any], names: list[str]) -> None:
    """Train each for two steps, under DDP, sharded, and sharded from the first step's checkpoint; test it sharded."""

    def fit(name: str, how: str, strategy: Any, start: str | None = None) -> Detector:
        each = 2 if name in models else 1  # sharpness-aware minimisation steps after every batch
        keep = ModelCheckpoint(out / f"{name}-{how}", filename="{step}", every_n_train_steps=1, save_top_k=-1)
        run = trainer(
            out, devices=2, strategy=strategy, max_epochs=1, limit_train_batches=2 * each, limit_val_batches=1,
            gradient_clip_val=1.0, accumulate_grad_batches=each, plugins=[AtomicCheckpointIO()],
            callbacks=[KeyedRandomness(), FiniteLoss(), keep], enable_checkpointing=True,
        )  # fmt: skip
        detector = build(name, models)
        run.fit(detector, data(name, models, faces, val=None), ckpt_path=start, weights_only=True)
        return detector

    done: dict[str, Any] = {}
    for name in names:
        fit(name, "ddp", "ddp")
        whole = fit(name, "cut", FullyShardStrategy(smallest=0))
        again = fit(name, "resumed", FullyShardStrategy(smallest=0), str(out / f"{name}-cut/step=1.ckpt"))
        run = trainer(out, devices=2, strategy=FullyShardStrategy(smallest=0))
        tested, file = build(name, models), str(out / f"{name}-cut/step=2.ckpt")
        run.test(tested, data(name, models, faces), ckpt_path=file, verbose=False, weights_only=True)
        done[name] = {
            "slices": [sha256({n: bits(p.to_local()) for n, p in d.named_parameters()}) for d in (whole, again)],
            "held": sum(p.to_local().numel() for p in whole.parameters()),
            "test": tested.results["test"],
        }
        (out / f"cut{rank}.json").write_text(json.dumps(done))


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """What NumPy can take of any number format."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
