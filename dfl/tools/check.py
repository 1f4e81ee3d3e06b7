"""``dfl data check``: what is in data sets, and what is wrong with them, before anything is trained.

Counts; files that cannot be read; masks that do not fit or say nothing; copies within and across splits and sets;
identities on both sides; and whether the files themselves give the label away (``leak.py``). A table and a list of
problems in the terminal, the same as ``check.json``, a page with pictures as ``check.html``, and every copy by name in
``copies.csv``. The scan lies beside them, so a second check only reads what changed.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table as RichTable

from dfl.data import csv_files
from dfl.data.sources.base import TIES, put
from dfl.errors import UserError, visible
from dfl.runs.files import claimed, write
from dfl.terminal import console
from dfl.tools.check_page import page
from dfl.tools.common import Common
from dfl.tools.copies import Copies, find_copies
from dfl.tools.file_facts import SCAN_SCHEMA, need_imagehash
from dfl.tools.leak import Score, leak
from dfl.tools.problems import CLASSES, Problem, problems
from dfl.tools.scan import ambiguous_masks, mask_rules, write_scan
from dfl.tools.sources import read_rows

#: Columns whose values are counted by class.
COUNTED = ("set", "split", "generator", "family", "method", "group", "compression", "format", "mode", "quality", "size")
#: Pairs of copies of a kind that check.json shows.
MOST_PAIRS = 12
MARKS = {"error": "✗", "warning": "!", "note": "·", "fine": "✓"}


def check(
    sources: list[str],
    output: str = "check",
    distance: int = 4,
    strict: bool = False,
    **common: Unpack[Common],
) -> Path:
    """Look for what is wrong in data sets, and write it down.

    Args:
        sources: Data configs, folders, tables; a table that ``dfl data scan`` wrote is taken as it is.
        output: The folder for check.html, check.json, copies.csv and the scan.
        distance: Bits of 64 by which the perceptual hashes of near copies differ at most, 0 to 16.
        strict: End with an error if anything is wrong, for use in scripts.
        **common: Options of every verb.

    Returns:
        The page.

    Raises:
        UserError: If a source gives no row, the output cannot be written, or ``strict`` finds an error.
    """
    if not 0 <= distance <= 16:
        raise UserError(f"--distance is {distance}; perceptual hashes have 64 bits: take 0 to 16")
    need_imagehash()
    folder = Path(output).expanduser()
    with claimed(folder, inside=True):
        table = _scan_of(sources, folder, common)
        findings, copies = examine(table, distance)
        write(folder / "check.json", json.dumps(_plain(findings), indent=1, allow_nan=False))
        write(folder / "copies.csv", csv_files.whole(copies.column_names, copies.to_pylist()))
        write(folder / "check.html", page(table, findings))
    _print(findings, folder)
    errors = [p for p in findings["problems"] if p.severity == "error"]
    if strict and errors:
        raise UserError(f"{len(errors)} thing{'s' * (len(errors) > 1)} wrong, the first: {errors[0].text}")
    return folder / "check.html"


def _scan_of(sources: list[str], folder: Path, common: Common) -> pa.Table:
    """Return the scan of all sources; tables that are scans already are not scanned again."""
    scans = [file for word in sources if (file := Path(word).expanduser()) and _is_scan(file)]
    others = [word for word in sources if Path(word).expanduser() not in scans]
    if others:
        write_scan(read_rows(others, common.get("root")), folder / "scan.parquet", common)
        scans.append(folder / "scan.parquet")
    table = pa.concat_tables([pq.read_table(file) for file in scans])
    if not len(table):
        raise UserError(f"{', '.join(sources)}: no image to check")
    width, height = (table[name].cast(pa.string()) for name in ("width", "height"))
    size = pc.if_else(pc.less(table["width"], 0), "", pc.binary_join_element_wise(width, height, "x"))
    return put(put(table, "mask_rule", pa.array(mask_rules(table), pa.string())), "size", size)


def _is_scan(path: Path) -> bool:
    try:
        return path.suffix.lower() == ".parquet" and path.is_file() and pq.read_schema(path).names == SCAN_SCHEMA.names
    except (OSError, pa.ArrowException):  # the source that reads it says what is wrong
        return False


def examine(table: pa.Table, distance: int = 4) -> tuple[dict[str, Any], pa.Table]:
    """Collect the findings about a scanned table.

    Args:
        table: Columns of a scan, and ``size``.
        distance: Bits by which the perceptual hashes of near copies differ at most.

    Returns:
        All findings by name, with ``problems``; and the table of copies.
    """
    names = pc.binary_join_element_wise(
        table["set"], pc.if_else(pc.equal(table["split"], ""), "all", table["split"]), "/"
    )
    encoded = names.combine_chunks().dictionary_encode()
    place, places = encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
    same = find_copies(table["sha256"], place, len(places))
    near = find_copies(table["phash"], place, len(places), distance)
    # an unreadable file may be the same as another, and is near to none
    readable = find_copies(pc.if_else(pc.equal(table["phash"], ""), "", table["sha256"]), place, len(places))
    label, share = table["label"].to_numpy(), table["mask_share"].to_numpy()
    sets = table["set"].unique().to_pylist()
    parts = {name: table.filter(pc.equal(table["set"], name)) for name in sets} if len(sets) > 1 else {}
    findings: dict[str, Any] = {
        "images": len(table),
        "counts": {name: counts for name in COUNTED if (counts := _counts(table, name))},
        "places": {
            name: {word: int(((place == i) & (label == value)).sum()) for value, word in CLASSES.items()}
            for i, name in enumerate(places)
        },
        "unreadable": _reasons(table, "error"),
        "unclear masks": ambiguous_masks(table),
        "masks": {
            "unusable": _reasons(table, "mask_error"),
            "with": int(pc.sum(pc.not_equal(table["mask"], "")).as_py() or 0),
            "empty on fakes": _paths(table, (label == 1) & (share == 0)),
            "full": _paths(table, share == 1),
            "not empty on real images": _paths(table, (label == 0) & (share > 0)),
        },
        "copies": {
            "places": places,
            "compared": {
                what: int(pc.sum(pc.not_equal(table[column], "")).as_py())
                for what, column in (("the same file", "sha256"), ("a near copy", "phash"))
            },
            "distance": distance,
            "exact": same.among.tolist(),
            "near": near.among.tolist(),
            "near, not the same file": (near.among - readable.among).tolist(),
            "both labels": _both_labels(table, same),
            "pairs": {"exact": _pairs(table, same, places, place), "near": _pairs(table, near, places, place)},
            "cut": near.truncated,
        },
        "ties": _ties(table),
        "leak": {name: leak(part) for name, part in ({"all": table} | parts).items()},
    }
    findings["problems"] = list(problems(findings))
    clusters = {"same_file": pa.array(same.cluster), "near": pa.array(near.cluster)}
    copies = pa.table(clusters | {name: table[name] for name in ("set", "split", "label", "path")})
    copies = copies.filter(pa.array((same.cluster >= 0) | (near.cluster >= 0)))
    return findings, copies.sort_by([("near", "ascending"), ("same_file", "ascending"), ("path", "ascending")])


def _counts(table: pa.Table, column: str) -> dict[str, dict[str, int]]:
    """Count the values of a column by class, most frequent first; nothing for a column that is absent everywhere."""
    both = pa.table({"value": table[column].cast(pa.string()), "label": table["label"]})
    counts: dict[str, dict[str, int]] = {}
    for row in both.group_by(["value", "label"]).aggregate([([], "count_all")]).to_pylist():
        value = "" if row["value"] == "-1" and column == "quality" else row["value"]
        counts.setdefault(value, dict.fromkeys(CLASSES.values(), 0))[CLASSES[row["label"]]] += row["count_all"]
    if set(counts) <= {""}:
        return {}
    return dict(sorted(counts.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def _reasons(table: pa.Table, column: str) -> dict[str, str]:
    bad = table.filter(pc.not_equal(table[column], ""))
    return dict(zip(bad["path"].to_pylist(), bad[column].to_pylist(), strict=True))


def _paths(table: pa.Table, where: np.ndarray) -> list[str]:
    paths: list[str] = table["path"].filter(pa.array(where)).to_pylist()
    return paths


def _both_labels(table: pa.Table, same: Copies) -> list[str]:
    """Return the paths of files that are real in one row and fake in another."""
    label, copied = table["label"].to_numpy(), same.cluster >= 0
    real, fake = (same.cluster[copied & (label == value)] for value in (0, 1))
    return _paths(table, copied & np.isin(same.cluster, np.intersect1d(real, fake)))


def _pairs(table: pa.Table, copies: Copies, places: list[str], place: np.ndarray) -> list[dict[str, Any]]:
    pairs = copies.pairs[:MOST_PAIRS].tolist()
    return [
        {"paths": [table["path"][row].as_py() for row in pair], "places": [places[place[row]] for row in pair]}
        for pair in pairs
    ]


def _ties(table: pa.Table) -> dict[str, list[str]]:
    """Return by column the names that one set has in more than one split."""
    ties = {}
    for column in TIES:
        named = table.filter(pc.and_(pc.not_equal(table[column], ""), pc.not_equal(table["split"], "")))
        counted = named.group_by(["set", column]).aggregate([("split", "count_distinct")])
        both = counted.filter(pc.greater(counted["split_count_distinct"], 1)).to_pylist()
        ties[column] = sorted(f"{row['set']}: {row[column]}" for row in both)
    return ties


def _print(findings: Mapping[str, Any], folder: Path) -> None:
    out = console()
    table = RichTable("images", *CLASSES.values())
    for column in table.columns[1:]:
        column.justify = "right"
    for name, counts in findings["places"].items():
        table.add_row(visible(name), *(f"{n:,}" for n in counts.values()))
    out.print(table)
    scores = RichTable("leak score (AUROC)", *findings["leak"]["all"])
    for name, clues in findings["leak"].items():
        cells = ["undefined" if score.undefined else f"{score.auroc:.3f}" for score in clues.values()]
        scores.add_row(visible(name), *cells)
    out.print(scores)
    for problem in findings["problems"]:
        out.print(f"{MARKS[problem.severity]} {visible(problem.text)}", soft_wrap=True)
    where = f"\n{folder / 'check.html'} shows it with pictures; check.json and copies.csv lie beside it"
    out.print(where, soft_wrap=True)


def _plain(value: Any) -> Any:
    """Return findings as JSON stores them: an undefined number is null."""
    if isinstance(value, Score | Problem):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
