"""``dfl data split``: a table with a split for every image; rows that belong together stay together."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from dfl.data.sources.base import TIES, put
from dfl.data.splits import components, split_column
from dfl.errors import UserError, near
from dfl.runs.files import claimed
from dfl.tools.common import findable, parquet_file, write_parquet
from dfl.tools.sources import open_sources, rows_of


def split(
    sources: list[str],
    output: str = "split.parquet",
    train: float = 0.7,
    val: float = 0.1,
    test: float = 0.2,
    by: list[str] = list(TIES),  # noqa: B006  (read only; jsonargparse shows it in the help)
    seed: int = 0,
    root: str | None = None,
) -> Path:
    """Share images out to train, val and test, by class; rows tied by identity, video or source stay together.

    Where a source has no videos, they are guessed from folders and numbered names below the class folders.

    Args:
        sources: Data configs, folders, tables. Splits they have are replaced.
        output: The table, a Parquet file, read by ``Table``.
        train: Share of the images.
        val: Share of the images.
        test: Share of the images.
        by: Columns whose names tie rows together.
        seed: Seed of the draw.
        root: Folder that replaces the root of every source of the configs.

    Returns:
        The file.

    Raises:
        UserError: If the shares do not add up to 1, or a column is unknown.
    """
    named = open_sources(sources, root)
    tables = [rows_of(one) for one in named]
    table = pa.concat_tables(tables)
    for name in by:
        if name not in table.column_names:
            raise UserError(f"--by names no column {name!r}{near(name, table.column_names)}")
    file = parquet_file(output)
    shares = {name: share for name, share in (("train", train), ("val", val), ("test", test)) if share}
    videos = [video for one, part in zip(named, tables, strict=True) for video in one.source.videos(part)]
    tied = put(table, "video", videos) if "video" in by else table
    column = split_column(tied, shares, seed, by=tuple(by))
    with claimed(file):
        write_parquet(file, findable(put(table, "split", column), file))
    own = table["video"].to_pylist()
    guessed = {video for video, before in zip(videos, own, strict=True) if video and not before}
    if guessed and "video" in by:
        rest = ",".join(name for name in by if name != "video")
        print(
            f"{len(guessed):,} videos are guessed from folders and numbered names alone, such as {min(guessed)}; "
            f"--by '[{rest}]' tears them apart"
        )
    sizes = np.unique(components([tied[name].to_pylist() for name in by]), return_counts=True)[1] if by else np.ones(1)
    count = Counter(zip(column.to_pylist(), table["label"].to_pylist(), strict=True))
    print(f"{len(table):,} images in {file}: {(sizes > 1).sum():,} sets of tied rows, the largest of {sizes.max():,}")
    for name, wanted in shares.items():
        n = sum(count[name, label] for label in (-1, 0, 1))
        share = n / len(table)
        off = "" if abs(share - wanted) <= 0.02 else f", asked for {wanted:.1%}: tied rows cannot be torn apart"
        print(f"{name:6}{n:>9,} images, {share:.1%}{off}; {count[name, 0]:,} real, {count[name, 1]:,} fake")
    return file
