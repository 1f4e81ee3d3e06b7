"""What the verbs on data sets share: options, processes, images that are left out, tables that are written."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data import csv_files
from dfl.data.locators import all_below
from dfl.data.sources.base import put
from dfl.errors import UserError
from dfl.runs.files import may_be_file, whole, write
from dfl.runs.workers import Workers


class Common(TypedDict, total=False):
    """Options of every verb.

    Args:
        root: Folder that replaces the root of every source of the configs.
        workers: Processes; by default one for each core.
        progress: Show a progress bar.
    """

    root: str | None
    workers: int | None
    progress: bool


def processes(n: int, what: str, common: Common) -> Workers:
    """Return the processes of a verb, for n items."""
    return Workers(n, what, common.get("workers"), common.get("progress", True))


class BadImages:
    """Counts images that a verb cannot take, and raises where they are more than a share of all.

    Args:
        n: Images in all.
        option: Name of the option that sets the share.
        share: Largest share of them that is accepted.
    """

    def __init__(self, n: int, option: str, share: float) -> None:
        self.n, self.option, self.share = n, option, share
        self.images: list[tuple[str, str]] = []

    def add(self, path: str, reason: str) -> None:
        """Count an image.

        Raises:
            UserError: If it is one too many.
        """
        self.images.append((path, reason))
        if len(self.images) > self.share * self.n:
            raise UserError(
                f"{len(self.images)} of {self.n} images must be left out, more than {self.option}={self.share:g} "
                f"allows; the last one is {path}: {reason}"
            )

    def __str__(self) -> str:
        """Return how many there are, and the first."""
        path, reason = self.images[0] if self.images else ("", "")
        return f"{len(self.images):,} left out" + (f", such as {path}: {reason}" if self.images else "")


def parquet_file(output: str) -> Path:
    """Return the path of a table that a verb writes.

    Raises:
        UserError: If it does not end in .parquet, which no source would read, or is something else already.
    """
    file = Path(output).expanduser()
    if file.suffix.lower() != ".parquet":
        raise UserError(f"--output is {output!r}; the table is a Parquet file: give it a name that ends in .parquet")
    may_be_file(file)
    return file


def list_missing(missing: Mapping[str, str], n: int, file: Path, what: str, option: str, share: float) -> None:
    """List the images that are not in a table beside it (``.missing.csv``), and print how many; no list for none.

    Args:
        missing: Reasons by path.
        n: Images in all.
        file: The table.
        what: It has of each image, such as ``face``.
        option: Name of the option that sets the share.
        share: Largest share of missing images that is accepted.

    Raises:
        UserError: If there are more.
    """
    beside = file.with_suffix(".missing.csv")
    if not missing:
        beside.unlink(missing_ok=True)
        return
    write(beside, csv_files.whole(["path", "reason"], ({"path": p, "reason": r} for p, r in missing.items())))
    why = ", ".join(f"{count:,} {reason}" for reason, count in Counter(missing.values()).most_common(3))
    summary = f"{len(missing):,} of {n:,} images gave no {what} ({why}), listed in {beside}"
    if len(missing) > share * n:
        raise UserError(f"{summary}; --{option} allows {share:.0%}")
    print(summary)


def findable(table: pa.Table, file: Path) -> pa.Table:
    """Return rows whose files are found from a table that is written to a file: it may lie in another folder."""
    here = Path.cwd()
    if file.absolute().parent == here:
        return table
    for name in ("path", "mask"):
        table = put(table, name, all_below(here, table[name]))
    return table


def write_parquet(file: Path, table: pa.Table, sync: bool = True) -> None:
    """Write a table whole or not at all; errors are those of `dfl.runs.files.whole`."""
    with whole(file, sync) as partial:
        pq.write_table(table, partial)


def fingerprint(table: pa.Table) -> str:
    """Return the SHA-256 of all cells of a table, whatever its chunks."""
    digest = hashlib.sha256("\x1f".join(table.column_names).encode())
    for batch in table.to_batches(max_chunksize=65_536):
        lines = pc.binary_join_element_wise(*[column.cast(pa.string()) for column in batch.columns], "\x1f")
        digest.update("".join(f"{line}\x1e" for line in lines.to_pylist()).encode())
    return digest.hexdigest()
