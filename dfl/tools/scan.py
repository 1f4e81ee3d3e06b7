"""``dfl data scan``: one pass over all images, and a table of what they are.

Cut off at any moment, the same command goes on: parts lie beside the output until they are all there, and then become
it in one step. Run again later, only files whose size or time changed are read. Order and bytes of the table depend on
the rows alone, never on the number of processes.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data.locators import split
from dfl.data.mask_sets import rule_of, with_mask_rules
from dfl.errors import UserError, visible
from dfl.runs.files import claimed, whole
from dfl.runs.workers import Workers
from dfl.tools.common import Common, findable, parquet_file, processes, write_parquet
from dfl.tools.file_facts import FACTS, SCAN_SCHEMA, measure, need_imagehash, stamp
from dfl.tools.sources import read_rows

#: Rows of a part: what is lost at most when the scan is cut off.
PART = 2048


def scan(sources: list[str], output: str = "table.parquet", **common: Unpack[Common]) -> Path:
    """Write a table of all images: what their sources know, their size, format and hashes, and what cannot be read.

    Args:
        sources: Data configs, folders, tables.
        output: The table, a Parquet file; read by ``Table`` like any other.
        **common: Options of every verb.

    Returns:
        The file.

    Raises:
        UserError: If a source gives no row, or the output cannot be written.
    """
    need_imagehash()
    file = parquet_file(output)
    write_scan(findable(read_rows(sources, common.get("root")), file), file, common)
    table = pq.read_table(file, columns=["set", "label", "path", "mask_values", "error", "mask_error"])
    print(f"{len(table):,} images in {file}")
    for column, what in (("error", "cannot be read"), ("mask_error", "have a mask that cannot be used")):
        bad = table.filter(pc.not_equal(table[column], ""))
        if len(bad):
            print(visible(f"{len(bad):,} {what}, such as {bad['path'][0]}: {bad[column][0]}"))
    for name, why in ambiguous_masks(table).items():
        print(f"masks of {name}: {why}")
    return file


def ambiguous_masks(table: pa.Table) -> dict[str, str]:
    """Return of each set of a scan whose masks can be read in more than one way, why."""
    reasons: dict[str, str] = {}
    masked = table.filter(pc.not_equal(table["mask_values"], ""))
    for name in masked["set"].unique().to_pylist():
        one = masked.filter(pc.equal(masked["set"], name))
        fakes = one.filter(pc.equal(one["label"], 1))
        try:
            rule_of((fakes if len(fakes) else one)["mask_values"].to_pylist())
        except UserError as error:
            reasons[name] = str(error)
    return reasons


def write_scan(table: pa.Table, file: Path, common: Common) -> None:
    """Measure the images of a table of rows and write the table of ``SCAN_SCHEMA``; see ``scan``."""
    with claimed(file):
        parts = file.with_name(f".{file.name}.parts")
        parts.mkdir(parents=True, exist_ok=True)
        earlier, starts, rules = _earlier(file, parts), range(0, len(table), PART), mask_rules(table)
        with processes(len(table), "scan", common) as pool:
            for i, start in enumerate(starts):
                rows = table.slice(start, PART)
                facts = _facts(rows, rules[start : start + PART], earlier, pool)
                columns = {name: rows[name] for name in rows.column_names}
                columns |= {field.name: pa.array([one[field.name] for one in facts], field.type) for field in FACTS}
                write_parquet(parts / f"{i:07d}.parquet", pa.table(columns, schema=SCAN_SCHEMA), sync=False)
        with whole(file) as partial, pq.ParquetWriter(partial, SCAN_SCHEMA) as writer:
            for i in range(len(starts)):
                writer.write_table(pq.read_table(parts / f"{i:07d}.parquet"))
        shutil.rmtree(parts)


def mask_rules(table: pa.Table) -> np.ndarray:
    """Return the rule that each row's mask is read by; `ambiguous_masks` reports the sets that leave it open."""
    rules, sets = (np.array(table[name].to_pylist(), object) for name in ("mask_rule", "set"))
    for name in dict.fromkeys(sets):
        with suppress(UserError):
            rules[sets == name] = with_mask_rules(table.filter(pa.array(sets == name)), name)["mask_rule"].to_pylist()
    return rules


def _earlier(file: Path, parts: Path) -> pa.Table | None:
    """Return what earlier scans measured: the finished table and the parts of one that was cut off."""
    tables = []
    for path in [*sorted(parts.glob("*.parquet"), reverse=True), file]:
        with suppress(pa.ArrowInvalid, OSError):  # not there, or cut off while it was written
            table = pq.read_table(path)
            if table.schema.names == SCAN_SCHEMA.names:
                tables.append(table.select(["path", "mask", "mask_rule", "bits", *FACTS.names]))
    return pa.concat_tables(tables) if tables else None


def _facts(rows: pa.Table, rules: np.ndarray, earlier: pa.Table | None, pool: Workers) -> list[dict[str, Any]]:
    """Return the facts of each row, those of unchanged files from an earlier scan."""
    before: list[dict[str, Any]] = [{}] * len(rows)
    if earlier is not None:
        before = earlier.take(pc.index_in(rows["path"], value_set=earlier["path"])).to_pylist()
    jobs = []
    keys = rows.select(["path", "mask", "mask_rule", "bits"]).to_pylist()
    for row, rule, facts in zip(keys, rules, before, strict=True):
        same = all(facts.get(name) == row[name] for name in row)
        jobs.append((*row.values(), rule, *((facts["bytes"], facts["mtime"]) if same else (-1, -1))))
    return [new or facts for new, facts in zip(pool.map(_measured, jobs), before, strict=True)]


def _measured(job: tuple[str, str, str, int, str, int, int]) -> dict[str, Any] | None:
    """Measure an image, unless its file has the size and time of an earlier scan (-1: there was none)."""
    path, mask, row_rule, bits, rule, size, mtime = job
    size_now, mtime_now = stamp(path)
    if mtime >= 0 and mtime == mtime_now and (size == size_now or split(path)[1]):
        return None
    return measure(path, mask, row_rule, rule, bits)
