"""Unreadable images are counted over all ranks."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from forking import on_two_ranks

from dfl.data.unread import Unread
from dfl.errors import UserError


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
