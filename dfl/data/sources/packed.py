"""A set that ``dfl data pack`` wrote: a folder of shards, or its copy anywhere that pyarrow reaches."""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from dfl.data.sources.base import ROW_SCHEMA, Source, part
from dfl.errors import UserError

INDEX, RECORD = "index.parquet", "pack.json"
#: What the cache knows of its files: name -> [sha256, bytes, mtime in ns] at the time they were checked.
CHECKED = "checked.json"
#: Shards that are copied at once.
THREADS = 4


class Packed(Source):
    """Shards with the images inside, memory-mapped: any image at any time, so a resume is as exact as with files.

    A set at a URL, or on a slow disk, is copied to ``cache`` once for each node before the run starts. Every copy is
    checked by its SHA-256; one that is broken or was changed is fetched again.

    Args:
        root: The folder that ``dfl data pack`` wrote, or a URL of it that pyarrow knows: ``s3://``, ``gs://``,
            ``hdfs://``, ``file://``. Keys and regions are taken from the environment, or from the URL, as pyarrow
            documents it. Nothing is sent there.
        cache: Folder on this node that holds the copies; a folder as ``root`` needs none.
        fractions: Share of train, val and test where the set has no splits; None puts all images in every split.
        seed: Seed of the split by fraction.
        limit: At most so many images, in all splits or by split.
        limit_seed: Seed of that draw.
    """

    get = "make it with `dfl data pack`, or set root"
    mask_convention = "255 = manipulated"

    def __init__(
        self,
        root: str,
        cache: str | None = None,
        fractions: dict[str, float] | None = None,
        seed: int = 0,
        limit: int | dict[str, int] | None = None,
        limit_seed: int = 0,
    ) -> None:
        super().__init__(limit, limit_seed)
        remote = "://" in root
        if remote and cache is None:
            raise UserError(f"Packed: {root} is a URL: set cache to a folder on this machine for the copies")
        self.root: Path | str = root.rstrip("/") if remote else Path(root).expanduser()
        self.cache = Path(cache).expanduser() if cache is not None else None
        self.fractions, self.seed = fractions, seed

    @property
    def folder(self) -> Path:
        """Where the shards are read: the root, or the copy of it in the cache."""
        if self.cache is None:
            return Path(self.root)
        place = self.root if isinstance(self.root, str) else self.root.absolute().as_uri()
        name = place.partition("?")[0].rsplit("/", 1)[-1]  # what follows ? may be a key
        return self.cache / f"{name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"

    def prepare(self) -> None:
        """Copy what the cache lacks; called once on each node.

        Raises:
            UserError: If the place cannot be reached, holds no packed set, or gives broken files.
        """
        if self.cache is None:
            return
        try:
            self._copy()
        except (OSError, pa.ArrowException) as e:
            reason = " ".join(str(e).split())
            raise UserError(f"Packed: cannot copy {self._said} to {self.folder}: {reason}") from e

    def items(self, split: str) -> pa.Table:
        """Return the rows of a split."""
        folder, record = self.folder, self._record()
        for one in record["shards"]:
            shard = folder / one["file"]
            size = shard.stat().st_size if shard.is_file() else -1
            if size != one["bytes"]:
                found = f"has {size:,} bytes" if size >= 0 else "is not there"
                raise UserError(f"Packed: {shard} {found}, expected {one['bytes']:,} bytes; copy the set again")
        try:
            table = pq.read_table(folder / INDEX, columns=ROW_SCHEMA.names)
        except (OSError, pa.ArrowException) as e:
            raise UserError(f"Packed: cannot read {folder / INDEX}: {str(e).splitlines()[0]}; copy it again") from e
        for i, name in enumerate(table.column_names):
            if name in ("path", "mask"):
                below = pc.binary_join_element_wise(str(folder), table[name], "/")
                table = table.set_column(i, name, pc.if_else(pc.equal(table[name], ""), "", below))
        if self.fractions is not None:
            return part(table, split, self.fractions, self.seed)
        has_split = pc.any(pc.not_equal(table["split"], "")).as_py()
        return table.filter(pc.equal(table["split"], split)) if has_split else table

    @property
    def _said(self) -> str:
        """The root as it may be shown: a URL without what may be a key."""
        place = str(self.root).partition("?")[0]
        head, at, tail = place.rpartition("@")
        return f"{head.partition('://')[0]}://{tail}" if at and "://" in head else place

    def __repr__(self) -> str:
        return f"Packed({self._said})"

    def _record(self) -> dict[str, Any]:
        file = self.folder / RECORD
        if not file.is_file():
            raise self.missing("packed set (pack.json)", self.folder)
        return _parsed(file.read_bytes(), str(file))

    def _copy(self) -> None:
        place = self.root if isinstance(self.root, str) else self.root.absolute().as_uri()
        files, base = pyarrow.fs.FileSystem.from_uri(place)
        if files.get_file_info(f"{base}/{RECORD}").type == pyarrow.fs.FileType.NotFound:
            raise (
                self.missing("packed set (pack.json)", self._said)
                if isinstance(self.root, Path)
                else UserError(f"Packed: no pack.json at {self._said}; {self.get}")
            )
        with files.open_input_stream(f"{base}/{RECORD}") as stream:
            content = stream.read()
        record = _parsed(content, f"{self._said}/{RECORD}")
        folder = self.folder
        folder.mkdir(parents=True, exist_ok=True)
        checked = _checked(folder)
        wanted = [one for one in [record["index"], *record["shards"]] if not _good(folder, one, checked)]
        if wanted:
            size = sum(one["bytes"] for one in wanted)
            free = shutil.disk_usage(folder).free
            if size > free:
                raise UserError(
                    f"Packed: {size / 1e9:.1f} GB are to be copied to {folder}, where {free / 1e9:.1f} are free"
                )
            print(f"Packed: copying {len(wanted)} files, {size / 1e6:,.1f} MB, from {self._said} to {folder}")
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(lambda one: _fetch(files, base, folder, one), wanted))
        for one in [record["index"], *record["shards"]]:
            found = (folder / one["file"]).stat()
            checked[one["file"]] = [one["sha256"], found.st_size, found.st_mtime_ns]
        _replace(folder / CHECKED, json.dumps(checked).encode())
        _replace(folder / RECORD, content)  # last: what it names is there


def _parsed(content: bytes, where: str) -> dict[str, Any]:
    """Return the record of a finished set.

    Raises:
        UserError: If it is none.
    """
    try:
        record: dict[str, Any] = json.loads(content)
        for one in [record["index"], *record["shards"]]:
            if os.path.basename(one["file"]) != one["file"] or not isinstance(one["bytes"], int) or not one["sha256"]:
                raise ValueError("a file without a plain name, its bytes and its sha256")
    except (ValueError, KeyError, TypeError) as e:
        raise UserError(f"Packed: {where} is no record of a finished packed set ({e}); pack or copy it again") from e
    return record


def _checked(folder: Path) -> dict[str, list[Any]]:
    try:
        found: dict[str, list[Any]] = json.loads((folder / CHECKED).read_text())
        return found
    except (OSError, ValueError):
        return {}


def _good(folder: Path, one: dict[str, Any], checked: dict[str, list[Any]]) -> bool:
    """Whether a file of the cache is the one that is wanted; it is read only if it changed since it was checked."""
    file = folder / one["file"]
    if not file.is_file() or file.stat().st_size != one["bytes"]:
        return False
    if checked.get(one["file"]) == [one["sha256"], one["bytes"], file.stat().st_mtime_ns]:
        return True
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == one["sha256"]


def _fetch(files: pyarrow.fs.FileSystem, base: str, folder: Path, one: dict[str, Any]) -> None:
    """Copy one file, once more if the copy is broken.

    Raises:
        UserError: If it is broken both times.
    """
    partial = folder / f".{one['file']}.{os.getpid()}.tmp"
    try:
        for _ in range(2):
            digest = hashlib.sha256()
            with files.open_input_stream(f"{base}/{one['file']}") as source, open(partial, "wb") as copy:
                while chunk := source.read(1 << 22):
                    digest.update(chunk)
                    copy.write(chunk)
            if digest.hexdigest() == one["sha256"]:
                os.replace(partial, folder / one["file"])
                return
    finally:
        partial.unlink(missing_ok=True)
    raise UserError(
        f"Packed: {one['file']} came twice with other bytes than its record says ({one['sha256'][:12]}...); "
        "the set there is damaged: pack or upload it again"
    )


def _replace(file: Path, content: bytes) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    partial.write_bytes(content)
    os.replace(partial, file)
