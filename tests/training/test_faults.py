"""What goes wrong around a run costs one line, and leaves a run that can go on."""

import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import pickle
import resource
import shutil
import signal
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from forking import on_two_ranks

from dfl.__main__ import main
from dfl.cli import app
from dfl.data import dataset
from dfl.data.unread import Unread
from dfl.detectors import Classifier
from dfl.errors import UserError
from dfl.runs.best import Keeper
from dfl.runs.checkpoint import newest_whole, previous
from dfl.runs.last import KeepLast
from dfl.training import AtomicCheckpointIO, FiniteLoss, faults
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


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run and return the one line that is printed."""
    with pytest.raises(SystemExit) as stop:
        fit(*words)
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("dfl: ")]
    assert len(lines) == 1
    return lines[0]


def weights(path: str | Path = "checkpoints/run/last.ckpt") -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def trained(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the checkpoint of a run in which nothing went wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("uncut"))
        write_config(faces)
        fit()
        return weights()


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


# disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = os.geteuid() == 0 and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "dfl", folder], check=False)
    if not made or made.returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def content(size: int, value: float) -> dict[str, Any]:
    return {"state_dict": {"w": torch.full((size,), value)}}


def test_a_full_disk_keeps_the_old_checkpoint(small_disk: Path) -> None:
    plugin, path = AtomicCheckpointIO(), small_disk / "last.ckpt"
    plugin.save_checkpoint(content(100_000, 1.0), path)
    with pytest.warns(UserWarning, match=r"cannot write .*last.ckpt: No space left on device; training goes on"):
        plugin.save_checkpoint(content(200_000, 2.0), path)
    assert plugin.error is not None
    assert torch.equal(plugin.load_checkpoint(path)["state_dict"]["w"], torch.ones(100_000))
    assert [p.name for p in small_disk.iterdir()] == ["last.ckpt"]


def test_a_read_only_disk_keeps_the_old_checkpoint(small_disk: Path) -> None:
    plugin, path = AtomicCheckpointIO(), small_disk / "last.ckpt"
    plugin.save_checkpoint(content(10, 1.0), path)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.warns(UserWarning, match="Read-only file system"):
        plugin.save_checkpoint(content(10, 2.0), path)
    assert torch.equal(plugin.load_checkpoint(path)["state_dict"]["w"], torch.ones(10))


def test_a_file_that_may_grow_no_more_is_a_full_disk(tmp_path: Path) -> None:
    """The same without root."""
    plugin, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    plugin.save_checkpoint(content(10, 1.0), path)
    ignored, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.warns(UserWarning, match="cannot write"):
            plugin.save_checkpoint(content(100_000, 2.0), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert torch.equal(plugin.load_checkpoint(path)["state_dict"]["w"], torch.ones(10))
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


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


def test_what_is_no_fault_of_the_disk_is_raised(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError, RuntimeError), match="local object|pickle"):
        AtomicCheckpointIO().save_checkpoint({"bad": lambda: 0}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_leaves_the_old_file_and_its_rest_is_swept(tmp_path: Path) -> None:
    plugin, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    plugin.save_checkpoint(content(10, 1.0), path)
    (tmp_path / ".last.ckpt.tmp").write_bytes(b"half of a longer one" * 1000)
    plugin.save_checkpoint(content(10, 2.0), path)
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "last-previous.ckpt"}
    assert float(plugin.load_checkpoint(previous(path))["state_dict"]["w"][0]) == 1.0


def test_a_file_system_without_links_keeps_the_version_before_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*names: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    plugin, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    for value in (1.0, 2.0, 3.0):
        plugin.save_checkpoint(content(10, value), path)
    found = {p.name: float(plugin.load_checkpoint(p)["state_dict"]["w"][0]) for p in tmp_path.iterdir()}
    assert found == {"last.ckpt": 3.0, "last-previous.ckpt": 2.0}


# files


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


def test_a_whole_last_is_taken_without_a_word(tmp_path: Path) -> None:
    plugin, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    for value in (1.0, 2.0):
        plugin.save_checkpoint(content(10, value), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_whole(path) == path


class Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def test_a_payload_does_not_run(faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(faces)
    Path("checkpoints/run").mkdir(parents=True)
    torch.save({"state_dict": {}, "dfl": Payload()}, "checkpoints/run/last.ckpt")
    assert "torn or is no checkpoint that is safe to load" in fails(capsys)
    with pytest.raises(UserError, match="safe to load"):
        AtomicCheckpointIO().load_checkpoint("checkpoints/run/last.ckpt", weights_only=False)
    with pytest.raises(UserError, match="local files only"):
        AtomicCheckpointIO().load_checkpoint("https://example.org/a.ckpt")
    assert not Path("owned").exists()


def test_other_hyper_parameters_are_one_line(
    faces: Path, uncut: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    fit()
    said = fails(capsys, "--model.rank=4", "--trainer.max_epochs=2")
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
    assert victim.name in fails(capsys, "--data.max_bad=0")
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


@pytest.mark.parametrize(
    ("place", "step", "saved"),
    [
        ("on_after_backward", 4, 4),  # statistics and gradients of the step are there already
        ("optimizer", 4, None),
        ("on_validation_batch_end", 9, 9),
    ],
)
def test_an_exception_saves_the_step_before_it(
    faces: Path, monkeypatch: pytest.MonkeyPatch, place: str, step: int, saved: int | None
) -> None:
    write_config(faces)
    run = json.loads(Path("run.yaml").read_text())
    run["model"] = {
        "class_path": "Classifier",
        "init_args": {"backbone": "test_resnet", "pretrained": False, "input_size": 32},
    }
    Path("run.yaml").write_text(json.dumps(run))
    fit("--name=uncut")
    callbacks = app.callbacks
    with monkeypatch.context() as patch:
        patch.setattr(app, "callbacks", lambda *given: [Fail(place, step), *callbacks(*given)])
        with pytest.raises(RuntimeError, match="out of memory"):
            fit()
    assert Path("checkpoints/run/last.ckpt").exists() == (saved is not None)
    if saved:
        assert weights()["global_step"] == saved
    fit()
    cut, uncut = weights(), weights("checkpoints/uncut/last.ckpt")
    assert_same(cut, uncut)
    for part in cut["loops"]["fit_loop"]:
        assert cut["loops"]["fit_loop"][part] == uncut["loops"]["fit_loop"][part], part


def test_a_killed_loader_process_is_one_line_and_the_run_goes_on(
    faces: Path, uncut: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, fetched = dataset.load_image, itertools.count()

    def load(*args: Any, **words: Any) -> Any:
        if next(fetched) == 20:
            Path("waits").touch()
            signal.pause()
        return real(*args, **words)

    whole = 20 // 4  # batches before the image that waits; what the loader wrote of them may still be on its way
    arrived: list[Any] = []

    def fetch(loader: Any, *timeout: float) -> Any:
        """Shoot when this process waits for the next batch; elsewhere a step may be half done, and is not saved."""
        if Path("waits").exists() and len(arrived) == whole:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
        found, batch = get(loader, *timeout)
        arrived.extend([batch] * found)
        return found, batch

    iterator = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    get = iterator._try_get_data
    with monkeypatch.context() as patch:
        patch.setattr(iterator, "_try_get_data", fetch)
        patch.setattr(dataset, "load_image", load)
        assert "a loader process was killed" in fails(capsys, "--data.num_workers=1")
    assert 2 <= weights()["global_step"] < 9
    fit("--data.num_workers=1")
    assert_same(weights(), uncut)


def test_a_loader_process_whose_pipe_breaks_before_its_end_does_not_break_the_save(
    faces: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(faces)
    save, iterator = KeepLast._save, torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    get, arrived = iterator._try_get_data, []

    def fetch(loader: Any, *timeout: float) -> Any:
        if len(arrived) == 4:
            raise ConnectionResetError("the pipe is broken")
        found, batch = get(loader, *timeout)
        arrived.extend([batch] * found)
        return found, batch

    def slow(callback: KeepLast, trainer: Any) -> None:
        """Save while the end of the process becomes known."""
        (child,) = multiprocessing.active_children()
        os.kill(child.pid or 0, signal.SIGKILL)
        multiprocessing.connection.wait([child.sentinel])
        save(callback, trainer)

    with monkeypatch.context() as patch:
        patch.setattr(iterator, "_try_get_data", fetch)
        patch.setattr(KeepLast, "_save", slow)
        assert "a loader process was killed" in fails(capsys, "--data.num_workers=1")
    assert weights()["global_step"] >= 1


class Numbers(torch.utils.data.Dataset[int]):
    """Numbers; one of them raises."""

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> int:
        if index == self.bad:
            raise EOFError("the file ends too soon")
        return index


BROKEN = (
    EOFError(),
    ConnectionResetError(104, "Connection reset by peer"),
    BrokenPipeError(32, "Broken pipe"),
    OSError(9, "Bad file descriptor"),
    FileNotFoundError(2, "No such file or directory"),
    RuntimeError("received 0 items of ancdata"),
    RuntimeError("unable to open shared memory object </torch_1_2> in read-write mode"),
    pickle.UnpicklingError("pickle data was truncated"),
)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda error: f"{type(error).__name__}{len(str(error))}")
def test_a_pipe_that_breaks_before_the_death_is_known_is_the_same_line(
    broken: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine what the kernel closes first is seen first."""
    loader: Any = iter(torch.utils.data.DataLoader(Numbers(), num_workers=2))
    torch.utils.data._utils.signal_handling._remove_worker_pids(id(loader))  # torch's handler would be quicker
    monkeypatch.setattr(multiprocessing.Process, "is_alive", lambda self: True)

    def get(timeout: float) -> Any:
        os.kill(loader._workers[1].pid, signal.SIGKILL)
        raise broken

    monkeypatch.setattr(loader._data_queue, "get", get)
    with pytest.raises(type(broken)) as error:
        next(loader)
    assert "a loader process was killed" in str(explain(error.value))


def test_an_error_of_a_file_is_not_taken_for_a_killed_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "KNOWN_AFTER", 0.1)
    loader = torch.utils.data.DataLoader(Numbers(bad=3), num_workers=1)
    with pytest.raises(EOFError, match="ends too soon") as error:
        list(loader)
    assert explain(error.value) is None
    living: Any = iter(torch.utils.data.DataLoader(Numbers(), num_workers=1))

    def get(timeout: float) -> Any:
        raise EOFError

    monkeypatch.setattr(living._data_queue, "get", get)
    with pytest.raises(EOFError) as error:
        next(living)
    assert explain(error.value) is None
    assert explain(EOFError("of no loader")) is None


def test_memory_that_runs_out_in_a_loader_process_is_one_line(
    faces: Path, uncut: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = dataset.load_image

    def load(path: str, **words: Any) -> Any:
        if path.endswith("real/05.png"):
            raise MemoryError
        return real(path, **words)

    with monkeypatch.context() as patch:
        patch.setattr(dataset, "load_image", load)
        assert "memory ran out in a loader process" in fails(capsys, "--data.num_workers=1")
    fit()
    assert_same(weights(), uncut)


def test_other_errors_are_not_explained_away() -> None:
    assert explain(RuntimeError("shapes do not match")) is None
    assert "batch_size" in str(explain(torch.OutOfMemoryError("CUDA out of memory")))


# losses


class Breaks(Classifier):
    """A detector whose second part is NaN at the sixth batch."""

    def loss(self, out: Any, batch: Any) -> Any:
        losses = super().loss(out, batch)
        bad = torch.full((), float("nan") if self.trainer.global_step == 5 else 1.0)
        return {"loss": losses["loss"] * bad, "ce": losses["ce"], "odd": losses["loss"] * bad}


def test_a_loss_that_is_no_number_names_itself_and_its_images(faces: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(faces)
    said = fails(
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


# ranks and clusters


def _rank(rank: int, path: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)

    def reduce(value: torch.Tensor, reduce_op: str) -> torch.Tensor:
        torch.distributed.all_reduce(value, torch.distributed.ReduceOp.MAX)
        return value

    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=reduce)
    sets: Any = {"a": type("Set", (), {"bad": {}, "__len__": lambda self: 100})()}
    books, at = Unread(max_bad=0.03), -1
    try:
        for at in range(9):
            bad = [(f"{rank}-{at}", "torn")] if at in ((1, 6), (4, 6))[rank] else []
            books.record(SimpleNamespace(world_size=2, strategy=strategy), "val", sets, "a", bad)  # type: ignore[arg-type]
        told = (at, "went on", {})
    except UserError as error:
        told = (at, str(error)[:40], dict(sets["a"].bad))
    torch.save(told, f"{path}.{rank}")


def test_ranks_stop_at_the_same_batch_when_too_much_is_unreadable(tmp_path: Path) -> None:
    """Two and two bad images are more than 3 of 100, though no rank met more than two."""
    on_two_ranks(_rank, str(tmp_path / "store"))
    (at, line, bad), (also, same, too) = (torch.load(tmp_path / f"store.{rank}", weights_only=True) for rank in (0, 1))
    assert (at, also) == (6, 6)
    assert line == same == "4 of 100 images of val/a cannot be read,"[:40]
    assert set(bad) == set(too) == {"0-1", "0-6", "1-4", "1-6"}


def test_slurm_is_not_left_to_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert slurm_plugins(tmp_path) == []
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    (environment,) = slurm_plugins(tmp_path)
    assert not environment.auto_requeue
    (tmp_path / "hpc_ckpt_1.ckpt").touch()
    with pytest.raises(UserError, match=r"hpc_ckpt_1.ckpt was written by Lightning"):
        slurm_plugins(tmp_path)


def test_a_full_disk_does_not_change_which_checkpoint_is_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, keeper = AtomicCheckpointIO(), Keeper(str(tmp_path), "best", monitor="m", mode="max", save_last=False)
    trainer = pl.Trainer(logger=False, accelerator="cpu", plugins=[plugin], callbacks=[keeper], barebones=False)

    def save(path: str, weights_only: bool = False) -> None:
        plugin.error = OSError(28, "No space left on device") if full else None

    monkeypatch.setattr(trainer, "save_checkpoint", save)
    for value, full in ((0.7, False), (0.9, True), (0.8, False)):  # noqa: B007  (save reads full)
        keeper._save_topk_checkpoint(
            trainer, {"m": torch.tensor(value), "step": torch.tensor(1), "epoch": torch.tensor(1)}
        )
    assert keeper.best_model_score == pytest.approx(0.8)


def test_torchrun_on_slurm_gives_the_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_JOB_ID", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(name, "2")
    assert [type(p).__name__ for p in slurm_plugins(tmp_path)] == ["SLURMEnvironment"]
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")
    assert slurm_plugins(tmp_path) == []
