"""Rows of one process on disk as they come, so that a killed `predict` goes on where it stopped.

A part begins with a line of facts: all that decides what is written. Then comes a line of JSON for each batch. What was
torn by the kill is cut off; a part of other facts begins anew.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from dfl.evaluation.rows import Row


class Batch(NamedTuple):
    """What a part holds of a batch, without its rows: its domain, what could not be read, where its line ends."""

    domain: str
    bad: list[tuple[str, str]]
    end: int


class Part:
    """The rows of one process; `found` are the batches that another run of the same facts has left."""

    def __init__(self, path: Path, facts: Mapping[str, Any] | None) -> None:
        self.path = path
        self._facts = json.dumps(facts, sort_keys=True, default=str) + "\n"
        self._file: IO[str] | None = None
        self.found: list[Batch] = [] if facts is None else list(self._left())

    def _left(self) -> Iterator[Batch]:
        if self.path.is_symlink() or not self.path.is_file():
            return
        with self.path.open("rb") as file:
            if file.readline() != self._facts.encode():
                return
            while (line := file.readline()).endswith(b"\n"):
                try:
                    batch = json.loads(line)
                except ValueError:
                    return
                yield Batch(batch["domain"], [(path, why) for path, why in batch["bad"]], file.tell())

    def begin(self, keep: int) -> None:
        """Open it behind the first batches that were found."""
        if keep:
            os.truncate(self.path, self.found[keep - 1].end)
        self._file = self.path.open("a" if keep else "w", encoding="utf-8")
        if not keep:
            self._file.write(self._facts)

    def add(self, domain: str, rows: list[Row], bad: list[tuple[str, str]]) -> None:
        """Write a batch; after a kill at any later moment it is there."""
        assert self._file is not None
        self._file.write(json.dumps({"domain": domain, "bad": bad, "rows": rows}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Write what is still in memory."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def rows(self) -> Iterator[Row]:
        """Yield all rows of the closed part."""
        with self.path.open(encoding="utf-8") as file:
            file.readline()
            for line in file:
                yield from json.loads(line)["rows"]

    def remove(self) -> None:
        """Close and delete it."""
        try:
            self.close()
        finally:
            self.path.unlink(missing_ok=True)
