"""Failures of the machine, in one line that says what to do."""

from traceback import walk_tb

import torch


def explain(error: BaseException) -> str | None:
    """Return one line for a killed loader, a full memory, or weights that do not fit; None for any other error."""
    text = str(error)
    if "DataLoader worker" in text and ("killed" in text or "exited unexpectedly" in text or "Bus error" in text):
        return (
            "a loader process was killed, most often because memory ran out: lower data.num_workers or "
            "data.max_pixels, or ask for more memory; go on with --ckpt_path last"
        )
    if isinstance(error, torch.OutOfMemoryError):
        return (
            "the GPU's memory is full: lower data.batch_size and raise trainer.accumulate_grad_batches by as much, "
            "or set trainer.precision to bf16-mixed"
        )
    if "Error(s) in loading state_dict" in text:
        first = (text.splitlines()[1:] or [text])[0].strip().rstrip(".")
        return f"the checkpoint does not fit the weights of this detector: {first}; give the settings it was made with"
    if isinstance(error, MemoryError):
        where = "a loader process" if "DataLoader worker" in text else "the process"
        return f"memory ran out in {where}: lower data.num_workers or data.max_pixels; go on with --ckpt_path last"
    return None


def in_restoring(error: BaseException) -> bool:
    """Whether an error came up while Lightning, or `restored`, took the state of a run from a checkpoint."""
    frames = (frame.f_code for frame, _ in walk_tb(error.__traceback__))
    files, names = ("checkpoint_connector.py", "restored.py"), ("restore", "renew")
    return any(code.co_filename.endswith(files) and code.co_name.startswith(names) for code in frames)
