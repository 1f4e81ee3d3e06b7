"""Sets that come as Parquet shards with the images inside, as the Hugging Face hub keeps them.

Only the small columns are read here. An image is named by file, column and row, and read when a batch asks for it.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfl.data.locators import locate
from dfl.data.sources.base import TrainTest
from dfl.data.sources.generators import family_of, made_by
from dfl.data.sources.labels import check_names, class_names
from dfl.data.sources.trees import Row, chosen, class_rows, first_folder, subfolders
from dfl.errors import UserError, first_line


def opened(file: Path) -> pq.ParquetFile:
    """Open a shard.

    Raises:
        UserError: If it cannot be read.
    """
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as e:
        raise UserError(f"cannot read the shard {file}: {first_line(e)}; get it again") from e


def cells(file: Path, columns: list[str], images: list[str]) -> list[dict[str, Any]]:
    """Return small columns of a shard as rows; columns of images are only checked to be there.

    Raises:
        UserError: If the shard cannot be read or lacks a column.
        Contradiction: If its schema names the integers of ``label`` other than 0 real, all others fake.
    """
    with opened(file) as shard:
        names = shard.schema_arrow.names
        for name in [*columns, *images]:
            if name not in names:
                raise UserError(f"{file} has no column {name!r}; it has {', '.join(names)}")
        if "label" in columns:
            check_names(file, class_names(shard.schema_arrow, "label") or [])
        return list(shard.read(columns=columns).to_pylist())


class OpenSdi(TrainTest):
    """``OpenSDI_train/data/<generator>-*.parquet`` and ``OpenSDI_test/data/<generator>-*.parquet``.

    A fake whose key says ``partial`` was painted in and has a mask. Any other fake is generated as a whole, and its
    mask is the whole image, as is that of a fake whose mask is empty. ``val`` is taken out of train.

    Args:
        root: The folder that holds ``OpenSDI_train`` and ``OpenSDI_test``.
        generators: Generators to take, such as sd15 and flux; None takes all.
    """

    get = "get nebula/OpenSDI_train and nebula/OpenSDI_test from the Hugging Face hub, or set root"

    def __init__(self, root: str, generators: list[str] | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.generators = generators

    def rows(self, split: str) -> list[Row]:
        folder = first_folder(self.root / f"OpenSDI_{split}", self.root / split)
        base = self.found(folder, f"OpenSDI_{split}/data/<generator>-*.parquet", self.root)
        shards: dict[str, list[Path]] = {}
        for file in sorted(base.rglob("*.parquet")):
            shards.setdefault(file.name.split("-")[0], []).append(file)
        rows: list[Row] = []
        there = list(self.found(shards, "data/<generator>-*.parquet", base))
        for name in chosen(there, self.generators, "generators", self):
            for file in shards[name]:
                entries = cells(file, ["key", "label"], ["image", "mask"])
                rows += [self._row(file, i, name, entry) for i, entry in enumerate(entries)]
        return rows

    def _row(self, file: Path, i: int, generator: str, entry: dict[str, Any]) -> Row:
        label = int(entry["label"])
        row: Row = {"path": locate(file, column="image", row=i), "label": label}
        if label and "partial" in str(entry["key"]).lower():
            row |= {"class_label": 2, **made_by(generator, "inpainting")}
            row |= {"mask": locate(file, column="mask", row=i), "mask_rule": "mean>127,full"}
        elif label:
            row |= {"mask_rule": "all", **made_by(generator, "synthesis")}
        return row


class CommunityForensics(TrainTest):
    """``data/{systematic,manual,publicEval,commercial}/*.parquet``, or ``data/*.parquet`` of the small version.

    The test is publicEval; ``val`` is taken out of train. The full set has nearly no real images in its training
    parts: add a source of reals. A local copy as ``<generator>/{real,fake}`` is read too, for testing.

    Args:
        root: The folder that holds ``data``, or the folders of the generators.
        parts: Parts to train on; the small version has one, which is always taken.
    """

    get = "get OwensLab/CommunityForensics (or -Small) from the Hugging Face hub, or set root"

    def __init__(self, root: str, parts: list[str] | None = None, **options: Any) -> None:
        super().__init__(root, **options)
        self.parts = parts if parts is not None else ["systematic", "manual"]

    def rows(self, split: str) -> list[Row]:
        data = self.root / "data"
        if not data.is_dir():
            return self._local(split)
        folders = {name.lower(): path for name, path in subfolders(data).items()}
        small = sorted(data.glob("*.parquet"))
        files = small if split == "train" else []
        if not small or split == "test":
            for part in ["publicEval"] if split == "test" else self.parts:
                folder = self.found(folders.get(part.lower()), f"the folder {part}", data)
                files = files + sorted(folder.glob("*.parquet"))
        return [row for file in self.found(files, "*.parquet", data) for row in self._shard(file)]

    def _shard(self, file: Path) -> list[Row]:
        names = pq.read_schema(file).names
        extra = [name for name in ("prompt", "architecture") if name in names]
        rows: list[Row] = []
        for i, entry in enumerate(cells(file, ["label", "model_name", *extra], ["image_data"])):
            label = int(entry["label"])
            row: Row = {"path": locate(file, column="image_data", row=i), "label": label}
            if label:
                name = str(entry["model_name"])
                family = family_of(name) or str(entry.get("architecture") or "").lower()
                row |= {"generator": name, "family": family, "method": "synthesis"}
            rows.append(row | {"caption": str(entry.get("prompt") or "")})
        return rows

    def _local(self, split: str) -> list[Row]:
        if split != "test":
            raise self.expected("data/*.parquet or data/<part>/*.parquet", self.root, "train with the Parquet files")
        folders = self.found(subfolders(self.root), "data, or <generator>/{real,fake}", self.root).items()
        return [row for name, one in folders for row in class_rows(self, one, **made_by(name, "synthesis"))]
