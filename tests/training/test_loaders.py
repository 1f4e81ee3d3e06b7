"""A loader process that is killed is known by its end, whatever its parent meets first."""

import gc
import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dfl.training import faults
from dfl.training.faults import explain


@pytest.fixture(autouse=True)
def _ends_at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A loader whose process raised waits five seconds for it, wherever it is garbage: here, and not long."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.1)
    yield
    gc.collect()


class Numbers(torch.utils.data.Dataset[int]):
    """Numbers; the fourth may raise."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> int:
        if index == 3 and self.error:
            raise self.error
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


def test_an_error_of_a_file_or_of_memory_is_not_taken_for_a_killed_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "KNOWN_AFTER", 0.1)
    for bad, says in ((EOFError("ends too soon"), "None"), (MemoryError(), "memory ran out in a loader process")):
        with pytest.raises(type(bad)) as error:
            list(torch.utils.data.DataLoader(Numbers(bad), num_workers=1))
        assert says in str(explain(error.value))
    living: Any = iter(torch.utils.data.DataLoader(Numbers(), num_workers=1))

    def get(timeout: float) -> Any:
        raise EOFError

    monkeypatch.setattr(living._data_queue, "get", get)
    with pytest.raises(EOFError) as error:
        next(living)
    assert explain(error.value) is None
    for other in (EOFError("of no loader"), RuntimeError("shapes do not match")):
        assert explain(other) is None
    assert "batch_size" in str(explain(torch.OutOfMemoryError("CUDA out of memory")))
