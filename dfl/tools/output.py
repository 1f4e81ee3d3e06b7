"""A folder that a verb makes: it appears under its name when it is whole, and a run that was cut off goes on.

Until then the work lies beside it, in ``.NAME.partial``, with a record that says what is being made. A folder that
holds something else, or the same of other settings, is never written to.
"""

import hashlib
import importlib.metadata
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

import dfl
from dfl.errors import UserError
from dfl.runs.files import may_be_file, write

#: Packages whose version changes the bytes that are written.
WRITERS = ("pillow", "simplejpeg", "torch", "pyarrow", "numpy")


class Output:
    """A folder in the making.

    Args:
        folder: Its name in the end.
        verb: Who makes it; the record is ``<verb>.json``.
        settings: What it depends on, as JSON holds it: the same settings go on, others are refused.

    Raises:
        UserError: If the folder, or the work beside it, is of something else.
    """

    def __init__(self, folder: str, verb: str, settings: dict[str, Any]) -> None:
        self.folder, self.verb, self.settings = Path(folder).expanduser().absolute(), verb, settings
        #: Where the work is done.
        self.partial = self.folder.with_name(f".{self.folder.name}.partial")
        #: Whether the folder is there already, whole, of the same settings.
        self.done = self.folder.exists() and not _empty(self.folder)
        if self.done:
            self._same(self.folder)
            return
        if not _empty(self.partial):
            self._same(self.partial)
            return
        self.partial.mkdir(parents=True, exist_ok=True)
        self._write({"settings": settings})

    def _same(self, folder: Path) -> None:
        try:
            found = json.loads((folder / f"{self.verb}.json").read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} holds something else; give -o a new folder") from error
        for name in self.settings | found:
            old, new = found.get(name), self.settings.get(name)
            if old != new:
                what = f"{name} {old}, now {new}" if name != "rows" else "other images or other facts of them"
                raise UserError(f"{folder} was made with other settings ({what}); give -o a new folder, or remove it")

    def _write(self, record: dict[str, Any]) -> None:
        write(self.partial / f"{self.verb}.json", json.dumps(record, indent=1, ensure_ascii=False))

    def finish(self, **record: Any) -> None:
        """Write the record, and give the folder its name."""
        versions = {name: importlib.metadata.version(name) for name in WRITERS}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self._write(
            {"settings": self.settings, **record, "versions": {"dfl": dfl.__version__, **versions}, "date": when}
        )
        os.replace(self.partial, self.folder)


class BadImages:
    """Images that a verb cannot take: booked, and refused where they are more than a share of all.

    Args:
        n: Images in all.
        max_bad: Largest share of them that is put up with.
    """

    def __init__(self, n: int, max_bad: float) -> None:
        self.n, self.max_bad = n, max_bad
        self.images: list[tuple[str, str]] = []

    def add(self, path: str, reason: str) -> None:
        """Book an image.

        Raises:
            UserError: If it is one too many.
        """
        self.images.append((path, reason))
        if len(self.images) > self.max_bad * self.n:
            raise UserError(
                f"{len(self.images)} of {self.n} images must be left out, more than max_bad={self.max_bad:g} allows; "
                f"the last one is {path}: {reason}"
            )

    def in_words(self) -> str:
        """Return how many there are, and the first; '' for none."""
        if not self.images:
            return ""
        path, reason = self.images[0]
        return f"; {len(self.images):,} left out, such as {path}: {reason}"


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


def fingerprint(table: pa.Table) -> str:
    """Return the SHA-256 of all cells of a table, whatever its chunks."""
    digest = hashlib.sha256("\x1f".join(table.column_names).encode())
    for batch in table.to_batches(max_chunksize=65_536):
        lines = pc.binary_join_element_wise(*[column.cast(pa.string()) for column in batch.columns], "\x1f")
        digest.update("".join(f"{line}\x1e" for line in lines.to_pylist()).encode())
    return digest.hexdigest()


def _empty(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
