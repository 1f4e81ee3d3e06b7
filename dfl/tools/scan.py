"""``dfl data scan``: one pass over all images, and a table of what they are.

Cut off at any moment, the same command goes on: parts lie beside the output until they are all there, and then become
it in one step. Run again later, only files whose size or time changed are read. Order and bytes of the table depend on
the rows alone, never on the number of processes.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data.locators import split
from dfl.data.mask_sets import rule_of, with_mask_rules
from dfl.data.workers import Workers, making
from dfl.errors import UserError, visible
from dfl.runs.files import whole
from dfl.tools.facts import FACTS, SCAN_SCHEMA, measure, need_imagehash, stamp
from dfl.tools.given import open_sources, rows
from dfl.tools.output import parquet_file

#: Rows of a part: what is lost at most when the scan is cut off.
PART = 2048


def scan(
    sources: list[str],
    output: str = "table.parquet",
    root: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Write a table of all images: what their sources know, their size, format and hashes, and what cannot be read.

    Args:
        sources: Data configs, folders, tables.
        output: The table, a Parquet file; read by ``Table`` like any other.
        root: Folder that replaces the root of every source of the configs.
        workers: Processes; by default one for each core.
        progress: Show a progress bar.

    Returns:
        The file.

    Raises:
        UserError: If a source gives no row, or the output cannot be written.
    """
    need_imagehash()
    file = parquet_file(output)
    scanned(rows(open_sources(sources, root)), file, workers, progress)
    errors = pq.read_table(file, columns=["path", "error", "mask_error"])
    print(f"{len(errors):,} images in {file}")
    for column, what in (("error", "cannot be read"), ("mask_error", "have a mask that cannot be used")):
        bad = errors.filter(pc.not_equal(errors[column], ""))
        if len(bad):
            print(visible(f"{len(bad):,} {what}, such as {bad['path'][0]}: {bad[column][0]}"))
    for name, why in unclear(pq.read_table(file, columns=["set", "label", "mask_values"])).items():
        print(f"masks of {name}: {why}")
    return file


def unclear(table: pa.Table) -> dict[str, str]:
    """Return of each set of a scan whose masks can be read in more than one way, why."""
    found: dict[str, str] = {}
    masked = table.filter(pc.not_equal(table["mask_values"], ""))
    for name in masked["set"].unique().to_pylist():
        one = masked.filter(pc.equal(masked["set"], name))
        fakes = one.filter(pc.equal(one["label"], 1))
        try:
            rule_of((fakes if len(fakes) else one)["mask_values"].to_pylist())
        except UserError as error:
            found[name] = str(error)
    return found


def scanned(table: pa.Table, file: Path, workers: int | None = None, progress: bool = True) -> None:
    """Measure the images of a table of rows and write the table of ``SCAN_SCHEMA``; see ``scan``."""
    with making("the scan", file):
        parts = file.with_name(f".{file.name}.parts")
        parts.mkdir(parents=True, exist_ok=True)
        old = _old(file, parts)
        starts, rules = range(0, len(table), PART), read_by(table)
        with Workers(len(table), "scan", workers, progress) as pool:
            for i, start in enumerate(starts):
                piece = table.slice(start, PART)
                facts = _facts_of(piece, rules[start : start + PART], old, pool)
                with whole(parts / f"{i:07d}.parquet", sync=False) as partial:
                    pq.write_table(_joined(piece, facts), partial)
        with whole(file) as partial, pq.ParquetWriter(partial, SCAN_SCHEMA) as writer:
            for i in range(len(starts)):
                writer.write_table(pq.read_table(parts / f"{i:07d}.parquet"))
        shutil.rmtree(parts)


def _old(file: Path, parts: Path) -> pa.Table | None:
    """Return what earlier scans measured: the finished table and the parts of one that was cut off."""
    found = []
    for path in [file, *sorted(parts.glob("*.parquet"))]:
        try:
            table = pq.read_table(path) if path.is_file() else None
        except (pa.ArrowInvalid, OSError):
            continue  # cut while it was written: measured again
        if table is not None and table.schema.names == SCAN_SCHEMA.names:
            found.append(table.select(["path", "mask", "mask_rule", "bits", *FACTS.names]))
    return pa.concat_tables(found[::-1]) if found else None


def read_by(table: pa.Table) -> np.ndarray:
    """Return the rule that each row's mask is read by; sets that leave it open are for ``check`` to tell of."""
    rules, sets = (np.array(table[name].to_pylist(), object) for name in ("mask_rule", "set"))
    for name in dict.fromkeys(sets):
        with suppress(UserError):
            rules[sets == name] = with_mask_rules(table.filter(pa.array(sets == name)), name)["mask_rule"].to_pylist()
    return rules


def _facts_of(piece: pa.Table, rules: np.ndarray, old: pa.Table | None, pool: Workers) -> list[Any]:
    """Return the facts of each row, those of unchanged files from an earlier scan."""
    known: list[dict[str, Any] | None] = [None] * len(piece)
    if old is not None:
        where = pc.index_in(piece["path"], value_set=old["path"])
        known = [row if row["path"] is not None else None for row in old.take(where).to_pylist()]
    tasks = []
    asked = piece.select(["path", "mask", "mask_rule", "bits"]).to_pylist()
    for row, by, before in zip(asked, rules, known, strict=True):
        same = before is not None and all(before[name] == row[name] for name in row)
        stamps = (before["bytes"], before["mtime"]) if before and same else (-1, -1)
        tasks.append((row["path"], row["mask"], row["mask_rule"], by, row["bits"], *stamps))
    return [before if fact is None else fact for fact, before in zip(pool.map(_measured, tasks), known, strict=True)]


def _measured(task: tuple[str, str, str, str, int, int, int]) -> dict[str, Any] | None:
    """Measure an image by path, mask, rules, and the size and time that are known; None for a file as it was."""
    path, mask, rule, by, bits, size, mtime = task
    found = stamp(path)
    unchanged = mtime >= 0 and found[1] == mtime and (size == found[0] or split(path)[1])
    return None if unchanged else measure(path, mask, rule, by, bits)


def _joined(piece: pa.Table, facts: list[dict[str, Any]]) -> pa.Table:
    columns = {name: piece[name] for name in piece.column_names}
    for field in FACTS:
        columns[field.name] = pa.array([fact[field.name] for fact in facts], field.type)
    return pa.table(columns, schema=SCAN_SCHEMA)
