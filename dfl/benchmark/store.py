"""The predictions store: one Parquet file for each detector, domain and variant, keyed by what decides its scores.

The key is a hash of the weights, of the transform with the view, and of the data. So a method or a domain that is added
computes only what is new, and a file is never mistaken for another one: other weights, another crop or a changed image
make another key. Files are whole or not there (`dfl.runs.files`), so two processes may share a store.

Every metric can be computed from these files alone. They hold no date, so the same work gives the same bytes.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfl.data.locators import split as split_locator
from dfl.data.rows import common_folder
from dfl.data.sources.base import DEGRADATION
from dfl.errors import UserError, first_line
from dfl.runs.files import whole

#: Columns of every file, and those that detectors with maps add.
COLUMNS = pa.schema(
    [
        ("path", pa.string()),
        ("domain", pa.dictionary(pa.int32(), pa.string())),  # one name, so it takes no room; the facts have it too
        ("label", pa.int8()),  # 0 real, 1 fake
        ("score", pa.float32()),  # probability of fake
        ("logit", pa.float32()),  # its log-odds, which still rank what rounds to a score of 1
        ("video", pa.string()),
        ("group", pa.string()),
        ("generator", pa.string()),
        ("source", pa.string()),  # original that it was made from
    ]
)
MAP_COLUMNS = ("iou", "pbca", "f1", "pixel_ap", "fpa", "area")  # area: share of a fake that is manipulated
#: Maps of the most wrong images as PNG, null of all others; of detectors with maps, as stored.
MAP = "map"
#: Rows of a file that are read at once.
PART = 1 << 20
#: Key of the file's metadata that holds the facts, as JSON.
FACTS = b"dfl"
#: Columns of a source's rows that decide what is measured.
_OF_ROWS = ("label", "class_label", "mask_rule", "generator", "group", "video", "source", "bits", DEGRADATION.name)


def digest(*parts: Any) -> str:
    """Return the hash of plain values, 32 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def data_hash(table: pa.Table, rows_sha256: str) -> str:
    """Return the hash of a domain: its list, what is known of each image, and the sizes of its files.

    An image that is changed nearly always changes its size; its time is not taken, since a copy has another one.

    Args:
        table: Rows of a source.
        rows_sha256: Hash of its paths and labels, `dfl.data.rows.Rows.sha256`.
    """
    total = hashlib.sha256(rows_sha256.encode())
    for name in (one for one in _OF_ROWS if one in table.column_names):
        total.update("\x1f".join(map(str, table[name].to_pylist())).encode("utf-8", "replace") + b"\x1e")
    masks = [str(mask) for mask in table["mask"].to_pylist()]
    start = len(common_folder(pa.array(filter(None, masks), pa.string())))
    below = [mask[start:] for mask in masks]
    total.update("\x1f".join(below).encode("utf-8", "replace") + b"\x1e")
    files = dict.fromkeys(split_locator(str(path))[0] for path in (*table["path"].to_pylist(), *masks))
    total.update(np.array([_size(file) for file in files], np.int64).tobytes())
    return total.hexdigest()[:32]


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size
    except (OSError, ValueError):  # polygons are no file
        return -1


class Predictions:
    """A file of the store; columns are read when they are asked for.

    Args:
        file: Parquet.

    Raises:
        UserError: If it is no file of a store.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            schema = pq.read_schema(file)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"cannot read the predictions {file}: {first_line(error)}") from error
        facts = (schema.metadata or {}).get(FACTS)
        if facts is None or not {"path", "label", "score"} <= set(schema.names):
            raise UserError(f"{file} holds no predictions of dfl benchmark")
        self.facts: dict[str, Any] = json.loads(facts)
        self.names: list[str] = schema.names

    def column(self, name: str) -> pa.Array:
        """Return a column (n,).

        Raises:
            UserError: If the file is damaged.
        """
        try:
            return pq.read_table(self.file, columns=[name])[name].combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from error
        finally:
            pa.default_memory_pool().release_unused()

    def parts(self, name: str) -> Iterator[pa.Array]:
        """Yield a column, up to ``PART`` rows at once: that of millions of paths is large.

        Raises:
            UserError: If the file is damaged.
        """
        try:
            with pq.ParquetFile(self.file) as file:
                for place in range(file.num_row_groups):
                    yield file.read_row_group(place, columns=[name])[name].combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from error
        finally:
            pa.default_memory_pool().release_unused()

    def check(self) -> None:
        """Read all of the file.

        Raises:
            UserError: If it is damaged.
        """
        try:
            with pq.ParquetFile(self.file, page_checksum_verification=True) as file:
                for place in range(file.num_row_groups):
                    file.read_row_group(place)
        except (OSError, pa.ArrowException) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> UserError:
        return UserError(f"cannot read the predictions {self.file}: {first_line(error)}; remove it")


def place(folder: Path, method: str, seed: int, domain: str, variant: str, key: str) -> Path:
    """Return the file of a detector, domain and variant."""
    words = (method, f"s{seed}", domain, variant)
    safe = ["".join(c if c.isalnum() or c in "-_@+" else "_" for c in word) for word in words]
    return folder / f"{'--'.join(safe)}--{key}.parquet"


def find(file: Path, facts: Mapping[str, Any]) -> bool:
    """Tell whether a file is there; one of the same key under another name is copied under this one.

    Args:
        file: Of `place`.
        facts: What it is to say of itself; other names for the same scores are written down anew.
    """
    key = file.stem.rpartition("--")[2]
    for there in [file] if file.is_file() else sorted(file.parent.glob(f"*--{key}.parquet")):
        try:
            old = Predictions(there)
            old.check()
        except UserError:  # damaged since: computed again
            continue
        if not set(COLUMNS.names) <= {*old.names, "domain"}:  # by a version that wrote less; the domain is a fact too
            continue
        told = "domain" in old.names and all(old.facts.get(name) == value for name, value in facts.items())
        if there != file or not told:
            write(file, pq.read_table(there), {**old.facts, **facts})
        return True
    return False


def write(file: Path, table: pa.Table, facts: Mapping[str, Any]) -> None:
    """Write predictions whole or not at all; the same table and facts give the same bytes.

    Args:
        file: Of `place`.
        table: ``COLUMNS`` but the domain, and perhaps ``MAP_COLUMNS`` and ``MAP``.
        facts: What the file says of itself, ``domain`` among them.
    """
    domain = pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), [str(facts["domain"])])
    given = {name: table[name] for name in table.column_names} | {"domain": domain}
    columns = {field.name: given[field.name].cast(field.type) for field in COLUMNS}
    columns |= {name: given[name].cast(pa.float64()) for name in MAP_COLUMNS if name in given}
    columns |= {MAP: given[MAP]} if MAP in given else {}
    text = json.dumps(dict(facts), sort_keys=True, ensure_ascii=False)
    with whole(file) as partial:
        whole_table = pa.table(columns).replace_schema_metadata({FACTS: text.encode()})
        pq.write_table(whole_table, partial, row_group_size=PART, compression="zstd", write_page_checksum=True)
