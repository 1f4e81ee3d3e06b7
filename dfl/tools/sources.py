"""The images that words of the command line name: data configs, folders and tables become one table of rows.

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
from dfl.data.sources.base import DEGRADATION, NO_URLS, SPLIT_NAMES, SPLITS, is_url, put
from dfl.data.sources.contradictions import Contradiction
from dfl.data.sources.names import label_of
from dfl.data.sources.packed import RECORD
from dfl.data.sources.written import built
from dfl.errors import UserError


@dataclass(frozen=True)
class NamedSource:
    """A source, the name of its set, and the splits that are taken from it."""

    name: str
    source: Source
    splits: tuple[str, ...] = SPLITS


def read_rows(words: list[str], root: str | None = None, mask_rules: bool = False) -> pa.Table:
    """Return the rows of all sources that words name, with a column ``set``.

    Args:
        words: Data configs by path or bare name, folders, tables (``.csv``, ``.parquet``).
        root: Folder that replaces the ``root`` of every source of the configs.
        mask_rules: Give every row with a mask its rule, for verbs that read masks.

    Raises:
        UserError: If a word names nothing, a source has no row, or the masks of a set can be read in several ways.
    """
    tables = []
    for one in open_sources(words, root):
        table = rows_of(one)
        tables.append(with_mask_rules(table, one.name) if mask_rules else table)
    return pa.concat_tables(tables)


def open_sources(words: list[str], root: str | None = None) -> list[NamedSource]:
    """Return the sources that words name; see `read_rows`."""
    sources: list[NamedSource] = []
    for word in words:
        if not word:
            raise UserError("a source is an empty word: name a data config, a folder or a table")
        path = Path(word).expanduser()
        if path.suffix.lower() in (".csv", ".parquet"):
            sources.append(NamedSource(path.stem, Table(str(path))))
        elif path.is_dir():
            sources.append(NamedSource(escaped(path.resolve().name), _folder(path)))
        elif is_url(word):
            raise UserError(f"{word} is an address; {NO_URLS}")
        else:
            sources += _of_config(configs.find(word), root)
    return sources


def rows_of(one: NamedSource) -> pa.Table:
    """Return the rows of one source, each once in a split. Splits that it lacks are printed; if it lacks all, raised.

    Raises:
        UserError: The source's own, if it has no row.
    """
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
            table = put(table, "split", pc.if_else(blank, split, table["split"]))
        elif parts and pc.all(blank).as_py():  # no splits: the same rows again
            continue
        parts.append(table)
    if not parts:
        raise lacking[0][1]
    for split, reason in lacking:
        print(f"{one.name}: nothing in {split}: {' '.join(str(reason).split())}")
    if one.source.left_out:
        print(f"{one.name}: {one.source.left_out}")
    table = pa.concat_tables(parts)
    if DEGRADATION.name in table.column_names:
        raise UserError(f"{one.name}: {one.source!r} degrades what is loaded, and files are read here: name its source")
    numbered = table.select(["path", "split"]).append_column("row", pa.array(np.arange(len(table))))
    first = numbered.group_by(["path", "split"]).aggregate([("row", "min")])["row_min"].to_numpy()
    if len(first) < len(table):
        table = table.take(pa.array(np.sort(first)))
    return with_bits(table, one.name).append_column("set", pa.array([one.name] * len(table), pa.string()))


def _folder(path: Path) -> Source:
    """Return the source of a folder: written by a verb, of classes (below splits or not), or of unlabelled images."""
    if (path / RECORD).is_file():
        return Packed(str(path))
    if (path / "equalize.json").is_file():  # its table knows more than its folders
        return Table(str(path / "table.parquet"))
    folders = [p for p in path.iterdir() if p.is_dir()]
    inner = [p for top in folders if top.name.lower() in SPLIT_NAMES for p in top.iterdir() if p.is_dir()]
    classes = any(label_of(p.name) is not None for p in folders + inner)
    return Folder(str(path)) if classes else Paths([str(path)])


def _of_config(file: str, root: str | None) -> list[NamedSource]:
    document = configs.mapping(configs.read(file))
    if "data" in document:
        document = document["data"]
        if isinstance(document, str):
            inner = configs.find(document)
            if "data" in configs.mapping(configs.read(inner)):
                raise UserError(f"{file}: data names {document}, which is a config of a run and no data config")
            return _of_config(inner, root)
    arguments = configs.mapping(configs.mapping(document).get("init_args"))
    train = arguments.get("train") or []
    train = train if isinstance(train, list) else [train]
    splits = ("train", *(split for split in ("val", "test") if not arguments.get(split)))
    names = ["train"] if len(train) == 1 else [f"train{i}" for i in range(len(train))]
    sources = [NamedSource(name, _build(one, root, file), splits) for name, one in zip(names, train, strict=True)]
    for split in ("val", "test"):
        domains = arguments.get(split) or {}
        if not isinstance(domains, Mapping):
            raise UserError(f"{file}: {split} takes sources by the name of their domain, not {domains!r}")
        sources += [NamedSource(str(name), _build(one, root, file), (split,)) for name, one in domains.items()]
    if not sources:
        raise UserError(f"{file} names no source: a data config has `train`, `val` or `test` under `init_args`")
    return sources


def _build(one: Any, root: str | None, file: str) -> Source:
    if root is not None and isinstance(one, Mapping):
        one = {**one, "init_args": {**configs.mapping(one.get("init_args")), "root": root}}
    return built(one, os.path.basename(file))
