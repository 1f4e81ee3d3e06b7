"""Run by test_contract in two processes: train and test every small detector on two ranks, write what came of it."""

import json
from pathlib import Path

import test_contract as contract
import torch
from killing import sha256
from pytorch_lightning.callbacks import ModelCheckpoint

from dfl.detectors import Detector, FittedDetector
from dfl.training import KeyedRandomness

RANKS = {"devices": 2, "strategy": "ddp"}  # unused parameters would be an error


def work(rank: int, faces: Path, out: Path) -> None:
    """Train and test each, and write what this rank found."""
    states = {}
    for name in contract.SMALL:
        alone, together = (contract.scored(name, size, faces, out, **RANKS) for size in (1, 4))
        if rank == 0:
            (out / f"{name}.json").write_text(json.dumps(alone.results["test"]))
            torch.save(together.metrics["test"].rows("a"), out / f"{name}.pt")
        start = sha256(parameters(contract.build(name)))
        whole = trained(name, faces, out)
        fitted = name in contract.FITTED  # in one pass, which starts again
        resumed = trained(name, faces, out, None if fitted else str(out / name / "step=2.ckpt"))
        if fitted and rank == 0:
            torch.save(whole.state_dict(), out / f"{name}_fitted.pt")
        states[name] = {
            "start": start,
            "parameters": sha256(parameters(whole)),
            "whole": sha256(whole.state_dict()),
            "resumed": sha256(resumed.state_dict()),
        }
    (out / f"trained{rank}.json").write_text(json.dumps(states))


def parameters(detector: Detector) -> dict[str, torch.Tensor]:
    """What is the same on all ranks; buffers hold what each has seen, but for what was fitted."""
    fitted = detector.fitted if isinstance(detector, FittedDetector) else ("\0",)
    buffers = {name: value for name, value in detector.named_buffers() if name.startswith(fitted)}
    return buffers | {name: parameter.detach() for name, parameter in detector.named_parameters()}


def trained(name: str, faces: Path, out: Path, start: str | None = None) -> Detector:
    """Train for an epoch of three steps, from the start or from a checkpoint."""
    keep = ModelCheckpoint(out / name, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    callbacks = [KeyedRandomness(), *([] if start else [keep])]
    run = contract.trainer(out, **RANKS, max_epochs=1, callbacks=callbacks, enable_checkpointing=not start)
    detector = contract.build(name)
    run.fit(detector, contract.data(faces, 40, name), ckpt_path=start, weights_only=True)
    return detector
