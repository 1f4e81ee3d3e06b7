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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.table import Table as RichTable

from dfl.data import csv_files
from dfl.data.sources.base import TIES
from dfl.data.text_columns import put
from dfl.data.workers import making
from dfl.errors import UserError, visible
from dfl.runs.files import write
from dfl.terminal import console
from dfl.tools.check_page import page
from dfl.tools.facts import SCAN_SCHEMA, need_imagehash
from dfl.tools.given import open_sources, rows
from dfl.tools.leak import Score, leak
from dfl.tools.problems import Problem, problems
from dfl.tools.scan import read_by, scanned, unclear
from dfl.tools.twins import Twins, exact, near

#: Columns whose values are counted by class.
COUNTED = ("set", "split", "generator", "family", "method", "group", "compression", "format", "mode", "quality", "size")
MARKS = {"error": "✗", "warning": "!", "note": "·", "fine": "✓"}


def check(
    sources: list[str],
    output: str = "check",
    root: str | None = None,
    distance: int = 4,
    strict: bool = False,
    workers: int | None = None,
    progress: bool = True,
) -> Path:
    """Look data sets over, and write what was found.

    Args:
        sources: Data configs, folders, tables; a table that ``dfl data scan`` wrote is taken as it is.
        output: The folder for check.html, check.json, copies.csv and the scan.
        root: Folder that replaces the root of every source of the configs.
        distance: Bits of 64 by which the perceptual hashes of near copies differ at most, 0 to 16.
        strict: End with an error if anything is wrong, for use in scripts.
        workers: Processes; by default one for each core.
        progress: Show a progress bar.

    Returns:
        The page.

    Raises:
        UserError: If a source gives no row, the output cannot be written, or ``strict`` finds an error.
    """
    if not 0 <= distance <= 16:
        raise UserError(f"--distance is {distance}; perceptual hashes have 64 bits: take 0 to 16")
    need_imagehash()
    folder = Path(output).expanduser()
    with making("the check", folder, inside=True):
        table = _facts(sources, folder, root, workers, progress)
        found, copies = examine(table, distance)
        write(folder / "check.json", json.dumps(_plain(found), indent=1, allow_nan=False))
        write(folder / "copies.csv", csv_files.whole(copies.column_names, copies.to_pylist()))
        write(folder / "check.html", page(table, found))
    _print(found, folder)
    errors = [p for p in found["problems"] if p.severity == "error"]
    if strict and errors:
        raise UserError(f"{len(errors)} thing{'s' * (len(errors) > 1)} wrong, the first: {errors[0].text}")
    return folder / "check.html"


def _facts(sources: list[str], folder: Path, root: str | None, workers: int | None, progress: bool) -> pa.Table:
    """Return the scan of all sources; tables that are scans already are not scanned again."""
    ready = [word for word in sources if _is_scan(Path(word).expanduser())]
    tables = [pq.read_table(Path(word).expanduser()) for word in ready]
    others = [word for word in sources if word not in ready]
    if others:
        file = folder / "scan.parquet"
        scanned(rows(open_sources(others, root)), file, workers, progress)
        tables.append(pq.read_table(file))
    table = pa.concat_tables(tables)
    if not len(table):
        raise UserError(f"{', '.join(sources)}: no image to check")
    size = pc.binary_join_element_wise(
        table["width"].cast(pa.string()), table["height"].cast(pa.string()), pa.scalar("x")
    )
    size = pc.if_else(pc.less(table["width"], 0), "", size)
    rules = pa.array(read_by(table), pa.string())  # for the page
    return put(put(table, "mask_rule", rules), "size", size)


def _is_scan(path: Path) -> bool:
    try:
        return path.suffix.lower() == ".parquet" and path.is_file() and pq.read_schema(path).names == SCAN_SCHEMA.names
    except (OSError, pa.ArrowException):  # the source that reads it says what is wrong
        return False


def examine(table: pa.Table, distance: int = 4) -> tuple[dict[str, Any], pa.Table]:
    """Find what there is to say about a scanned table.

    Args:
        table: Columns of a scan, and ``size``.
        distance: Of near copies.

    Returns:
        All findings by name, with ``problems``; and the table of copies.
    """
    place, places = _places(table)
    same = exact(table["sha256"], place, len(places))
    hashed = exact(pc.if_else(pc.equal(table["phash"], ""), "", table["sha256"]), place, len(places))
    alike = near(table["phash"], place, len(places), distance)
    names = table["set"].unique().to_pylist()
    scores = {"all": leak(table)}
    if len(names) > 1:
        scores |= {name: leak(table.filter(pc.equal(table["set"], name))) for name in names}
    found: dict[str, Any] = {
        "images": len(table),
        "counts": {name: counts for name in COUNTED if (counts := _counts(table, name))},
        "places": {name: _of_classes(table, place == i) for i, name in enumerate(places)},
        "unreadable": _named(table, "error"),
        "unclear masks": unclear(table),
        "masks": {
            "unusable": _named(table, "mask_error"),
            "with": int(pc.sum(pc.not_equal(table["mask"], "")).as_py() or 0),
            "empty on fakes": _paths(table, (table["label"].to_numpy() == 1) & (_share(table) == 0)),
            "full": _paths(table, _share(table) == 1),
            "not empty on real images": _paths(table, (table["label"].to_numpy() == 0) & (_share(table) > 0)),
        },
        "copies": {
            "places": places,
            "distance": distance,
            "exact": same.among.tolist(),
            "near": alike.among.tolist(),
            # an unreadable file may be the same as another, and is near to none
            "near, not the same file": (alike.among - hashed.among).tolist(),
            "both labels": _both_labels(table, same),
            "pairs": {"exact": _pairs(table, same, places, place), "near": _pairs(table, alike, places, place)},
            "cut": alike.cut,
        },
        "ties": _ties(table),
        "leak": scores,
    }
    found["problems"] = list(problems(found))
    return found, _copies(table, same, alike)


def _places(table: pa.Table) -> tuple[np.ndarray, list[str]]:
    """Return the number of each row's set and split, int64 (n,), and their names."""
    split = pc.if_else(pc.equal(table["split"], ""), "all", table["split"])
    encoded = pc.binary_join_element_wise(table["set"], split, "/").combine_chunks().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _of_classes(table: pa.Table, where: np.ndarray) -> dict[str, int]:
    label = table["label"].to_numpy()[where]
    return {name: int((label == value).sum()) for name, value in (("real", 0), ("fake", 1), ("unlabelled", -1))}


def _counts(table: pa.Table, column: str) -> dict[str, dict[str, int]]:
    """Count the values of a column by class, most frequent first; nothing for a column that is absent everywhere."""
    both = pa.table({"value": table[column].cast(pa.string()), "label": table["label"]})
    counted = both.group_by(["value", "label"]).aggregate([([], "count_all")]).to_pylist()
    out: dict[str, dict[str, int]] = {}
    for row in counted:
        value = "" if row["value"] == "-1" and column == "quality" else row["value"]
        classes = out.setdefault(value, {"real": 0, "fake": 0, "unlabelled": 0})
        classes[{0: "real", 1: "fake"}.get(row["label"], "unlabelled")] += row["count_all"]
    if set(out) <= {""}:
        return {}
    return dict(sorted(out.items(), key=lambda item: (-sum(item[1].values()), item[0])))


def _named(table: pa.Table, column: str) -> dict[str, str]:
    bad = table.filter(pc.not_equal(table[column], ""))
    return dict(zip(bad["path"].to_pylist(), bad[column].to_pylist(), strict=True))


def _share(table: pa.Table) -> np.ndarray:
    share: np.ndarray = table["mask_share"].to_numpy()
    return share


def _paths(table: pa.Table, where: np.ndarray) -> list[str]:
    paths: list[str] = table["path"].filter(pa.array(where)).to_pylist()
    return paths


def _both_labels(table: pa.Table, same: Twins) -> list[str]:
    """Return the paths of files that are real in one row and fake in another."""
    label, copied = table["label"].to_numpy(), same.cluster >= 0
    kinds = [set(same.cluster[copied & (label == value)].tolist()) for value in (0, 1)]
    wrong = np.array(sorted(kinds[0] & kinds[1]), np.int64)
    return _paths(table, copied & np.isin(same.cluster, wrong))


def _pairs(table: pa.Table, twins: Twins, places: list[str], place: np.ndarray, most: int = 12) -> list[dict[str, Any]]:
    paths = table["path"]
    return [
        {"paths": [paths[int(a)].as_py(), paths[int(b)].as_py()], "places": [places[place[a]], places[place[b]]]}
        for a, b in twins.pairs[:most]
    ]


def _ties(table: pa.Table) -> dict[str, list[str]]:
    """Return by column the names that one set has in more than one split."""
    out = {}
    for column in TIES:
        named = table.filter(pc.and_(pc.not_equal(table[column], ""), pc.not_equal(table["split"], "")))
        counted = named.group_by(["set", column]).aggregate([("split", "count_distinct")])
        both = counted.filter(pc.greater(counted["split_count_distinct"], 1))
        out[column] = sorted(
            f"{a}: {b}" for a, b in zip(both["set"].to_pylist(), both[column].to_pylist(), strict=True)
        )
    return out


def _copies(table: pa.Table, same: Twins, alike: Twins) -> pa.Table:
    """Return every image with a copy: the cluster of the same file, of near pictures, and what it is."""
    where = pa.array((same.cluster >= 0) | (alike.cluster >= 0))
    clusters = {"same_file": pa.array(same.cluster), "near": pa.array(alike.cluster)}
    columns = {name: table[name] for name in ("set", "split", "label", "path")}
    copies = pa.table(clusters | columns).filter(where)
    return copies.sort_by([("near", "ascending"), ("same_file", "ascending"), ("path", "ascending")])


def _print(found: Mapping[str, Any], folder: Path) -> None:
    out = console()
    table = RichTable("images", "real", "fake", "unlabelled")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, one in found["places"].items():
        table.add_row(visible(name), *(f"{one[kind]:,}" for kind in ("real", "fake", "unlabelled")))
    out.print(table)
    scores = RichTable("leak score (AUROC)", *next(iter(found["leak"].values())))
    for name, one in found["leak"].items():
        cells = ["undefined" if score.undefined else f"{score.auroc:.3f}" for score in one.values()]
        scores.add_row(visible(name), *cells)
    out.print(scores)
    for problem in found["problems"]:
        out.print(f"{MARKS[problem.severity]} {visible(problem.text)}", soft_wrap=True)
    out.print(
        f"\n{folder / 'check.html'} shows it with pictures; check.json and copies.csv lie beside it", soft_wrap=True
    )


def _plain(value: Any) -> Any:
    """Return findings as JSON holds them: an undefined number is null."""
    if isinstance(value, Score | Problem):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
