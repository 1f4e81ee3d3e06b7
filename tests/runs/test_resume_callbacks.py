"""Callbacks with a state of their own: a run that averages its weights, or is stopped early, goes on exactly."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping
from test_resume import At, Run, assert_goes_on, data, kind, resnet, send, vit

from dfl.training import EMA, SWA, Monitored

AVERAGES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "EMA": (lambda: EMA(0.8), resnet, {"val_check_interval": 3}),
    "SWA": (SWA, vit, {}),
}


@pytest.mark.parametrize("case", AVERAGES)
def test_a_run_goes_on_exactly(faces: Path, tmp_path: Path, case: str) -> None:
    average, make, words = AVERAGES[case]
    whole = Run(tmp_path / "whole", make, words, average()).fit(data(faces, 28))
    saved = sorted((tmp_path / "whole").glob("[0-9]*.ckpt"))
    for checkpoint in {saved[0], *{kind(path): path for path in saved}.values()}:
        rest = Run(tmp_path / f"rest {checkpoint.stem}", make, words, average())
        rest.last.every_n_steps = 0
        assert_goes_on(whole, rest.fit(data(faces, 28), checkpoint))
    best = torch.load(tmp_path / "whole" / "best.ckpt", weights_only=True)
    assert 0 <= float(best["state_dict"]["threshold"]) <= 1
    again = Run(tmp_path / "again", make, {})
    again.trainer.validate(again.detector, datamodule=data(faces, 28), ckpt_path=tmp_path / "whole" / "best.ckpt")
    assert again.seen.found[0][1:] in [found[1:] for found in whole.seen.found]  # what was measured is what was saved


def test_a_signal_within_a_validation_exchanges_nothing(faces: Path, tmp_path: Path) -> None:
    whole = Run(tmp_path / "whole", vit, {}, EMA(0.8)).fit(data(faces, 28, eval_batch_size=5))
    stop = At(send(signal.SIGTERM), validation_batch=1)
    part = Run(tmp_path / "part", vit, {}, EMA(0.8), stop)
    part.last.every_n_steps = 0
    with pytest.raises(SystemExit):
        part.fit(data(faces, 28, eval_batch_size=5))
    rest = Run(tmp_path / "part", vit, {}, EMA(0.8))
    assert_goes_on(whole, rest.fit(data(faces, 28, eval_batch_size=5), tmp_path / "part" / "last.ckpt"), part)


def stopped(folder: Path, faces: Path, patience: int = 1, checkpoint: Path | None = None) -> Run:
    """A run of at most four epochs, in which no value is good enough."""
    stop = EarlyStopping("val/mean/log_loss", min_delta=9.0, patience=patience)
    run = Run(folder, resnet, {"max_epochs": 4}, stop, Monitored())
    run.last.every_n_steps = 0
    return run.fit(data(faces, 28), checkpoint)


def test_a_run_that_was_stopped_early_stays_so(faces: Path, tmp_path: Path) -> None:
    whole = stopped(tmp_path / "whole", faces)
    assert len(whole.seen.found) == 2
    saved = sorted((tmp_path / "whole").glob("[0-9]*.ckpt"))
    assert len(saved) == 2  # after each epoch
    for checkpoint, epochs in zip(saved, (1, 0), strict=True):
        rest = stopped(tmp_path / checkpoint.stem, faces, checkpoint=checkpoint)
        assert len(rest.seen.found) == epochs
        assert_goes_on(whole, rest)
