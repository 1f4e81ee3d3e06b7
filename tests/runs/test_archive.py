"""Torch files that want more than they hold are seen before they are opened."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dfl.errors import UserError
from dfl.networks import read_state
from dfl.runs import archive
from dfl.runs.checkpoint import read_checkpoint

DEEP = b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x01s."


def rebuilt(made: Path, change: Callable[[bytes], bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    """Return a copy of a torch file with another pickle."""
    torch.save({"state_dict": {"network.a": torch.ones(3)}}, made / "a.ckpt")
    with zipfile.ZipFile(made / "a.ckpt") as old, zipfile.ZipFile(made / "x.ckpt", "w") as new:
        for part in old.infolist():
            of_pickle = part.filename.endswith("data.pkl")
            content = change(old.read(part)) if of_pickle else old.read(part)
            new.writestr(part.filename, content, packed if of_pickle else zipfile.ZIP_STORED)
    return made / "x.ckpt"


@pytest.mark.parametrize(
    ("change", "packed", "says"),
    [
        (lambda content: content + bytes(10**7), zipfile.ZIP_DEFLATED, "is packed"),
        (lambda content: content, zipfile.ZIP_BZIP2, "is packed"),
        (lambda _: DEEP, zipfile.ZIP_STORED, "tuples more than 100 deep"),
        # through the memo, one in each of two
        (
            lambda _: b"\x80\x02}K\x01q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(5000)) + b"K\x01s.",
            zipfile.ZIP_STORED,
            "tuples more than 100 deep",
        ),
        (
            lambda _: b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x01\x85R.",
            zipfile.ZIP_STORED,
            "bytearray",
        ),
    ],
)
def test_what_would_take_memory_or_time_is_not_opened(
    change: Callable[[bytes], bytes], packed: int, says: str, tmp_path: Path
) -> None:
    path = rebuilt(tmp_path, change, packed)
    for read in (read_checkpoint, read_state):
        with pytest.raises(UserError, match=says):
            read(path)


def test_what_torch_writes_is_in_order(tmp_path: Path) -> None:
    network = torch.nn.LSTM(3, 4, 2)
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(2, 3))[0].sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5])
    whole = {
        "state_dict": network.state_dict(),
        "o": optimizer.state_dict(),
        "s": schedule.state_dict(),
        "n": [{1: (2,)}],
    }
    torch.save(whole, tmp_path / "a.ckpt")
    assert archive.wrong(tmp_path / "a.ckpt") is None
    assert read_checkpoint(tmp_path / "a.ckpt")["s"] == schedule.state_dict()


def test_a_stack_of_many_values_takes_no_longer(tmp_path: Path) -> None:
    """Quadratic, it would be minutes."""
    path = rebuilt(tmp_path, lambda _: b"\x80\x02" + b"K\x01" * 300_000 + b"(t0" * 300_000 + b".")
    assert archive.wrong(path) is None


def test_what_is_no_archive_is_left_to_torch(tmp_path: Path) -> None:
    for content in (b"", b"PK", pickle.dumps({"a": 1})):
        (tmp_path / "x").write_bytes(content)
        assert archive.wrong(tmp_path / "x") is None


def test_odd_contents_are_one_printable_line(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"x is damaged or not to be trusted: KeyError: 'a\\\\x1b'") as error,
        archive.distrusted("x"),
    ):
        raise KeyError("a\x1b")
    assert str(error.value).isprintable()
