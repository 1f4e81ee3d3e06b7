"""How well the files of a domain tell the label without a pixel: the leak score beside every number of a domain."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dfl.benchmark.entries import Images
from dfl.data.decoding import DecodeError
from dfl.data.locators import read_bytes
from dfl.errors import UserError
from dfl.runs.files import write
from dfl.tools.file_facts import FACTS, header
from dfl.tools.leak import MOST_ROWS, leak


def leaks(images: Images, folder: Path, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return the AUROC with its interval by clue, see `dfl.tools.leak.leak`; nothing where the files are not there.

    Args:
        images: Of a domain, as it is stored.
        folder: Where results are kept, by the hash of the data; the files are read once.
        seed: Of the draw of images, and of the forest.
    """
    data = images.facts.get("data")
    kept = folder / f"{data}-{seed}.json" if data else None
    if kept and kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    rows = np.arange(len(images))
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST_ROWS, replace=False))
    if not any(map(_facts, images.paths(rows[:: max(1, len(rows) // 20)]))):
        return {}
    facts = [_facts(path) for path in images.paths(rows)]
    if sum(1 for one in facts if one) < 0.99 * len(facts) or not len(facts):
        return {}
    columns = {field.name: pa.array([(one or {"error": "absent"}).get(field.name) for one in facts]) for field in FACTS}
    filled = {name: _filled(column, FACTS.field(name).type) for name, column in columns.items()}
    filled |= {name: pa.array(images.text(name)[rows].tolist(), pa.string()) for name in ("video", "source")}
    filled |= {"identity": pa.array([""] * len(rows)), "label": pa.array(images.label[rows], pa.int8())}
    found = {
        clue: {"value": one.auroc, "low": one.low, "high": one.high}
        for clue, one in leak(pa.table(filled), seed).items()
        if not math.isnan(one.auroc)
    }
    if kept:
        write(kept, json.dumps(found, indent=1))
    return found


def _facts(path: str) -> dict[str, Any] | None:
    """Return what the file says of an image, without decoding it; None where it is not there."""
    try:
        content = read_bytes(path)
    except (DecodeError, UserError, OSError):
        return None
    return {"bytes": len(content), "error": "", **header(content)}


def _filled(column: pa.Array, kind: pa.DataType) -> pa.Array:
    return column.cast(kind).fill_null("" if pa.types.is_string(kind) else -1)
