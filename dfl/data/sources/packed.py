"""A set that ``dfl data pack`` wrote: a folder of shards."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfl.data.sources.base import ROW_SCHEMA, Splittable, part, put
from dfl.errors import UserError, first_line

INDEX, RECORD = "index.parquet", "pack.json"


class Packed(Splittable):
    """Shards with the images inside, memory-mapped: any image at any time, so a resume is as exact as with files.

    Args:
        root: The folder that ``dfl data pack`` wrote.
    """

    get = "make it with `dfl data pack`, or set root"

    def items(self, split: str) -> pa.Table:
        folder, record = self.root, self._record()
        for one in record["shards"]:
            shard = folder / one["file"]
            size = shard.stat().st_size if shard.is_file() else -1
            if size != one["bytes"]:
                state = f"has {size:,} bytes" if size >= 0 else "is not there"
                raise UserError(f"Packed: {shard} {state}, expected {one['bytes']:,} bytes; copy the set again")
        try:
            table = pq.read_table(folder / INDEX)
        except (OSError, pa.ArrowException) as e:
            raise UserError(f"Packed: cannot read {folder / INDEX}: {first_line(e)}; copy it again") from e
        if "bits" not in table.column_names:  # packed before there were any
            table = table.append_column("bits", pa.array([-1] * len(table), pa.int8()))
        table = table.select(ROW_SCHEMA.names)
        for i, name in enumerate(table.column_names):
            if name in ("path", "mask"):
                below = pc.binary_join_element_wise(str(folder), table[name], "/")
                table = table.set_column(i, name, pc.if_else(pc.equal(table[name], ""), "", below))
        rule = pc.if_else(pc.equal(table["mask"], ""), "", "max")  # pack wrote them so
        table = put(table, "mask_rule", rule)
        if self.fractions is not None:
            return part(table, split, self.fractions, self.seed)
        has_split = pc.any(pc.not_equal(table["split"], "")).as_py()
        return table.filter(pc.equal(table["split"], split)) if has_split else table

    def _record(self) -> dict[str, Any]:
        """Return the record of a finished set.

        Raises:
            UserError: If there is none.
        """
        file = self.root / RECORD
        if not file.is_file():
            raise self.missing("packed set (pack.json)", self.root)
        try:
            record: dict[str, Any] = json.loads(file.read_bytes())
            for one in [record["index"], *record["shards"]]:
                if Path(one["file"]).name != one["file"] or not isinstance(one["bytes"], int) or not one["sha256"]:
                    raise ValueError("a file without a plain name, its bytes and its sha256")
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"Packed: {file} is no record of a finished packed set ({e}); pack or copy it again") from e
        return record
