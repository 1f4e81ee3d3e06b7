"""Run by training/test_sharded.py in two processes: small detectors cut in two, beside the same ones under DDP."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

sys.path.insert(0, str(Path(__file__).parent))

from killing import sha256
from test_contract import PARTS, trainer
from test_contract import build as small

from dfl.data import DataModule, Folder, Toy, Transform
from dfl.detectors import Detector, Sida
from dfl.training import AtomicCheckpointIO, FiniteLoss, KeyedRandomness
from dfl.training.sharded import FullyShardStrategy

warnings.filterwarnings("ignore", message=".*returned a view tensor")  # of SAM's small layers, which are cut here only
faces, out, models, names = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4:]
done: dict[str, Any] = {}


def build(name: str) -> Detector:
    """A frozen base in bfloat16 with LoRA and new rows beside it and a frozen SAM, both by folder; or a small one."""
    if name not in models:
        return small(name)
    torch.manual_seed(0)
    return Sida(**models[name])


def data(name: str, **words: Any) -> DataModule:
    """Pictures with masks and sentences for those that write."""
    source = Toy(models["toy"], n=96, size=64) if name in models else Folder(str(faces), fractions=PARTS)
    return DataModule(source, batch_size=2, eval_batch_size=4, num_workers=0, transform=Transform(augment="none"), **words)


def fit(name: str, how: str, strategy: Any, start: str | None = None) -> Detector:
    """Train four steps; keep the second and the last."""
    each = 2 if name in models else 1  # sharpness-aware minimisation steps after every batch
    keep = ModelCheckpoint(out / f"{name}-{how}", filename="{step}", every_n_train_steps=2, save_top_k=-1)
    run = trainer(
        out, devices=2, strategy=strategy, max_epochs=1, limit_train_batches=4 * each, accumulate_grad_batches=each,
        gradient_clip_val=1.0, plugins=[AtomicCheckpointIO()], callbacks=[KeyedRandomness(), FiniteLoss(), keep],
        enable_checkpointing=True,
    )  # fmt: skip
    detector = build(name)
    run.fit(detector, data(name, val=None), ckpt_path=start, weights_only=True)
    return detector


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """What NumPy can take of any number format."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


for name in names:
    fit(name, "ddp", "ddp")
    whole = fit(name, "cut", FullyShardStrategy(smallest=0))
    again = fit(name, "resumed", FullyShardStrategy(smallest=0), str(out / f"{name}-cut/step=2.ckpt"))
    slices = [{n: bits(p.to_local()) for n, p in d.named_parameters()} for d in (whole, again)]
    done[name] = {
        "slices": [sha256(s) for s in slices],
        "held": sum(p.to_local().numel() for p in whole.parameters()),
        "of": sum(p.numel() for p in whole.parameters()),
    }
    run = trainer(out, devices=2, strategy=FullyShardStrategy(smallest=0))
    tested = build(name)
    file = str(out / f"{name}-cut/step=4.ckpt")
    run.test(tested, data(name), ckpt_path=file, verbose=False, weights_only=True)
    done[name]["test"] = tested.results["test"]
    (out / f"cut{run.global_rank}.json").write_text(json.dumps(done))
