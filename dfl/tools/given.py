"""Which images a user means: data configs, folders and tables become one table of rows.

A config gives what a run with it would see: its training source in the splits train and, unless it names another, val;
each test source in the split test. A folder or table gives all of its splits. A row keeps the name of its set.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfl.cli import configs
from dfl.data.decoding import escaped
from dfl.data.depths import with_bits
from dfl.data.mask_sets import with_mask_rules
from dfl.data.sources import Folder, Packed, Paths, Source, Table
from dfl.data.sources.base import NO_URLS, SPLIT_NAMES, SPLITS, is_url
from dfl.data.sources.contradictions import Contradiction
from dfl.data.sources.names import label_of
from dfl.data.sources.packed import RECORD
from dfl.data.sources.written import built
from dfl.data.text_columns import put
from dfl.errors import UserError


@dataclass(frozen=True)
class Given:
    """A source, and the splits that are taken from it."""

    name: str
    source: Source
    splits: tuple[str, ...] = SPLITS


def open_sources(words: list[str], root: str | None = None) -> list[Given]:
    """Return the sources that words name.

    Args:
        words: Data configs by path or bare name, folders, tables (``.csv``, ``.parquet``).
        root: Folder that replaces the ``root`` of every source of the configs.

    Raises:
        UserError: If a word names nothing, or a config holds no source.
    """
    found: list[Given] = []
    for word in words:
        if not word:
            raise UserError("a source is an empty word: name a data config, a folder or a table")
        path = Path(word).expanduser()
        if path.suffix.lower() in (".csv", ".parquet"):
            found.append(Given(path.stem, Table(str(path))))
        elif path.is_dir():
            found.append(Given(escaped(path.resolve().name), _folder(path)))
        elif is_url(word):
            raise UserError(f"{word} is an address; {NO_URLS}")
        else:
            found += _of_config(configs.find(word), root)
    return found


def rows(given: list[Given], decide: bool = False) -> pa.Table:
    """Return the rows of all sources, with a column ``set``; a row that comes twice in a split is kept once.

    A split that a source does not have is said; one that has none at all is an error.

    Args:
        given: The sources.
        decide: Have every mask's rule, for verbs that read masks.

    Raises:
        UserError: The source's own, if it gives no row; if a set's masks can be read in more than one way.
    """
    tables = [_rows_of(one) for one in given]
    if decide:
        tables = [with_mask_rules(table, one.name) for one, table in zip(given, tables, strict=True)]
    return pa.concat_tables(tables)


def _rows_of(one: Given) -> pa.Table:
    one.source.prepare()
    parts: list[pa.Table] = []
    lacking: list[tuple[str, UserError]] = []
    for split in one.splits:
        try:
            table = one.source.load(split)
        except Contradiction:
            raise
        except UserError as error:
            lacking.append((split, error))
            continue
        blank = pc.equal(table["split"], "")
        if len(one.splits) < len(SPLITS):  # of a config, which says what they are used for
            column = pc.if_else(blank, split, table["split"])
            table = put(table, "split", column)
        elif parts and pc.all(blank).as_py():  # no splits: the same rows again
            continue
        parts.append(table)
    if not parts:
        raise lacking[0][1]
    for split, reason in lacking:
        print(f"{one.name}: nothing in {split}: {' '.join(str(reason).split())}")
    if one.source.left_out:
        print(f"{one.name}: {one.source.left_out}")
    table = with_bits(_unique(pa.concat_tables(parts)), one.name)
    return table.append_column("set", pa.array([one.name] * len(table), pa.string()))


def _unique(table: pa.Table) -> pa.Table:
    """Leave out rows whose path and split came before."""
    numbered = table.select(["path", "split"]).append_column("row", pa.array(np.arange(len(table))))
    first = numbered.group_by(["path", "split"]).aggregate([("row", "min")])["row_min"].to_numpy()
    return table if len(first) == len(table) else table.take(pa.array(np.sort(first)))


def _folder(path: Path) -> Source:
    """Return a folder of ours, one of classes, with or without splits above them, or one of images without labels."""
    if (path / RECORD).is_file():
        return Packed(str(path))
    if (path / "equalize.json").is_file():  # its table knows more than its folders
        return Table(str(path / "table.parquet"))
    folders = [p for p in path.iterdir() if p.is_dir()]
    inner = [p for top in folders if top.name.lower() in SPLIT_NAMES for p in top.iterdir() if p.is_dir()]
    classes = any(label_of(p.name) is not None for p in folders + inner)
    return Folder(str(path)) if classes else Paths([str(path)])


def _of_config(file: str, root: str | None) -> list[Given]:
    document = configs.mapping(configs.read(file))
    if "data" in document:
        document = document["data"]
        if isinstance(document, str):
            inner = configs.find(document)
            if "data" in configs.mapping(configs.read(inner)):
                raise UserError(f"{file}: data names {document}, which is a config of a run and no data config")
            return _of_config(inner, root)
    held = configs.mapping(configs.mapping(document).get("init_args"))
    train = held.get("train") or []
    trained = train if isinstance(train, list) else [train]
    found = []
    for i, one in enumerate(trained):
        own = ("train",) + ("val",) * (not held.get("val")) + ("test",) * (not held.get("test"))
        splits = own if len(own) < len(SPLITS) else SPLITS
        found.append(Given("train" if len(trained) == 1 else f"train{i}", _build(one, root, file), splits))
    for split in ("val", "test"):
        domains = held.get(split) or {}
        if not isinstance(domains, Mapping):
            raise UserError(f"{file}: {split} takes sources by the name of their domain, not {domains!r}")
        for name, one in domains.items():
            found.append(Given(str(name), _build(one, root, file), (split,)))
    if not found:
        raise UserError(f"{file} names no source: a data config has `train`, `val` or `test` under `init_args`")
    return found


def _build(one: Any, root: str | None, file: str) -> Source:
    if root is not None and isinstance(one, Mapping):
        one = {**one, "init_args": {**configs.mapping(one.get("init_args")), "root": root}}
    return built(one, os.path.basename(file))
