"""Run by test_contract in two processes: train and test every small detector on two ranks, write what came of it."""

import json
import sys
from pathlib import Path

import torch
from pytorch_lightning.callbacks import ModelCheckpoint

sys.path.insert(0, str(Path(__file__).parent))

from killing import sha256
from test_contract import PARTS, SMALL, build, data, trainer

from dfl.data import Folder
from dfl.detectors import Detector
from dfl.training import KeyedRandomness

faces, out = Path(sys.argv[1]), Path(sys.argv[2])
RANKS = {"devices": 2, "strategy": "ddp"}  # unused parameters would be an error


def parameters(detector: Detector) -> dict[str, torch.Tensor]:
    """What is the same on all ranks; buffers hold what each has seen."""
    return {name: parameter.detach() for name, parameter in detector.named_parameters()}


def trained(name: str, start: str | None = None) -> Detector:
    """Train for an epoch of five steps, from the start or from a checkpoint."""
    keep = ModelCheckpoint(out / name, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    callbacks = [KeyedRandomness(), *([] if start else [keep])]
    run = trainer(out, **RANKS, max_epochs=1, callbacks=callbacks, enable_checkpointing=not start)
    detector = build(name)
    run.fit(detector, data(faces), ckpt_path=start, weights_only=True)
    return detector


tables, states = {}, {}
for name in SMALL:
    for limit in (12, 11):
        detector = build(name)
        run = trainer(out, **RANKS)
        test = {"a": Folder(str(faces), fractions=PARTS, limit=limit)}
        run.test(detector, data(faces, test=test), verbose=False)
        tables[f"{name} {limit}"] = detector.results["test"]
    start = sha256(parameters(build(name)))
    whole, resumed = trained(name), trained(name, str(out / name / "step=2.ckpt"))
    states[name] = {
        "start": start,
        "parameters": sha256(parameters(whole)),
        "whole": sha256(whole.state_dict()),
        "resumed": sha256(resumed.state_dict()),
    }
(out / f"trained{run.global_rank}.json").write_text(json.dumps(states))
if run.is_global_zero:
    (out / "two.json").write_text(json.dumps(tables))
