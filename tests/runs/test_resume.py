"""A run that is cut off anywhere and resumed is the run that was never cut: samples, losses, weights, verdicts."""

import hashlib
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, optim

from dfl.data import DataModule, Folder, Transform
from dfl.detectors import Classifier, VitScl
from dfl.errors import UserError
from dfl.losses import SingleCenter
from dfl.runs.best import Keeper
from dfl.training import AtomicCheckpointIO, FiniteLoss, KeepLast, KeyedRandomness, Preemption, SameRun

PARTS = {"train": 0.6, "val": 0.2, "test": 0.2}


class Recorder(pl.Callback):
    """What a run saw and found, step by step."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, list[int], float]] = []
        self.found: list[tuple[int, float, float]] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = float(module.losses["loss"])
        self.steps.append((trainer.fit_loop.epoch_loop.total_batch_idx, batch["index"].tolist(), loss))

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        self.found.append((trainer.global_step, module.results["val"]["mean"]["log_loss"], float(module.threshold)))


class Log(pl.loggers.logger.DummyLogger):
    """Losses as a logger gets them."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[tuple[int, str], float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows |= {(step or 0, name): value for name, value in metrics.items()}


class Copies(AtomicCheckpointIO):
    """Keep every version of ``last.ckpt``."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        super().save_checkpoint(checkpoint, path, storage_options)
        if Path(path).name == "last.ckpt":
            shutil.copy(path, self.folder / f"{len(list(self.folder.glob('*.ckpt'))):03d}.ckpt")


class Manual(Classifier):
    """Two optimizer steps for each batch, by hand."""

    def __init__(self, **words: Any) -> None:
        super().__init__(**words)
        self.automatic_optimization = False

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:  # type: ignore[override]
        optimizer = self.optimizers()
        for _ in range(2):
            losses = self.loss(self(batch["image"]), batch)
            optimizer.zero_grad()
            self.manual_backward(losses["loss"])
            optimizer.step()
        self.log_losses(losses, len(batch["image"]))
        return losses["loss"].detach()


class Steps(Classifier):
    """A schedule that asks Lightning for the number of steps in the run, and moves at each."""

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        schedule = optim.lr_scheduler.OneCycleLR(
            optimizer, 1e-2, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def resnet(cls: type[Classifier] = Classifier, **words: Any) -> Classifier:
    return cls(backbone="test_resnet", pretrained=False, input_size=32, **words)


def vit() -> VitScl:
    return VitScl("test_vit", pretrained=False, input_size=32, rank=2, dropout=0.3)


def epochs_schedule() -> Classifier:
    return resnet(scheduler=lambda o: optim.lr_scheduler.StepLR(o, 1, 0.5))


CASES: dict[str, tuple[Callable[[], Classifier], dict[str, Any]]] = {
    "dropout, LoRA, SCL": (vit, {}),
    "batch norm, schedule by epoch": (epochs_schedule, {}),
    "validation in mid-epoch": (resnet, {"val_check_interval": 3}),
    "accumulation, total steps": (lambda: resnet(Steps), {"accumulate_grad_batches": 2}),
    "accumulation over validation": (resnet, {"accumulate_grad_batches": 2, "val_check_interval": 3}),
    "manual optimization": (lambda: resnet(Manual), {"val_check_interval": 4}),
    "moving center": (lambda: resnet(criterion=SingleCenter(center="ema")), {}),
    "no validation": (resnet, {"limit_val_batches": 0}),
    "every second validation": (resnet, {"check_val_every_n_epoch": 2}),
    "fewer batches": (resnet, {"limit_train_batches": 5}),
}


def data(faces: Path, train: int = 36, **words: Any) -> DataModule:
    source = Folder(str(faces), fractions=PARTS, limit={"train": train})
    settings = {"batch_size": 4, "num_workers": 0, "transform": Transform(augment="light")} | words
    return DataModule(source, **settings)


class Run:
    """One process's part of a run."""

    def __init__(self, folder: Path, make: Callable[[], Classifier], words: dict[str, Any], *more: pl.Callback) -> None:
        pl.seed_everything(0)
        self.detector, self.seen, self.log, self.folder = make(), Recorder(), Log(), folder
        folder.mkdir(parents=True, exist_ok=True)
        self.last = KeepLast(str(folder), every_n_steps=1)
        best = Keeper(str(folder), "best", "val/mean/auroc", mode="max", enable_version_counter=False)
        fitted = [] if words.get("limit_val_batches") == 0 else [best]
        self.trainer = pl.Trainer(
            **{"max_epochs": 2, "log_every_n_steps": 1} | words,
            callbacks=[
                SameRun(),
                KeyedRandomness(),
                FiniteLoss(),
                Preemption(self.last),
                self.seen,
                *more,
                *fitted,
                self.last,
            ],
            plugins=[Copies(folder)],
            default_root_dir=folder,
            accelerator="cpu",
            logger=self.log,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )

    def fit(self, data: DataModule, checkpoint: Path | None = None) -> "Run":
        self.trainer.fit(self.detector, datamodule=data, ckpt_path=checkpoint)
        return self

    @property
    def sha256(self) -> str:
        """Hash of weights, optimizer and schedule."""
        digest = hashlib.sha256()
        optimizer = self.trainer.optimizers[0].state_dict()
        plan = [c.scheduler.state_dict() for c in self.trainer.lr_scheduler_configs]
        for value in (*self.detector.state_dict().values(), *_tensors(optimizer["state"])):
            digest.update(value.detach().numpy().tobytes())
        digest.update(repr([sorted(g.items(), key=lambda i: i[0]) for g in optimizer["param_groups"]]).encode())
        digest.update(repr([sorted((k, v) for k, v in p.items() if isinstance(v, float | int)) for p in plan]).encode())
        return digest.hexdigest()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, dict):
        return [t for key in sorted(value, key=str) for t in _tensors(value[key])]
    return [value] if isinstance(value, Tensor) else []


def assert_goes_on(whole: Run, rest: Run, part: Run | None = None) -> None:
    """The rest must be the tail of the whole; with the part before it, all of it."""
    n = len(rest.seen.steps)
    assert rest.seen.steps == (whole.seen.steps[-n:] if n else [])
    found = len(rest.seen.found)
    assert rest.seen.found == (whole.seen.found[-found:] if found else [])
    assert all(whole.log.rows[key] == value or value != value for key, value in rest.log.rows.items())
    if part is not None:
        assert len(part.seen.steps) + n == len(whole.seen.steps)
        assert part.seen.found + rest.seen.found == whole.seen.found
        assert part.log.rows.keys() | rest.log.rows.keys() == whole.log.rows.keys()
    assert rest.sha256 == whole.sha256
    assert rest.trainer.global_step == whole.trainer.global_step
    assert _validated(rest) == _validated(whole)


def _validated(run: Run) -> dict[str, Any]:
    """Return how many validation batches were begun and ended, as the last checkpoint says."""
    return run.trainer.fit_loop.state_dict()["epoch_loop.val_loop.batch_progress"]["total"]


def kind(checkpoint: Path) -> tuple[bool, ...]:
    """Return what it says of its place: between epochs, before or after a validation, or between other steps."""
    loops = torch.load(checkpoint, weights_only=True)["loops"]["fit_loop"]
    epoch, batch, validation = (
        loops[name]["current"]
        for name in ("epoch_progress", "epoch_loop.batch_progress", "epoch_loop.val_loop.batch_progress")
    )
    return (
        epoch["ready"] == epoch["processed"],
        batch["completed"] == batch["processed"],
        validation["started"] == validation["processed"],
    )


@pytest.mark.parametrize("case", CASES)
def test_every_checkpoint_goes_on_exactly(faces: Path, tmp_path: Path, case: str) -> None:
    make, words = CASES[case]
    whole = Run(tmp_path / "whole", make, words).fit(data(faces, 28))  # seven steps an epoch
    saved = sorted((tmp_path / "whole").glob("[0-9]*.ckpt"))
    assert len(saved) >= (8 if "accumulate_grad_batches" in words else 10)
    # the first, and the newest of each kind, which is the second one in its epoch; `make soak` tries any
    for checkpoint in {saved[0], *{kind(path): path for path in saved}.values()}:
        rest = Run(tmp_path / f"rest {checkpoint.stem}", make, words)
        rest.last.every_n_steps = 0  # to write changes nothing
        assert_goes_on(whole, rest.fit(data(faces, 28), checkpoint))


class At(pl.Callback):
    """Do something at a step of training, or at a batch of the first validation."""

    def __init__(self, what: Callable[[], None], step: int | None = None, validation_batch: int | None = None) -> None:
        self.what, self.step, self.validation_batch = what, step, validation_batch

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            self.what()
            self.step = None

    def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int, d: int = 0) -> None:
        if batch_idx == self.validation_batch:
            self.what()
            self.validation_batch = None


def send(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def uncut(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("uncut"), vit, {}).fit(data(faces, eval_batch_size=5))


@pytest.mark.parametrize(
    ("number", "code", "where"),
    [
        (signal.SIGTERM, 75, {"step": 3}),
        (signal.SIGUSR1, 75, {"step": 8}),  # the last batch of an epoch
        (signal.SIGINT, 130, {"step": 12}),
        (signal.SIGTERM, 75, {"validation_batch": 0}),
        (signal.SIGTERM, 75, {"validation_batch": 1}),
    ],
)
def test_a_signal_saves_and_leaves(
    faces: Path, tmp_path: Path, uncut: Run, number: signal.Signals, code: int, where: dict[str, int]
) -> None:
    handler = signal.getsignal(number)
    part = Run(tmp_path / "part", vit, {}, At(send(number), **where))
    part.last.every_n_steps = 0
    with pytest.raises(SystemExit) as stop:
        part.fit(data(faces, eval_batch_size=5))
    assert stop.value.code == code
    assert signal.getsignal(number) == handler
    rest = Run(tmp_path / "part", vit, {}).fit(data(faces, eval_batch_size=5), tmp_path / "part" / "last.ckpt")
    assert signal.getsignal(number) == handler  # also of a run that ended by itself
    assert_goes_on(uncut, rest, part)
    assert len(rest.seen.steps) == 18 - where.get("step", 8) - 1
    kept = [run.trainer.checkpoint_callback.best_model_score for run in (uncut, rest)]  # type: ignore[union-attr]
    assert kept[0] == kept[1]


def test_a_second_interrupt_ends_at_once(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    callback = Preemption(KeepLast())
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append(number))
    before = signal.getsignal(signal.SIGINT)
    callback._note(signal.SIGINT, None)
    assert (sent, callback.asked) == ([], 130)
    callback._note(signal.SIGINT, None)
    assert sent == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    signal.signal(signal.SIGINT, before)


def test_other_batches_are_taken_between_epochs_and_refused_within_one(
    faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Run(tmp_path / "whole", vit, {"max_epochs": 1}).fit(data(faces))
    saved = sorted((tmp_path / "whole").glob("[0-9]*.ckpt"))
    with pytest.raises(UserError, match=r"batches of 4 x 1 process, and this run has 8 x 1 process"):
        Run(tmp_path / "a", vit, {}).fit(data(faces, batch_size=8), saved[3])
    rest = Run(tmp_path / "b", vit, {}).fit(data(faces, batch_size=8), saved[-1])
    assert [len(rows) for _, rows, _ in rest.seen.steps] == [8] * 4
    assert "batches were 4 x 1 process and are 8 x 1 process, from this epoch on" in capsys.readouterr().out


def test_other_images_settings_and_code_are_named(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Run(tmp_path / "whole", vit, {"max_epochs": 1})
    first.trainer.run_config = {"model": {"init_args": {"rank": 2}}, "trainer": {"max_epochs": 1}}  # type: ignore[attr-defined]
    first.fit(data(faces))
    monkeypatch.setattr("dfl.__version__", "9.9")
    more = shutil.copytree(faces, tmp_path / "more")
    shutil.copy(more / "real" / "00.png", more / "real" / "31.png")
    other = Run(tmp_path / "b", vit, {})
    other.trainer.run_config = {"model": {"init_args": {"rank": 4}}, "trainer": {"max_epochs": 2}}  # type: ignore[attr-defined]
    with pytest.warns(UserWarning, match="settings differ") as said:
        other.fit(data(more), tmp_path / "whole" / "last.ckpt")
    lines = [str(w.message) for w in said]
    assert "settings differ from the checkpoint's: model.rank: 2 -> 4" in lines
    assert any("the images of train/train" in line for line in lines)
    assert any("this is 9.9" in line for line in lines)
