"""Failures of the machine, and of settings that only show in training, in one line that says what to do."""

import re
import signal
from collections.abc import Iterator
from multiprocessing import connection
from traceback import walk_tb
from typing import Any

import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from dfl.errors import chain, first_line

#: Seconds until the end of a killed process is known to its parent: the pipe to it may break before.
KNOWN_AFTER = 5.0


def explain(error: BaseException) -> str | None:
    """Return one line for a killed loader, a full memory, a logger's service, weights or an interval that do not fit.

    Returns:
        None for others.
    """
    text = str(error)
    if _loader_killed(error):
        return (
            "a loader process was killed, most often because memory ran out: lower data.num_workers or "
            "data.max_pixels, or ask for more memory; go on with --ckpt_path last"
        )
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "the GPU's memory is full: lower data.batch_size and raise trainer.accumulate_grad_batches by as much, "
            "or set trainer.precision to bf16-mixed"
        )
    if hit := re.search(r"`val_check_interval` \((\d+)\) must be less than or equal to .* batches \((\d+)\)", text):
        return (
            f"trainer.val_check_interval is {hit[1]} batches, and an epoch has {hit[2]}: lower it, or set "
            "check_val_every_n_epoch: null to count on over epochs"
        )
    if "Error(s) in loading state_dict" in text:
        first = (text.splitlines()[1:] or [text])[0].strip().rstrip(".")
        return (
            f"the checkpoint does not fit the weights of this detector: {first}; give the settings it was trained with"
        )
    if isinstance(error, MemoryError):
        where = "a loader process" if "DataLoader worker" in text else "the process"
        return f"memory ran out in {where}: lower data.num_workers or data.max_pixels; go on with --ckpt_path last"
    if any((one.__module__, one.__name__) == ("wandb.errors.errors", "Error") for one in type(error).__mro__):
        return (
            f"Weights & Biases: {first_line(error).rstrip('.')}; to write to disk alone: --trainer.logger.offline=true"
        )
    return None


def in_restoring(error: BaseException) -> bool:
    """Whether an error came up while Lightning, or `restored`, took the state of a run from a checkpoint."""
    frames = (frame.f_code for frame, _ in walk_tb(error.__traceback__))
    files, names = ("checkpoint_connector.py", "restored.py"), ("restore", "renew")
    return any(code.co_filename.endswith(files) and code.co_name.startswith(names) for code in frames)


def _loader_killed(error: BaseException) -> bool:
    """Whether an error came about because a loader process was killed.

    torch mostly says so. But the pipe to a process breaks before its end is known, and what was on its way (half of an
    object, an open file, shared memory) is then missing: EOFError, ConnectionResetError, BrokenPipeError, OSError,
    FileNotFoundError, RuntimeError and errors of unpickling were seen. So any error that came out of torch's loader is
    compared with how its processes ended: an error of their own comes from a process that lives, and ends in order.
    """
    for one in chain(error):
        text = str(one)
        if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text or "Bus error" in text):
            return True
        if "in DataLoader worker process" not in text and any(map(_has_died, _loaders(one))):
            return True
    return False


def _loaders(error: BaseException) -> Iterator[_BaseDataLoaderIter]:
    """Yield the iterators of torch's loader that an error passed through."""
    for frame, _ in walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, _BaseDataLoaderIter):
            yield owner


def _has_died(loader: Any) -> bool:
    """Whether a process of a loader was ended by a signal other than its parent's."""
    processes = {process.sentinel: process for process in getattr(loader, "_workers", [])}
    if processes:
        for sentinel in connection.wait(list(processes), KNOWN_AFTER):
            processes[sentinel].join()  # its files are closed; in a moment it is known how it ended
    return any((process.exitcode or 0) < 0 and process.exitcode != -signal.SIGTERM for process in processes.values())
