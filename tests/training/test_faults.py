"""What goes wrong around a run costs one line, and leaves a run that can go on."""

import itertools
import json
import multiprocessing.connection
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from commands import fails

from dfl.__main__ import main
from dfl.cli import app
from dfl.data import dataset
from dfl.detectors import Classifier
from dfl.errors import UserError
from dfl.runs.last import KeepLast
from dfl.training import FiniteLoss
from dfl.training.faults import explain
from dfl.training.preemption import slurm_plugins


def write_config(faces: Path, **data: Any) -> None:
    source = {
        "class_path": "Folder",
        "init_args": {"root": str(faces), "fractions": {"train": 0.6, "val": 0.2, "test": 0.2}},
    }
    words = {"backbone": "test_vit", "pretrained": False, "input_size": 32, "rank": 2}
    run = {
        "model": {"class_path": "VitScl", "init_args": words},
        "data": {"class_path": "DataModule", "init_args": {"train": source, "batch_size": 4, "num_workers": 0, **data}},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
    }
    Path("run.yaml").write_text(json.dumps(run))


def fit(*words: str) -> Any:
    return main(["fit", "--config=run.yaml", "--ckpt_path=last", *words])


def fit_fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    return fails(capsys, "fit", "--config=run.yaml", "--ckpt_path=last", *words)


def weights(path: str | Path = "checkpoints/run/last.ckpt") -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def without_faults(folder: Path, write: Callable[[Path], None], faces: Path) -> dict[str, Any]:
    """Return the checkpoint of a run in which nothing went wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write(faces)
        fit()
        return weights()


@pytest.fixture(scope="module")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of such a run."""
    return without_faults(tmp_path_factory.mktemp("uncut"), write_config, faces)


@pytest.fixture
def uncut(faces: Path, trained: dict[str, Any]) -> dict[str, Any]:
    """Return the checkpoint of a run in which nothing went wrong, with the config of that run in the working folder."""
    write_config(faces)
    return trained


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a["global_step"] == b["global_step"]
    assert all(
        torch.equal(value, b["state_dict"][key]) or value.isnan().any() for key, value in a["state_dict"].items()
    )


def test_training_goes_on_when_the_disk_fills_up(
    faces: Path, uncut: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    write, written = torch.save, []

    def save(what: Any, file: Any) -> None:
        written.append(1)
        if len(written) > 4:
            raise OSError(28, "No space left on device")
        write(what, file)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.warns(UserWarning, match="cannot write .*No space left"):
            made = fit("--last.every_n_steps=1")
    assert made.trainer.global_step == 9
    assert weights()["global_step"] == 4
    fit()
    assert_same(weights(), uncut)


@pytest.mark.parametrize("harm", ["truncated", "one bit", "missing"])
def test_a_damaged_last_is_reported_and_the_one_before_is_used(faces: Path, uncut: dict[str, Any], harm: str) -> None:
    fit("--last.every_n_steps=2")
    path = Path("checkpoints/run/last.ckpt")
    whole = bytearray(path.read_bytes())
    if harm == "missing":
        path.unlink()
    else:
        whole[len(whole) // 2] ^= 4
        path.write_bytes(whole[: len(whole) // 2] if harm == "truncated" else whole)
    with pytest.warns(
        UserWarning, match=f"{'missing' if harm == 'missing' else 'damaged'}; using the checkpoint before"
    ):
        made = fit()
    assert made.plan.trained.path.name == "last-previous.ckpt"
    assert_same(weights(), uncut)


def test_other_hyper_parameters_are_one_line(
    faces: Path, uncut: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fit()
    said = fit_fails(capsys, "--model.rank=4", "--trainer.max_epochs=2")
    assert "does not fit the weights" in said
    assert "lora" in said


# images and loader processes


def test_an_unreadable_image_ends_the_run_which_goes_on_when_it_is_mended(
    faces: Path, uncut: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = shutil.copytree(faces, tmp_path / "spoilt")
    victim = copy / "real" / f"{sorted((copy / 'real').iterdir())[4].name}"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:500])
    write_config(copy)
    assert victim.name in fit_fails(capsys, "--data.max_bad=0")
    done = weights()["global_step"]
    assert 0 < done < 9
    victim.write_bytes(whole)
    fit()
    assert_same(weights(), uncut)


class Fail(pl.Callback):
    """Raise at one place of one step: a hook, or within the optimizer, when it has changed the weights."""

    def __init__(self, place: str, step: int) -> None:
        def fail(*args: Any) -> None:
            raise RuntimeError("out of memory")

        def at(trainer: Any, *args: Any) -> None:
            if trainer.global_step == step and not trainer.sanity_checking:
                trainer.optimizers[0].register_step_post_hook(fail) if place == "optimizer" else fail()

        setattr(self, "on_train_batch_start" if place == "optimizer" else place, at)


def write_classifier(faces: Path) -> None:
    write_config(faces)
    run = json.loads(Path("run.yaml").read_text())
    words = {"backbone": "test_resnet", "pretrained": False, "input_size": 32}
    run["model"] = {"class_path": "Classifier", "init_args": words}
    Path("run.yaml").write_text(json.dumps(run))


@pytest.fixture(scope="module")
def whole(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The checkpoint of such a run in which nothing went wrong."""
    return without_faults(tmp_path_factory.mktemp("whole"), write_classifier, faces)


@pytest.mark.parametrize(
    ("place", "step", "saved"),
    [
        ("on_after_backward", 4, 4),  # statistics and gradients of the step are there already
        ("optimizer", 4, None),
        ("on_validation_batch_end", 9, 9),
    ],
)
def test_an_exception_saves_the_step_before_it(
    whole: dict[str, Any], faces: Path, monkeypatch: pytest.MonkeyPatch, place: str, step: int, saved: int | None
) -> None:
    write_classifier(faces)
    callbacks = app.callbacks
    with monkeypatch.context() as patch:
        patch.setattr(app, "callbacks", lambda *given: [Fail(place, step), *callbacks(*given)])
        with pytest.raises(RuntimeError, match="out of memory"):
            fit()
    assert Path("checkpoints/run/last.ckpt").exists() == (saved is not None)
    if saved:
        assert weights()["global_step"] == saved
    fit()
    cut = weights()
    assert_same(cut, whole)
    for part in cut["loops"]["fit_loop"]:
        assert cut["loops"]["fit_loop"][part] == whole["loops"]["fit_loop"][part], part


def test_a_killed_loader_process_is_one_line_and_the_run_goes_on(
    faces: Path, uncut: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, fetched = dataset.load_image, itertools.count()

    def load(*args: Any, **words: Any) -> Any:
        if torch.utils.data.get_worker_info() and next(fetched) == 20:  # the loader's maker looks at images too, here
            Path("waits").touch()
            signal.pause()
        return real(*args, **words)

    whole = 20 // 4  # batches before the image that waits; what the loader wrote of them may still be on its way
    arrived: list[Any] = []

    def fetch(loader: Any, *timeout: float) -> Any:
        """Shoot when this process waits for the next batch; elsewhere a step may be half done, and is not saved."""
        if Path("waits").exists() and len(arrived) == whole:
            for child in loader._workers:  # other children are of other tests
                os.kill(child.pid or 0, signal.SIGKILL)
        found, batch = get(loader, *timeout)
        arrived.extend([batch] * found)
        return found, batch

    iterator = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    get = iterator._try_get_data
    with monkeypatch.context() as patch:
        patch.setattr(iterator, "_try_get_data", fetch)
        patch.setattr(dataset, "load_image", load)
        assert "a loader process was killed" in fit_fails(capsys, "--data.num_workers=1")
    assert 2 <= weights()["global_step"] < 9
    fit("--data.num_workers=1")
    assert_same(weights(), uncut)


def test_a_loader_process_whose_pipe_breaks_before_its_end_does_not_break_the_save(
    faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(faces)
    save, iterator = KeepLast._save, torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    get, arrived, own = iterator._try_get_data, [], []

    def fetch(loader: Any, *timeout: float) -> Any:
        if len(arrived) == 4:
            own[:] = loader._workers
            raise ConnectionResetError("the pipe is broken")
        found, batch = get(loader, *timeout)
        arrived.extend([batch] * found)
        return found, batch

    def slow(callback: KeepLast, trainer: Any) -> None:
        """Save while the end of the process becomes known."""
        (child,) = own
        os.kill(child.pid or 0, signal.SIGKILL)
        multiprocessing.connection.wait([child.sentinel])
        save(callback, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(iterator, "_try_get_data", fetch)
        patch.setattr(KeepLast, "_save", slow)
        assert "a loader process was killed" in fit_fails(capsys, "--data.num_workers=1")
    assert weights()["global_step"] >= 1


# losses


class Breaks(Classifier):
    """A detector whose second part is NaN at the sixth batch."""

    def loss(self, out: Any, batch: Any) -> Any:
        losses = super().loss(out, batch)
        bad = torch.full((), float("nan") if self.trainer.global_step == 5 else 1.0)
        return {"loss": losses["loss"] * bad, "ce": losses["ce"], "odd": losses["loss"] * bad}


def test_a_loss_that_is_no_number_names_itself_and_its_images(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(faces)
    said = fit_fails(
        capsys,
        f"--model={__name__}.Breaks",
        "--model.backbone=test_resnet",
        "--model.pretrained=false",
        "--last.every_n_steps=1",
    )
    assert "the loss is no number at batch 5: loss is nan, odd is nan" in said
    assert said.count(".png") == 4
    held = weights()
    assert held["global_step"] == 5
    assert all(v.isfinite().all() for k, v in held["state_dict"].items() if k != "threshold")


def test_a_gpu_looks_at_many_losses_at_once_and_before_each_checkpoint() -> None:
    guard, run = FiniteLoss(every=3), SimpleNamespace(world_size=1)
    run.fit_loop = SimpleNamespace(epoch_loop=SimpleNamespace(total_batch_idx=7))
    module: Any = SimpleNamespace(device=torch.device("cuda"), losses={"ce": torch.tensor(float("inf"))})
    guard.on_train_batch_end(run, module, None, {"path": ["a.png"]}, 0)  # type: ignore[arg-type]
    module.losses = {"ce": torch.tensor(1.0)}
    guard.on_train_batch_end(run, module, None, {"path": ["b.png"]}, 1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"batch 7: ce is inf; .* images: a\.png$"):
        guard.on_save_checkpoint(run, module, {})  # type: ignore[arg-type]


def test_weights_that_are_no_numbers_are_not_saved() -> None:
    module = torch.nn.Linear(2, 2)
    module.weight.data[0, 0] = float("nan")
    with pytest.raises(UserError, match="the weights weight are no numbers"):
        FiniteLoss().on_save_checkpoint(SimpleNamespace(world_size=1), module, {})  # type: ignore[arg-type]


# clusters


def test_slurm_is_not_left_to_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm_plugins(tmp_path) == []
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_JOB_ID", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(name, "2")
    (environment,) = slurm_plugins(tmp_path)
    assert not environment.auto_requeue
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    with pytest.raises(UserError, match=r"hpc_ckpt_1.ckpt was written by Lightning"):
        slurm_plugins(tmp_path)
    (tmp_path / "hpc_ckpt_1.ckpt").unlink()
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")  # torchrun gives the ranks
    assert slurm_plugins(tmp_path) == []


def test_a_logger_without_its_service_is_one_line() -> None:
    theirs = type("Error", (Exception,), {"__module__": "wandb.errors.errors"})  # no dependency
    usage = type("UsageError", (theirs,), {"__module__": "wandb.errors.errors"})
    said = explain(usage("No API key configured. Use `wandb login` to log in.\nmore"))
    assert said is not None
    assert "Use `wandb login` to log in; to write to disk alone: --trainer.logger.offline=true" in said
    assert explain(type("Error", (Exception,), {"__module__": "somebody.else"})("no")) is None
