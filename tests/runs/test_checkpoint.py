"""Checkpoint files: whole whatever the disk does, the best one by its score, and nothing in them that runs."""

import errno
import os
import resource
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from dfl.errors import UserError
from dfl.runs.best import Keeper
from dfl.runs.checkpoint import AtomicCheckpointIO, newest_whole, previous

PLUGIN = AtomicCheckpointIO()


def save(path: Path, size: int, value: float) -> None:
    PLUGIN.save_checkpoint({"state_dict": {"w": torch.full((size,), value)}}, path)


def saved(path: Path) -> float:
    return float(PLUGIN.load_checkpoint(path)["state_dict"]["w"][0])


def test_a_disk_that_takes_no_more_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save(path, 10, 1.0)
    ignored, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.warns(UserWarning, match=r"cannot write .*last.ckpt: File too large; training goes on"):
            save(path, 100_000, 2.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert PLUGIN.error is not None

    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    for name, number in (("fsync", errno.ENOSPC), ("open", errno.EROFS)):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, refuse)
            with pytest.warns(UserWarning, match=f"last.ckpt: {os.strerror(number)}; training goes on"):
                save(path, 10, 2.0)
    assert saved(path) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_is_no_fault_of_the_disk_is_raised(tmp_path: Path) -> None:
    with pytest.raises((AttributeError, TypeError, RuntimeError), match="local object|pickle"):
        PLUGIN.save_checkpoint({"bad": lambda: 0}, tmp_path / "last.ckpt")
    assert list(tmp_path.iterdir()) == []


def test_the_one_before_stays_and_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    (tmp_path / ".last.ckpt.tmp").write_bytes(b"half of a longer one" * 1000)
    for value in (1.0, 2.0, 3.0):
        save(path, 10, value)
    assert {p.name for p in tmp_path.iterdir()} == {"last.ckpt", "last-previous.ckpt"}
    assert (saved(previous(path)), saved(path)) == (2.0, 3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_whole(path) == path  # without a word


@pytest.mark.parametrize("kept", [0, 300, -2])
def test_a_torn_file_is_one_line(kept: int, tmp_path: Path) -> None:
    save(tmp_path / "a.ckpt", 10, 1.0)
    (tmp_path / "a.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes()[:kept])
    with pytest.raises(UserError, match=r"a\.ckpt is torn"):
        PLUGIN.load_checkpoint(tmp_path / "a.ckpt")


class Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch owned",)


def test_a_payload_does_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "dfl": Payload()}, "last.ckpt")
    with pytest.raises(UserError, match="torn or is no checkpoint that is safe to load"):
        PLUGIN.load_checkpoint("last.ckpt", weights_only=False)
    with pytest.raises(UserError, match="local files only"):
        PLUGIN.load_checkpoint("https://example.org/a.ckpt")
    assert not Path("owned").exists()


def measure(keeper: Keeper, trainer: pl.Trainer, value: float | None) -> None:
    given = {"step": torch.tensor(1), "epoch": torch.tensor(1)}
    keeper._save_topk_checkpoint(trainer, given | ({} if value is None else {"m": torch.tensor(value)}))


def test_what_is_undefined_or_not_saved_is_not_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, full, written = AtomicCheckpointIO(), False, []
    keeper = Keeper(str(tmp_path), "best", monitor="m", mode="min", enable_version_counter=False)
    trainer = pl.Trainer(logger=False, accelerator="cpu", plugins=[plugin], callbacks=[keeper])

    def save(path: str, weights_only: bool = False) -> None:
        plugin.error = OSError(errno.ENOSPC, "") if full else None
        written.append(path)

    monkeypatch.setattr(trainer, "save_checkpoint", save)
    for value in (float("nan"), 0.7, float("nan"), 0.8, 0.6, None):
        measure(keeper, trainer, value)
    assert (len(written), float(keeper.best_model_score or 0)) == (2, pytest.approx(0.6))
    full = True  # the disk refuses a better one, and the next best is the best that is there
    measure(keeper, trainer, 0.1)
    full = False
    measure(keeper, trainer, 0.4)
    assert float(keeper.best_model_score or 0) == pytest.approx(0.4)


def test_no_file_is_removed_on_a_checkpoints_word(tmp_path: Path) -> None:
    """A run's state remembers which file was the best; it may remember any other."""
    folder = tmp_path / "checkpoints" / "a"
    folder.mkdir(parents=True)
    (folder / "link").symlink_to(tmp_path)
    (tmp_path / "precious.txt").write_text("mine")
    trainer = pl.Trainer(logger=False, accelerator="cpu", plugins=[PLUGIN])
    for path in (folder / "../../precious.txt", folder / "link" / "precious.txt", tmp_path / "precious.txt"):
        keeper = Keeper(str(folder), "best", monitor="m", mode="max")
        state = {"best_model_path": str(path), "kth_best_model_path": str(path), "kth_value": torch.tensor(0.0)}
        state |= {"best_k_models": {str(path): torch.tensor(0.0)}, "best_model_score": torch.tensor(0.0)}
        keeper.load_state_dict(state)
        keeper._save_checkpoint = lambda *_: None  # type: ignore[method-assign]
        keeper._update_best_and_save(torch.tensor(1.0), trainer, {"m": torch.tensor(1.0)})
        PLUGIN.remove_checkpoint(folder / "../../precious.txt")
        assert (tmp_path / "precious.txt").is_file()
    (folder / "old.ckpt").touch()
    keeper._remove_checkpoint(trainer, str(folder / "old.ckpt"))
    assert not (folder / "old.ckpt").exists()
