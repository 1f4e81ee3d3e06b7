"""Texts in pieces: the same as all at once."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfl.data import Table
from dfl.data.text_columns import one_piece, prefixed

TEXTS = ["a/b.png", "", "ö/ü.jpg", "/abs.png", "x" * 300, "./here.png", "z.png"]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_prefixed(kind: pa.DataType) -> None:
    texts = pa.array(TEXTS * 3, kind).slice(2, 15)
    assert prefixed(texts, "/root ä/").to_pylist() == ["/root ä/" + text for text in texts.to_pylist()]
    assert prefixed(texts, "").equals(texts)


@pytest.mark.parametrize("step", [1, 4, 100])
def test_one_piece(step: int) -> None:
    texts = pa.array(TEXTS * 5, pa.string()).slice(3, 30)
    pieces = [texts.slice(at, step) for at in range(0, 30, step)] + [texts.slice(0, 0), pa.array([], pa.string())]
    assert one_piece(iter(pieces), 40, 9000).equals(texts)
    assert one_piece(iter([]), 0, 0).to_pylist() == []


@pytest.mark.parametrize("step", [3, 1 << 17])
def test_a_table_read_in_pieces(step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfl.data.text_columns.STEP", step)
    names = [f"{i}/{text}" if i % 3 else f"/{text}" for i in range(40) for text in ("a.png", "ö.jpg", "./c//d.png")]
    splits = [("train", "val", "test")[i % 7 % 3] for i in range(len(names))]
    table = pa.table({"path": names, "label": [i % 2 for i in range(len(names))], "split": splits})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=17)
    for split in ("train", "val", "test"):
        found = Table(str(tmp_path / "t.parquet")).load(split)["path"].to_pylist()
        want = [str(tmp_path / name) for name, side in zip(names, splits, strict=True) if side == split]
        assert found == want
